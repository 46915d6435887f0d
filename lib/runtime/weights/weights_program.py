"""Runs the program that ``lib/transforms/params/weight_prepacking.py`` makes of the work on weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import tvm_ffi

from torch_tvm.runtime.calls.failures import out_of_range
from torch_tvm.support.attributes import PROGRAM, TRANSFORM_PARAMS

Operation = Callable[[list[Any], Any], torch.Tensor]


def _pad(operands: list[Any], attributes: Any) -> torch.Tensor:
    """Zeros at the end of an axis, up to a size."""
    (x,), (axis, size) = operands, attributes
    missing = size - x.shape[axis]
    if not missing:
        return x
    shape = list(x.shape)
    shape[axis] = missing
    return torch.cat([x, x.new_zeros(shape)], axis)


def _windows(operands: list[Any], attributes: Any) -> torch.Tensor:
    """An axis in windows of ``size``, two axes in its place; a last window that is not full moves back."""
    (x,), (axis, size) = operands, attributes
    length = x.shape[axis]
    starts = [min(first, length - size) for first in range(0, length, size)]
    return torch.stack([x.narrow(axis, start, size) for start in starts], axis)


def _winograd(operands: list[Any], matrix: Any) -> torch.Tensor:
    """``G g G^T`` of every filter ``[out, in, 3, 3]``: ``[points², out, in]``."""
    g = torch.tensor(matrix, dtype=torch.float64)
    (weight,) = operands
    transformed = torch.kron(g, g) @ weight.double().reshape(-1, 9).T
    return transformed.to(weight.dtype).reshape(-1, *weight.shape[:2])


def _check_index(operands: list[Any], check: dict[str, Any]) -> torch.Tensor:
    """Positions from the front, none out of range."""
    index, size = operands[0].to(torch.int64), check["size"]
    bad = (index >= size) | (index < (-size if check["wraps"] else 0))
    if check["ignored"] is not None:
        bad &= index != check["ignored"]
    if bad.any():
        raise out_of_range(check["of"], int(index[bad][0]), size)
    return torch.where(index < 0, index + size, index) if check["wraps"] else index


def _tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float32)


_OPERATIONS: dict[str, Operation] = {
    "add": lambda x, _: x[0] + x[1],
    "subtract": lambda x, _: x[0] - x[1],
    "multiply": lambda x, _: x[0] * x[1],
    "divide": lambda x, _: x[0] / x[1],
    "negative": lambda x, _: -_tensor(x[0]),
    "sqrt": lambda x, _: torch.sqrt(_tensor(x[0])),
    "rsqrt": lambda x, _: torch.rsqrt(_tensor(x[0])),
    "maximum": lambda x, _: torch.maximum(_tensor(x[0]), _tensor(x[1])),
    "minimum": lambda x, _: torch.minimum(_tensor(x[0]), _tensor(x[1])),
    "reshape": lambda x, shape: _tensor(x[0]).reshape(shape),
    "permute": lambda x, order: _tensor(x[0]).permute(order),
    "concat": lambda x, axis: torch.cat([_tensor(item) for item in x], axis),
    "cast": lambda x, dtype: _tensor(x[0]).to(getattr(torch, dtype)),
    "pad": _pad,
    "extend": _pad,
    "windows": _windows,
    "winograd": _winograd,
    "check_index": _check_index,
}


def run_weights_program(
    text: str, weights: Sequence[torch.Tensor], changed: Collection[int] | None = None
) -> list[torch.Tensor | None]:
    """The results of the program on the original weights, each contiguous.

    With positions in ``changed``, only those that read one of these weights, and ``None`` for the others.
    """
    program = _parsed(text)
    stale = program.stale(len(weights), changed)
    needed = program.needed(len(weights), stale)
    values: list[Any] = [weight.detach() for weight in weights]
    last_use = program.last_uses(len(weights), needed)
    with torch.no_grad():
        for index, (name, operands, attributes) in enumerate(program.steps):
            if len(values) not in needed:
                values.append(None)
                continue
            given = [values[item[0]] if isinstance(item, list) else item for item in operands]
            values.append(_OPERATIONS[name](given, attributes))
            for item in operands:
                if isinstance(item, list) and last_use[item[0]] == index:
                    values[item[0]] = None
        return [
            _tensor(values[item[0]] if isinstance(item, list) else item).contiguous() if is_stale else None
            for item, is_stale in zip(program.results, stale, strict=True)
        ]


@dataclass(frozen=True)
class _Program:
    """Steps ``(operation, operands, attributes)`` and results; ``[n]`` is the n-th value, weights first."""

    steps: list[Any]
    results: list[Any]

    def stale(self, count: int, changed: Collection[int] | None) -> list[bool]:
        """For each result whether it reads one of the changed weights, of ``count``; all of them for ``None``."""
        if changed is None:
            return [True] * len(self.results)
        reads = set(changed)
        for index, (_, operands, _attributes) in enumerate(self.steps, count):
            if any(isinstance(item, list) and item[0] in reads for item in operands):
                reads.add(index)
        return [isinstance(item, list) and item[0] in reads for item in self.results]

    def needed(self, count: int, stale: list[bool]) -> set[int]:
        """The values that these results are made of."""
        found = {item[0] for item, wanted in zip(self.results, stale, strict=True) if wanted and isinstance(item, list)}
        for index in reversed(range(len(self.steps))):
            if count + index in found:
                found |= {item[0] for item in self.steps[index][1] if isinstance(item, list)}
        return found

    def last_uses(self, count: int, needed: set[int]) -> dict[int, int]:
        """The step after which a needed value is not read any more; results are read for ever."""
        found = {}
        for index, (_, operands, _attributes) in enumerate(self.steps):
            if count + index in needed:
                found.update({item[0]: index for item in operands if isinstance(item, list)})
        return {**found, **{item[0]: len(self.steps) for item in self.results if isinstance(item, list)}}


@lru_cache(maxsize=8)
def _parsed(text: str) -> _Program:
    program = json.loads(text)
    return _Program(program["steps"], program["results"])


def pack_weights(mod: Any, vm: Any, weights: Sequence[torch.Tensor]) -> Any:
    """What ``main`` of an optimised ``tvm.IRModule`` takes as its last argument, made of the original weights.

    By the module's program where it has one, else by its function ``main_transform_params``.
    """
    if mod.attrs and PROGRAM in mod.attrs:
        return tvm_ffi.convert(run_weights_program(str(mod.attrs[PROGRAM]), weights))
    return vm[TRANSFORM_PARAMS](list(weights))
