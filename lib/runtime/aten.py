"""``torch_tvm.aten``: one op that runs in PyTorch, called from compiled code.

The first argument is a JSON text that describes the call, as the lowering wrote it: ``op``; ``operands``, each a
constant, ``{"tensor": i}``, ``{"complex": i}`` (a pair of reals in a last dimension of 2), ``{"scalar": i}`` (a 0-d
tensor read as a number), ``{"object": i}`` (a list that another such call gave; in it complex tensors are pairs of
reals too, and ``{"complex objects": i}`` says that all are), ``{"size": i}``, ``{"float": text}`` or a list of these;
``results``, the dtype or MLIR type of each; ``location``, the user's line and where it is; for a random op perhaps
``memory orders``, per operand the axes from the outermost in memory to the innermost, with a last number for a tensor
that is drawn into: -1 where it has gaps, else -2. It is read once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import tvm_ffi

from torch_tvm.aten.autocast import is_active, without_autocast
from torch_tvm.aten.calls import callable_for
from torch_tvm.runtime.calls.arguments import as_reals
from torch_tvm.runtime.calls.failures import invalid, location_of
from torch_tvm.runtime.calls.tensors import as_torch, compact, memory_ranges, shares_memory
from torch_tvm.support.packed_functions import ATEN

_SCALAR_RESULT = {
    "!torch.int": torch.int64,
    "!torch.float": torch.float64,
    "!torch.bool": torch.bool,
    "!torch.number": torch.float64,
}

# Random ops that make their result dense, and those that draw into what they get.
_IN_PLACE = {
    f"torch.aten.{name}": f"torch.aten.{in_place}"
    for name, in_place in {
        "bernoulli.p": "bernoulli_.float",
        "bernoulli.Tensor": "bernoulli_.Tensor",
        "normal_functional": "normal_",
        "random.from": "random_.from",
        "random.to": "random_.to",
        **{name: f"{name}_" for name in "cauchy exponential geometric log_normal random uniform".split()},
    }.items()
}

Arguments = Sequence[Any]
Operand = Callable[[Arguments], Any]
_COLLECTIVE = "torch._c10d_functional"
"""What the names of ops start with that other processes take part in; those for autograd as well."""


@lru_cache(maxsize=4096)
def _planned(spec: str) -> Callable[[Arguments], list[Any]]:
    """A function of the call's tensors and sizes that gives the results."""
    call = json.loads(spec)
    name, place = call["op"], location_of(call["location"])
    function = callable_for(name, "runtime")
    operands = [_operand(item) for item in call["operands"]]
    orders = call.get("memory orders", ())
    operands = [_laid_out(*pair) for pair in zip(operands, orders, strict=True)] if orders else operands
    if orders and min(orders[0], default=0) < 0:
        function = callable_for(_IN_PLACE.get(name, name), "runtime")
    dtypes = [_result_dtype(text) for text in call["results"]]
    finish = _received if name.startswith(_COLLECTIVE) else lambda value: value

    def run(arguments: Arguments) -> list[Any]:
        if is_active():
            with without_autocast():
                return run(arguments)
        try:
            with torch.no_grad():
                value = finish(function(*[operand(arguments) for operand in operands]))
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise invalid(error)(str(error), subject=name, location=place) from error
        values = [value] if dtypes == [None] else _as_list(value)
        inputs = memory_ranges(_tensors_in(arguments))
        return [_own(item, dtype, inputs) for item, dtype in zip(values[: len(dtypes)], dtypes, strict=True)]

    return run


