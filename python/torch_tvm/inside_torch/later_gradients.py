"""Compiled graphs that are called with tensors that need a gradient now, and needed none when they were compiled.

Dynamo compiles another graph for them, but no guard of its looks at tensors that a graph holds (the state of an
optimizer with ``differentiable=True`` needs a gradient from its second step on), and callers may drop guards.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
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


def with_later_gradients(function: Callable[..., Any], gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """``function``, compiled of ``gm`` for ``inputs``; PyTorch runs ``gm`` for tensors that need a
    gradient only now.
    """
    is_counted = torch.is_grad_enabled()
    had_none = [i for i, x in enumerate(inputs) if isinstance(x, torch.Tensor) and not (is_counted and x.requires_grad)]
    held = [x for x in held_tensors(gm) if not (is_counted and x.requires_grad)]
    is_told = False

    def call(*arguments: Any) -> Any:
        nonlocal is_told
        if not torch.is_grad_enabled() or not (
            any(arguments[i].requires_grad for i in had_none) or any(x.requires_grad for x in held)
        ):
            return function(*arguments)
        if not is_told:
            is_told = True
            warn_user(
                "a graph runs in PyTorch, not in compiled code, in this call and those like it: a tensor that it reads "
                "needs a gradient, and needed none when the graph was compiled",
                GraphNotCompiled,
            )
        return gm(*arguments)

    return call if had_none or held else function


__all__ = ["GraphNotCompiled", "held_tensors", "with_later_gradients"]
