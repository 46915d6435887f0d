"""``torch_tvm.loop`` drives a compiled loop body; ``torch_tvm.assert`` raises a program's own exception.

The body is a function of the module that runs: ``body(iteration, carried…, captured…) -> (condition, carried…)``.
Nothing is unrolled and only the values of one iteration are alive, so the trip count may be any number.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
import tvm_ffi
from tvm_ffi import from_dlpack

from torch_tvm.runtime.calls.tensors import (
    array_item,
    as_torch,
    memory_ranges,
    read_bool,
    read_int,
    shares_memory,
)
from torch_tvm.support.errors import InternalError, InvalidIndex, InvalidInput, InvalidOperand
from torch_tvm.support.packed_functions import ASSERT, LOOP


class _Running(threading.local):
    """The VM whose code the current thread runs, and the loop bodies that may return their iteration number."""

    vm: Any = None
    keeps_iteration: frozenset[str] = frozenset()


running = _Running()


def loop(
    name: str, kind: str, limit: Any, condition: Any, carried: Sequence[Any], captured: Sequence[Any]
) -> list[Any]:
    """Run the body until its condition is false or ``limit`` iterations are done; give the carried values.

    ``kind`` is ``"endless"`` where the condition that the body gives is always true.

    Values that the body passed through unchanged are copied: the caller may reuse the memory of its
    arguments.
    """
    if running.vm is None:
        raise InternalError("a loop runs outside a compiled module", stage="runtime")
    body = running.vm[str(name)]
    keeps_iteration = str(name) in running.keeps_iteration
    values, fixed = list(carried), list(captured)
    borrowed = memory_ranges([v for v in (*values, *fixed) if not isinstance(v, (int, float))])
    counter = torch.zeros((), dtype=torch.int64)
    iteration, cell = from_dlpack(counter), counter.numpy()
    total, goes_on, done = read_int(limit), read_bool(condition), 0
    positions = range(1, len(values) + 1)
    checks = str(kind) != "endless"
    while goes_on and done < total:
        if keeps_iteration:
            iteration = from_dlpack(torch.tensor(done))
        else:
            cell[()] = done
        result = body(iteration, *values, *fixed)
        values = [array_item(result, i) for i in positions]
        goes_on = not checks or read_bool(array_item(result, 0))
        done += 1
    return [_own(value, borrowed) for value in values]


def _own(value: Any, borrowed: list[tuple[int, int]]) -> Any:
    tensor = as_torch(value)
    return tensor.clone() if shares_memory(tensor, borrowed) else value


_EXCEPTIONS: dict[str, type[InvalidInput]] = {
    "RuntimeError": InvalidOperand,
    "IndexError": InvalidIndex,
}


def check(condition: Any, kind: str, message: str, *values: int) -> None:
    """Raise an :class:`InvalidInput`, also of the program's kind, unless a condition (a number or
    0-d tensor) is true.
    """
    if not (condition if isinstance(condition, (bool, int)) else read_bool(condition)):
        raise _EXCEPTIONS[str(kind)](str(message).format(*values) if values else str(message))


def register() -> None:
    """Make both functions known to TVM; once a process."""
    tvm_ffi.register_global_func(LOOP, loop, override=True)
    tvm_ffi.register_global_func(ASSERT, check, override=True)


__all__ = ["check", "loop", "register", "running"]