def _received(value: Any) -> Any:
    """What a collective gives, once it is there.

    PyTorch remembers the work by the tensor's memory, and a kernel that reads the memory next does not ask.
    """
    for tensor in _as_list(value):
        torch.ops._c10d_functional.wait_tensor(tensor)
    return value


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _operand(item: Any) -> Operand:
    if isinstance(item, list):
        parts = [_operand(part) for part in item]
        return lambda arguments: [part(arguments) for part in parts]
    if not isinstance(item, dict):
        return lambda _: item
    ((kind, value),) = item.items()
    if kind == "tensor":
        return lambda arguments: as_torch(arguments[value])
    if kind == "complex":
        return lambda arguments: _complex(as_torch(arguments[value]))
    if kind == "scalar":
        return lambda arguments: as_torch(arguments[value]).item()
    if kind == "object":
        return lambda arguments: _unwrapped(arguments[value])
    if kind == "complex objects":
        return lambda arguments: [_complex(item) for item in _unwrapped(arguments[value])]
    if kind == "size":
        return lambda arguments: int(arguments[value])
    number = complex(value) if kind == "complex number" else float(value)
    return lambda _: number


def _complex(pairs: torch.Tensor) -> torch.Tensor:
    """Pairs of reals as complex numbers, where PyTorch's kernels can read them: see ``as_reals``."""
    return torch.view_as_complex(pairs.clone() if pairs.data_ptr() % 16 else pairs)


def _laid_out(operand: Operand, order: Sequence[int]) -> Operand:
    """The operand with its axes in another order in memory; for a last -1 with gaps between its elements."""
    if not order:
        return operand
    has_gaps = order[-1] == -1
    axes = [axis for axis in order if axis >= 0]
    back = sorted(range(len(axes)), key=axes.__getitem__)

    def laid_out(arguments: Arguments) -> torch.Tensor:
        given: torch.Tensor = operand(arguments)
        sizes = [given.shape[axis] for axis in axes]
        memory = given.new_empty([*sizes, 2])[..., 0] if has_gaps else given.new_empty(sizes)
        return memory.permute(back).copy_(given)

    return laid_out


def _result_dtype(text: str) -> torch.dtype | None:
    """The dtype of a tensor or number; ``None`` for what is passed on as it is."""
    if text.startswith("!") and text not in _SCALAR_RESULT:
        return None
    found = _SCALAR_RESULT.get(text) or getattr(torch, text.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"'{text}' is no result type of {ATEN}")
    return found


def _tensors_in(values: Arguments) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple, tvm_ffi.Array)):
            found += _tensors_in(value)
        elif isinstance(value, (torch.Tensor, tvm_ffi.Tensor)):
            found.append(value)
    return found


def _unwrapped(value: Any) -> Any:
    if isinstance(value, tvm_ffi.Array):
        return [_unwrapped(item) for item in value]
    return as_torch(value) if isinstance(value, tvm_ffi.Tensor) else value


def _own(value: Any, dtype: torch.dtype | None, inputs: list[tuple[int, int]]) -> Any:
    """A result as a dense tensor with memory of its own: the caller reuses that of the arguments."""
    if dtype is None:
        if isinstance(value, (list, tuple)):
            return [_own(item, None, inputs) for item in value]
        return _own(value, value.dtype, inputs) if isinstance(value, torch.Tensor) else value
    if value is None:  # a result that this call does not have: attention's weights where none are asked for
        return torch.empty(0, dtype=dtype)
    if not isinstance(value, torch.Tensor):
        return torch.tensor(value, dtype=dtype)
    if value.is_complex():
        value = as_reals(value.detach())
    elif value.dtype != dtype and not dtype.is_complex:  # what is to be complex and is not is a pair already
        value = value.to(dtype)
    value = compact(value.detach().resolve_neg().contiguous())
    return value.clone() if shares_memory(value, inputs) else value


def aten(spec: str, *arguments: Any) -> list[Any]:
    """Run one described op; its errors name the user's line and the op, and can be caught as PyTorch's own type."""
    return _planned(str(spec))(arguments)


def register() -> None:
    """Make the function known to TVM; once a process."""
    tvm_ffi.register_global_func(ATEN, aten, override=True)


__all__ = ["aten", "register"]
