"""Positions that tensors give, checked when the program runs.

A kernel before the one that reads or writes there goes through the positions once. It counts negative ones from the
end, where the op does, and calls ``torch_tvm.bad_index``, which raises, for the first that is out of range. What
it gives lies in range, so that later kernels need no checks. With weights alone as operands this happens once, when
these are packed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.views import reshape, same_size
from torch_tvm.support.packed_functions import BAD_INDEX
from torch_tvm.tir import SizeLike, as_size, const, loop, product
from torch_tvm.workloads.rearrangement import Rearrangement

Expr: TypeAlias = relax.Expr


CHUNK = 1 << 13
"""Positions that one thread takes at a time."""

PARALLEL = 1 << 15
"""Positions from which on they are worth more than one thread."""


def in_range(index: Any, size: SizeLike) -> Any:
    """A run-time index kept inside ``[0, size)``; 0 where there is none."""
    return tirx.max(tirx.min(tirx.Cast("int64", index), size - 1), 0)


def from_front(index: Any, size: SizeLike) -> Any:
    """A run-time index counted from the end when negative."""
    wide = tirx.Cast("int64", index)
    return tirx.Select(wide < 0, wide + size, wide)


def checked(
    b: Builder,
    index: Expr,
    size: SizeLike,
    *,
    wraps: bool = False,
    ignored: int | None = None,
    needed: Sequence[SizeLike] = (),
    nearest: bool = True,
) -> Expr:
    """``index`` as int64 positions in ``[0, size)``, or an error when the program runs.

    ``wraps`` says that negative ones count from the end, ``ignored`` is a number that is passed through. Nothing is
    wrong while one of the sizes ``needed`` is 0: nothing is read then. Without checks, positions out of range
    become the nearest ones, or stay as they are unless ``nearest``.
    """
    if not b.checks_indices:
        return _unchecked(b, index, size, wraps, nearest)
    if any(isinstance(s, int) and s == 0 for s in [*b.shape(index), *needed]):
        return b.cast(index, "int64")
    sizes = [s for s in needed if not any(same_size(s, own) for own in [1, *b.shape(index)])]
    sizes = [s for s in sizes if not isinstance(s, int)]
    known = _known(index, size, wraps, ignored)
    if known is not None:
        return known
    check = IndexCheck(wraps, ignored, _description(b))
    flat = reshape(b, index, [product(b.shape(index))])
    attributes = check.host_form(size) if isinstance(size, int) and not sizes else None
    return reshape(
        b,
        b.te(check.kernel, flat, [size, *sizes], name="check_index", attributes=attributes),
        b.shape(index),
    )


def _unchecked(b: Builder, index: Expr, size: SizeLike, wraps: bool, nearest: bool) -> Expr:
    def place(value: Any, size: SizeLike) -> Any:
        value = from_front(value, size) if wraps else tirx.Cast("int64", value)
        return in_range(value, size) if nearest else value

    def body(places: te.Tensor, sizes: list[Any]) -> te.Tensor:
        return te.compute(places.shape, lambda *i: place(places(*i), as_size(sizes[0])), name="place")

    return b.te(body, index, [size], name="place")


def _known(index: Expr, size: SizeLike, wraps: bool, ignored: int | None) -> Expr | None:
    """The checked positions where ``index`` is a constant and in range."""
    if not isinstance(index, tvm.ir.GenericConst) or not isinstance(size, int):
        return None
    values = index.value.numpy().astype(np.int64)
    places = np.where(values < 0, values + size, values) if wraps else values
    inside = (places >= 0) & (places < size)
    if ignored is not None:
        inside |= values == ignored
        places = np.where(values == ignored, values, places)
    return relax.const(places, "int64") if inside.all() else None


def _description(b: Builder) -> dict[str, Any]:
    return {"op": b.op, **dataclasses.asdict(b.location)}


class IndexCheck:
    """The kernel that checks positions: ``kernel(index, [size, sizes that must not be 0…])``."""

    def __init__(self, wraps: bool, ignored: int | None, description: dict[str, Any]) -> None:
        self.wraps, self.ignored, self.description = wraps, ignored, description

    @staticmethod
    def of(b: Builder, index: Expr, size: SizeLike) -> IndexCheck | None:
        """For a kernel that looks at positions itself; ``None`` where nobody asks, or where they are known."""
        is_needed = b.checks_indices and _known(index, size, False, None) is None
        return IndexCheck(False, None, _description(b)) if is_needed else None

    def host_form(self, size: int) -> dict[str, str]:
        """The kernel as a step of the program for weights."""
        step = {"size": size, "wraps": self.wraps, "ignored": self.ignored, "of": self.description}
        return Rearrangement().then("check_index", step).to_attr()

    def kernel(self, index: te.Tensor, sizes: list[Any]) -> te.Tensor:
        size, *needed = [as_size(s) for s in sizes]
        return te.extern(
            [index.shape],
            [index],
            lambda ins, outs: self._body(ins[0], outs[0], size, needed),
            dtype="int64",
            name="check_index",
        )

    def _body(self, index: tirx.Buffer, out: tirx.Buffer, size: Any, needed: Sequence[Any]) -> tirx.Stmt:
        count = index.shape[0]
        found = tirx.decl_buffer((1,), "int64", "found")
        whole = self._scan(index, out, size, found, const(0), count)
        chunk = tirx.Var("chunk", "int64")
        length = tirx.min(const(CHUNK), count - chunk * CHUNK)
        part = self._scan(index, out, size, found, chunk * CHUNK, length)
        parts = tirx.For(chunk, const(0), tirx.floordiv(count + (CHUNK - 1), CHUNK), tirx.ForKind.PARALLEL, part)
        is_small = tvm.sym.Analyzer().simplify(count < PARALLEL)
        if isinstance(is_small, tirx.IntImm):
            scan = whole if int(is_small) else parts
        else:
            scan = tirx.IfThenElse(is_small, whole, parts)
        raising = self.raising(index, size)
        is_wrong = tirx.all(read(found) != 0, *[size > 0 for size in needed])
        return tirx.SeqStmt([tirx.AllocBuffer(found), write(found, 0), scan, tirx.IfThenElse(is_wrong, raising, None)])

    def _scan(
        self, index: tirx.Buffer, out: tirx.Buffer, size: Any, found: tirx.Buffer, first: Any, count: Any
    ) -> tirx.Stmt:
        """Positions ``[first, first + count)`` into ``out``; ``found`` becomes 1 where one is out of range."""
        wrong = tirx.decl_buffer((1,), "int64", "wrong")

        def iteration(i: Any) -> tirx.Stmt:
            value = tirx.BufferLoad(index, [first + i])
            place = from_front(value, size) if self.wraps else tirx.Cast("int64", value)
            is_wrong = tirx.Select(self._is_wrong(value, size), const(1), const(0))
            store = tirx.BufferStore(out, place, [first + i])
            return tirx.SeqStmt([store, write(wrong, tirx.bitwise_or(read(wrong), is_wrong))])

        note = tirx.IfThenElse(read(wrong) != 0, write(found, 1), None)
        return tirx.SeqStmt([tirx.AllocBuffer(wrong), write(wrong, 0), loop("i", count, iteration), note])

    def _is_wrong(self, value: Any, size: Any) -> Any:
        wide = tirx.Cast("int64", value)
        outside = tirx.Or(wide >= size, wide < (-size if self.wraps else 0))
        return outside if self.ignored is None else tirx.And(outside, tirx.NE(wide, const(self.ignored)))

    def raising(self, index: tirx.Buffer, size: Any) -> tirx.Stmt:
        """Raises for the first position out of range of a flat ``index``."""

        def iteration(i: Any) -> tirx.Stmt:
            value = tirx.BufferLoad(index, [i])
            text = tvm.ir.StringImm(json.dumps(self.description))
            call = tirx.call_packed(BAD_INDEX, text, tirx.Cast("int64", value), size)
            return tirx.IfThenElse(self._is_wrong(value, size), tirx.Evaluate(call), None)

        return loop("i", index.shape[0], iteration)


def read(cell: tirx.Buffer) -> tirx.Expr:
    return tirx.BufferLoad(cell, [const(0)])


def write(cell: tirx.Buffer, value: Any) -> tirx.Stmt:
    return tirx.BufferStore(cell, const(value) if isinstance(value, int) else value, [const(0)])
