"""Lists of as many views of a tensor as one of its unknown sizes says: ``unbind`` and ``split``."""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.importers.storages import TensorRef
from torch_tvm.importers.torchscript import tensors
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.graph import Instruction
from torch_tvm.importers.torchscript.values import ListValue, Scalar, Stack

aten = torch.ops.aten

_READERS = ("aten::__getitem__", "aten::len", "aten::stack", "aten::cat")
"""Nodes that ask a list for no more than what :class:`Pieces` tell."""


class Pieces:
    """Views of ``size`` elements along ``axis``, the last of what is left; with ``size`` 0, elements along ``axis``."""

    __slots__ = ("axis", "size", "whole")

    def __init__(self, whole: TensorRef, axis: int, size: int) -> None:
        self.whole, self.axis, self.size = whole, axis, size

    def count(self, ev: Context) -> Any:
        """How many there are; nothing at all is split into one."""
        total = tensors.size(ev, self.whole, self.axis)
        if not self.size:
            return total
        return ev.scalars.binary("max", ev.scalars.add(self._last(ev), 1), 1)

    def get(self, ev: Context, index: Any) -> TensorRef:
        if not self.size:
            return tensors.call(ev, aten.select.int, [self.whole, self.axis, index])
        if not isinstance(index, Scalar) and index not in (0, -1):  # there are so many
            least = index * self.size if index >= 0 else (-index - 1) * self.size
            tensors.call(ev, aten.select.int, [self.whole, self.axis, least])
        if not isinstance(index, Scalar) and index < 0:
            index = ev.scalars.add(self._last(ev), index + 1)
        start = ev.scalars.mul(index, self.size)
        start = ev.scalars.at_least_zero(start)  # -1 is the last of none
        end = ev.scalars.add(start, self.size)
        return tensors.call(ev, aten.slice.Tensor, [self.whole, self.axis, start, end, 1])

    def _last(self, ev: Context) -> Any:
        """The number of the last piece; -1 where there is nothing to split."""
        total = tensors.size(ev, self.whole, self.axis)
        return ev.scalars.binary("floordiv", ev.scalars.sub(total, 1), self.size)

    def stacked(self, ev: Context) -> Stack | None:
        """The list as a stacked tensor, where all elements are alike; there must be one."""
        if self.size:
            return None
        self.get(ev, 0)
        return Stack("tensor", tensors.call(ev, aten.movedim.int, [self.whole, self.axis, 0]))


def pieces(ev: Context, instruction: Instruction, args: list[Any]) -> Any:
    """``unbind(x, dim)`` or ``split(x, size, dim)``: a list of known length where the size is known."""
    assert instruction.overload is not None
    x, size, dim = args if len(args) == 3 else (args[0], 0, args[1])
    rank = x.meta.dim()
    is_plain = isinstance(size, int) and size >= len(args) - 2 and -rank <= dim < rank
    if not is_plain or isinstance(x.meta.shape[dim], int):
        return tensors.call(ev, instruction.overload, args)
    if all(use.user.kind() in _READERS for use in instruction.node.output().uses()):
        return ListValue(Pieces(tensors.call(ev, aten.alias.default, [x]), dim % rank, size))
    if x.meta.shape[dim].node.has_hint() and x.meta.shape[dim].node.hint > _MOST * max(size, 1):
        raise ev.failure("the list is another for each size", advice="give the size in its TensorSpec")
    return tensors.call(ev, instruction.overload, args)


_MOST = 1000


__all__ = ["Pieces", "pieces"]
