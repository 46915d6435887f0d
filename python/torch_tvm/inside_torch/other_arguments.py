"""Compiled graphs that are called with tensors that need a gradient now, or are of a class of the user's, and were not
when the graphs were compiled.

Dynamo compiles another graph for them, but no guard of its looks at tensors that a graph holds (the state of an
optimizer with ``differentiable=True`` needs a gradient from its second step on), and callers may drop guards.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule

from torch_tvm.runtime.warnings import warn_user


class GraphNotCompiled(UserWarning):
    """A graph of ``torch.compile`` runs in PyTorch; the message says why."""


def held_tensors(gm: GraphModule) -> list[torch.Tensor]:
    """Tensors that the graph, or one in it, reads as its own."""
    parts = [part for part in gm.modules() if isinstance(part, GraphModule)]
    names = [(part, str(node.target)) for part in parts for node in part.graph.nodes if node.op == "get_attr"]
    values = [operator.attrgetter(name)(part) for part, name in names]
    return [value for value in values if isinstance(value, torch.Tensor)]


def for_other_arguments(function: Callable[..., Any], gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """``function``, compiled of ``gm`` for ``inputs``; PyTorch runs ``gm`` for tensors that need a gradient only now,
    and for those of a class of their own where they had none.
    """
    is_counted = torch.is_grad_enabled()
    had_none = [i for i, x in enumerate(inputs) if isinstance(x, torch.Tensor) and not (is_counted and x.requires_grad)]
    held = [x for x in held_tensors(gm) if not (is_counted and x.requires_grad)]
    plain = [i for i, x in enumerate(inputs) if type(x) in _PLAIN]
    told: set[str] = set()

    def in_pytorch(reason: str, arguments: Sequence[Any]) -> Any:
        if reason not in told:
            told.add(reason)
            warn_user(
                f"a graph runs in PyTorch, not in compiled code, in this call and those like it: {reason} when the "
                "graph was compiled",
                GraphNotCompiled,
            )
        return gm(*arguments)

    def call(*arguments: Any) -> Any:
        for i in plain:
            if type(arguments[i]) not in _PLAIN:
                kind = type(arguments[i]).__name__
                return in_pytorch(f"an argument is a {kind}, and was a plain tensor", arguments)
        if torch.is_grad_enabled() and (
            any(arguments[i].requires_grad for i in had_none) or any(x.requires_grad for x in held)
        ):
            return in_pytorch("a tensor that it reads needs a gradient, and needed none", arguments)
        return function(*arguments)

    return call if had_none or held or plain else function


_PLAIN = {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor}

__all__ = ["GraphNotCompiled", "for_other_arguments", "held_tensors"]
