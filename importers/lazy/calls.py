"""Calls of ops that a capture on the lazy device notes as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.aten.calls import draws
from torch_tvm.support.errors import SourceLocation


@dataclass
class WholeOp:
    """One noted call. ``args`` and ``results`` hold lazy tensors; ``data`` the numbers of the results' data."""

    overload: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    data: list[int]
    is_list: bool
    place: SourceLocation

    @property
    def has_effect(self) -> bool:
        """Whether it does more than to give results: asserts, or takes numbers from PyTorch's generator."""
        return not self.data or draws(self.overload, self.args, self.kwargs)


def tensors_of(call: WholeOp) -> list[torch.Tensor]:
    """The tensors among the arguments of a noted op."""
    leaves = pytree.tree_leaves((call.args, call.kwargs))
    return [item for item in leaves if isinstance(item, torch.Tensor)]
