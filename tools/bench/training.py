"""A step of training as a call: forward, the mean square of what the model returns, backward.

The gradients of all parameters are the results, in order. Dropout is off, so that every runtime computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.tools.bench.options import Call, Options

Compile = Callable[[torch.nn.Module, Options], Callable[..., Any]]


def _ours(module: torch.nn.Module, options: Options) -> Callable[..., Any]:
    given = {"accuracy": options.accuracy, "fallback": False}
    return torch.compile(module, backend="torch_tvm", options=given)


COMPILERS: dict[str, Compile] = {
    "ours": _ours,
    "eager": lambda module, options: module,
    "inductor": lambda module, options: torch.compile(module),
}
"""The runtimes that train, by name."""


def step(name: str, module: torch.nn.Module, args: tuple[Any, ...], options: Options) -> Call:
    """A step of ``module``, compiled by the runtime ``name``."""
    return step_of(COMPILERS[name](prepared(module), options), module, args)


def prepared(module: torch.nn.Module) -> torch.nn.Module:
    """``module`` in training mode, without dropout."""
    module.train()
    for part in module.modules():
        if isinstance(part, torch.nn.modules.dropout._DropoutNd):
            part.p = 0.0
    return module


def step_of(call: Callable[..., Any], module: torch.nn.Module, args: tuple[Any, ...]) -> Call:
    """A step that runs ``call`` for the forward and fills the gradients of ``module`` anew."""

    def run() -> list[torch.Tensor]:
        module.zero_grad(set_to_none=True)
        found = [leaf for leaf in pytree.tree_leaves(call(*args)) if isinstance(leaf, torch.Tensor)]
        with torch.enable_grad():
            torch.stack([leaf.square().mean() for leaf in found if leaf.is_floating_point()]).sum().backward()
        return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]

    return run


__all__ = ["COMPILERS", "prepared", "step", "step_of"]
