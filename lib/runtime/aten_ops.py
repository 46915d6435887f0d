"""From the name of a Torch dialect op to a Python function of its operands in order."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from torch_tvm.support.errors import UnsupportedOp


@lru_cache(maxsize=4096)
def resolve(name: str) -> Callable[..., Any]:
    """``torch.aten.add.Tensor`` as a callable that takes its operands by position.

    Raises :class:`UnsupportedOp` when this PyTorch has no such operator.
    """
    short = name.removeprefix("torch.")
    if short in _PYTHON:
        return _PYTHON[short]
    namespace, _, rest = short.partition(".")
    base, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace, None), base, None) if base else None
    found = getattr(packet, overload or "default", None)
    if not isinstance(found, torch._ops.OpOverload):
        raise UnsupportedOp(
            "this PyTorch has no such operator",
            subject=name,
            stage="runtime",
            advice="import the package that registers the operator before the compiled module runs",
        )
    return _by_position(found)


def _by_position(overload: torch._ops.OpOverload) -> Callable[..., Any]:
    arguments = overload._schema.arguments
    positional = sum(not argument.kwarg_only for argument in arguments)
    if positional == len(arguments):
        return overload
    keywords = [argument.name for argument in arguments[positional:]]

    def call(*operands: Any) -> Any:
        return overload(*operands[:positional], **dict(zip(keywords, operands[positional:], strict=False)))

    return call


def _tensor(data: Any, dtype: int | None, device: Any, requires_grad: bool) -> torch.Tensor:
    found = torch.tensor(data)
    return found if dtype is None else torch.ops.aten.to.dtype(found, dtype)


def _assert(condition: bool, message: str = "runtime assertion failed") -> None:
    if not condition:
        raise RuntimeError(message)


def _bernoulli(tensor: torch.Tensor, p: float, generator: None) -> torch.Tensor:
    return torch.empty_like(tensor).bernoulli_(p)


_PYTHON: dict[str, Callable[..., Any]] = {
    "aten.__is__": operator.is_,
    "aten.__isnot__": operator.is_not,
    "aten.__not__": operator.not_,
    "aten.__getitem__.t": operator.getitem,
    "aten.len.t": len,
    "aten.add.t": operator.add,
    "prim.ListUnpack": list,
    "prim.TupleUnpack": list,
    "prim.TupleIndex": operator.getitem,
    "aten.tensor": _tensor,
    "runtime.assert": _assert,
    "valsem.aten.bernoulli.float": _bernoulli,
}

__all__ = ["resolve"]
