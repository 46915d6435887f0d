"""Lists of as many views of a tensor as one of its unknown sizes says: ``unbind`` and ``split``."""

from __future__ import annotations

from typing import Any

import sympy
import torch

from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.graph import Instruction
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.values import ListValue, Scalar, Stack

aten = torch.ops.aten

_READERS = ("aten::__getitem__", "aten::len", "aten::stack", "aten::cat")
"""Nodes that ask a list for no more than what :class:`Pieces` tell."""


class Pieces:
    """Views of ``size`` elements along ``axis``, the last of what is left; with ``size`` 0, elements along ``axis``.

    Of nothing there are ``least`` views.
    """

    __slots__ = ("axis", "least", "size", "whole")

    def __init__(self, whole: TensorRef, axis: int, size: Any, least: int = 1) -> None:
        self.whole, self.axis, self.size, self.least = whole, axis, size, least

    def count(self, ev: Context) -> Any:
        """How many there are."""
        total = tensors.size(ev, self.whole, self.axis)
        if not self.size:
            return total
        of_nothing = ev.scalars.mul(ev.scalars.sub(1, ev.scalars.binary("min", total, 1)), self.least)
        return ev.scalars.binary("max", ev.scalars.add(self._last(ev), 1), of_nothing)

    def get(self, ev: Context, index: Any) -> TensorRef:
        if not self.size:
            item: TensorRef = tensors.call(ev, aten.select.int, [self.whole, self.axis, index])
            return item
        if not isinstance(index, Scalar):
            if index not in (0, -1):
                self._demand(ev, index)
            index = ev.scalars.add(self._last(ev), index + 1) if index < 0 else index
        start = ev.scalars.at_least_zero(ev.scalars.mul(index, self.size))  # -1 is the last of none
        end = ev.scalars.add(start, self.size)
        part: TensorRef = tensors.call(ev, aten.slice.Tensor, [self.whole, self.axis, start, end, 1])
        return part

    def _demand(self, ev: Context, index: int) -> None:
        """There is a piece of this number, counted from the end where it is negative."""
        before = index if index >= 0 else -index - 1
        if not isinstance(self.size, Scalar):
            tensors.call(ev, aten.select.int, [self.whole, self.axis, before * self.size])
            return
        size, total = self.size.fake, self.whole.meta.shape[self.axis]
        if before >= self.least or size is None:
            raise ev.certain("IndexError: list index out of range")
        places = torch.sym_max(total - 1, 0) - before * size
        ev.sizes.demand(sympy.Ge(places.node.expr, 0, evaluate=False), "chunk")

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


def pieces(ev: Context, args: list[Any]) -> Any:
    """``unbind(x, dim)`` or ``split(x, size, dim)``: a list of known length where the size is known."""
    x, size, dim = args if len(args) == 3 else (args[0], 0, args[1])
    if not isinstance(size, int) or size < len(args) - 2 or not _is_unknown(x, dim):
        return tensors.call(ev, ev.overload, args)
    if _only_reads(ev.instruction):
        return ListValue(Pieces(tensors.call(ev, aten.alias.default, [x]), dim % x.meta.dim(), size))
    if x.meta.shape[dim].node.has_hint() and x.meta.shape[dim].node.hint > _MOST * max(size, 1):
        raise ev.failure("the list is another for each size", advice="give the size in its TensorSpec")
    return tensors.call(ev, ev.overload, args)


_MOST = 1000


def _is_unknown(x: TensorRef, dim: int) -> bool:
    """Whether there is such a dimension, of unknown size."""
    rank = x.meta.dim()
    return -rank <= dim < rank and not isinstance(x.meta.shape[dim], int)


def _only_reads(instruction: Instruction) -> bool:
    """Whether the program asks of the list what :class:`Pieces` tell."""
    return all(use.user.kind() in _READERS for use in instruction.node.output().uses())


def chunk(ev: Context, args: list[Any]) -> Any:
    """``chunk(x, chunks, dim)``, of an unknown size as well. The views of ``unsafe_chunk`` are the same."""
    x, count, dim = args
    if not isinstance(count, int) or count < 1 or not _is_unknown(x, dim) or not _only_reads(ev.instruction):
        return tensors.call(ev, aten.chunk.default, args)
    axis = dim % x.meta.dim()
    rounded = ev.scalars.add(tensors.size(ev, x, axis), count - 1)
    size = ev.scalars.binary("max", ev.scalars.binary("floordiv", rounded, count), 1)
    return ListValue(Pieces(tensors.call(ev, aten.alias.default, [x]), axis, size, count))


def sections(ev: Context, args: list[Any]) -> Any:
    """``tensor_split(x, sections, dim)`` of an unknown size: the first ones have one element more."""
    x, count, dim = args
    if not isinstance(count, int) or count < 1 or not _is_unknown(x, dim):
        return tensors.call(ev, ev.overload, args)
    total = tensors.size(ev, x, dim % x.meta.dim())
    least, more = (ev.scalars.binary(name, total, count) for name in ("floordiv", "remainder"))
    starts: list[Any] = [0]
    for index in range(1, count):
        extra = ev.scalars.binary("min", more, index)
        starts.append(ev.scalars.add(ev.scalars.mul(least, index), extra))
    ends = [*starts[1:], None]
    bounds = zip(starts, ends, strict=True)
    return ListValue([tensors.call(ev, aten.slice.Tensor, [x, dim, *each, 1]) for each in bounds])


__all__ = ["Pieces", "chunk", "pieces", "sections"]
