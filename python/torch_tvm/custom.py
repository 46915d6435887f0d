"""Lowerings of a user's own ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_tvm.lowering.registry import register
from torch_tvm.support.errors import InvalidInput


def register_lowering(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lower ``name``, such as ``"my_ns::my_op"`` or ``"my_ns::my_op.overload"``, with the decorated function.

    The function takes a :class:`~torch_tvm.lowering.builder.Builder` and the op's operands in order,
    annotated as in :mod:`torch_tvm.lowering.registry`, and returns a Relax expression. Raises
    :class:`InvalidInput` for a name without a namespace and ``ValueError`` for an op that has a lowering.

    >>> import torch, torch_tvm
    >>> from torch_tvm.lowering.registry import Tensor
    >>> from tvm import relax
    >>> @torch.library.custom_op("my_ns::twice", mutates_args=())
    ... def twice(x: torch.Tensor) -> torch.Tensor:
    ...     return x + x
    >>> _ = twice.register_fake(torch.empty_like)
    >>> @torch_tvm.register_lowering("my_ns::twice")
    ... def lower_twice(b, x: Tensor):
    ...     return b.emit(relax.op.add(x, x))
    >>> torch_tvm.compile(lambda x: twice(x), (torch.ones(2),), fallback=False)(torch.ones(2))
    tensor([2., 2.])
    """
    namespace, separator, op = name.partition("::") if isinstance(name, str) else ("", "", "")
    if not separator or not namespace or not op:
        raise InvalidInput(f"{name!r} is no operator name", subject="register_lowering", advice='write "ns::op"')

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        register(f"torch.{namespace}.{op}", function, custom=True)
        return function

    return decorate


__all__ = ["register_lowering"]
