"""Results whose size the program finds: the positions of what is not zero, and what is read there.

A kernel counts what each chunk selects; the sum becomes a size (:meth:`Builder.counted`), so that the results are
allocated as large as they are, and a second kernel writes the positions, all chunks side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, loaded
from torch_tvm.lowering.ops.shapes.views import common_shape, expand_to, reshape
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import SizeLike, as_size, ceil_div, const, product, static

Expr: TypeAlias = relax.Expr

CHUNK = 1 << 12
"""Elements that one thread of a CPU looks at before it takes the next ones."""

PARALLEL = 1 << 14
"""Elements from which on they are worth more than one thread of a CPU."""


@dataclass(frozen=True)
class Chunks:
    """How elements are shared: ``size`` for each thread, and all threads at once from ``parallel`` elements on."""

    size: int
    parallel: int

    @staticmethod
    def of(b: Builder, count: Any) -> Chunks:
        """On a GPU about as many elements for a thread as there are threads."""
        if not b.many_threads:
            return Chunks(CHUNK, PARALLEL)
        known = static(count)
        return Chunks(1 << 9 if known is None else max(16, math.isqrt(known)), 0)

    def loop(self, count: Any) -> Any:
        """The kind of loop over the chunks of ``count`` elements."""
        known = static(count)
        return T.serial if known is not None and known < self.parallel else T.parallel


def selected(b: Builder, mask: Expr) -> Expr:
    """The flat positions (int64, 1-d) where a tensor is true or not zero, in order."""
    return b.once("selected", mask, lambda: _selected(b, mask))


def _selected(b: Builder, mask: Expr) -> Expr:
    flags = reshape(b, mask, [product(b.shape(mask))])
    if b.dtype(flags) != "bool":
        flags = pointwise(b, lambda u: convert(u, "bool"), flags, compute=b.dtype(flags), result="bool", name="is_true")
    chunks = Chunks.of(b, b.shape(flags)[0])
    both = b.te(lambda f: _counts(f, chunks), flags, name="count")
    starts, total = (b.emit(relax.TupleGetItem(both, index)) for index in range(2))
    size = relax.ShapeExpr([b.counted(total)])
    places = _places if b.many_threads else _positions
    return b.te(lambda f, at, s: places(f, at, s, chunks), flags, starts, size, name="positions")


def _counts(flags: te.Tensor, how: Chunks) -> list[te.Tensor]:
    """Where the positions of each chunk begin among those of all, and how many there are (one element)."""
    count = flags.shape[0]
    chunks = ceil_div(count, how.size)

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        data, starts, total = (T.buffer_proxy(buffer) for buffer in (*ins, *outs))
        with IRBuilder() as builder:
            with T.seq_scope():
                with how.loop(count)(0, chunks) as chunk:
                    first = chunk * how.size
                    found = allocate(1, "int32")
                    found[0] = tirx.const(0, "int32")
                    with T.serial(0, tirx.min(count - first, const(how.size))) as i:
                        found[0] = found[0] + tirx.Cast("int32", loaded(data[first + i]))
                    starts[chunk] = tirx.Cast("int64", found[0])
                total[0] = const(0)
                with T.serial(0, chunks) as chunk:
                    here = allocate(1, "int64")
                    here[0] = starts[chunk]
                    starts[chunk] = total[0]
                    total[0] = total[0] + here[0]
            return builder.get()

    return te.extern([[chunks], [const(1)]], [flags], body, dtype=["int64", "int64"], name="count")


def _places(flags: te.Tensor, starts: te.Tensor, size: Any, how: Chunks) -> te.Tensor:
    """The positions themselves, written where they belong at once: a thread of a GPU has little memory of its own."""
    count = flags.shape[0]

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        data, begins, out = (T.buffer_proxy(buffer) for buffer in (*ins, *outs))
        with IRBuilder() as builder:
            with how.loop(count)(0, ceil_div(count, how.size)) as chunk:
                first = chunk * how.size
                place = allocate(1, "int64", "local")
                place[0] = begins[chunk]
                with T.serial(0, tirx.min(count - first, const(how.size))) as i:
                    with T.If(loaded(data[first + i])), T.Then():
                        out[place[0]] = first + i
                        place[0] = place[0] + 1
            return builder.get()

    return te.extern([list(size)], [flags, starts], body, dtype="int64", name="positions")


def _positions(flags: te.Tensor, starts: te.Tensor, size: Any, how: Chunks) -> te.Tensor:
    """The positions themselves; those of a chunk are gathered without a branch and then copied."""
    count = flags.shape[0]

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        data, begins, out = (T.buffer_proxy(buffer) for buffer in (*ins, *outs))
        with IRBuilder() as builder:
            with how.loop(count)(0, ceil_div(count, how.size)) as chunk:
                first = chunk * how.size
                places = allocate(how.size + 1, "int32")
                found = allocate(1, "int32")
                found[0] = tirx.const(0, "int32")
                with T.serial(0, tirx.min(count - first, const(how.size))) as i:
                    places[found[0]] = tirx.Cast("int32", i)
                    found[0] = found[0] + tirx.Cast("int32", loaded(data[first + i]))
                with T.serial(0, tirx.Cast("int64", found[0])) as i:
                    out[begins[chunk] + i] = first + tirx.Cast("int64", places[i])
            return builder.get()

    return te.extern([list(size)], [flags, starts], body, dtype="int64", name="positions")


def coordinates(b: Builder, places: Expr, shape: Sequence[SizeLike]) -> list[Expr]:
    """Flat positions as those in each dimension of a tensor of ``shape``; of an empty one there are none."""
    if len(shape) == 1:
        return [places]

    def coordinate(flat: te.Tensor, sizes: Any, axis: int) -> te.Tensor:
        after, size = (tirx.max(as_size(n), const(1)) for n in (product(sizes[axis + 1 :]), sizes[axis]))
        inside = lambda place: place if axis == 0 else tirx.floormod(place, size)
        return te.compute(flat.shape, lambda i: inside(tirx.floordiv(flat(i), after)), name="coordinate")

    sizes = relax.ShapeExpr([as_size(size) for size in shape])
    return [
        b.te(lambda f, s, axis=axis: coordinate(f, s, axis), places, sizes, name="coordinate")
        for axis in range(len(shape))
    ]


@lowers("torch.aten.nonzero")
def nonzero(b: Builder, x: Tensor) -> Expr:
    """aten::nonzero(Tensor self) -> Tensor"""
    columns = nonzero_numpy(b, x) if b.rank(x) else []
    places = columns[0] if columns else selected(b, x)
    if len(columns) == 1:
        return reshape(b, places, [*b.shape(places), 1])
    if not columns:
        return b.emit(relax.op.zeros(relax.ShapeExpr([as_size(s) for s in (*b.shape(places), 0)]), "int64"))
    chunk = 1 if b.many_threads else CHUNK
    return b.te(lambda *given: _rows(given, chunk), *columns, name="nonzero")


def _rows(columns: Sequence[te.Tensor], size: int) -> te.Tensor:
    """The columns side by side: each row is written at once, ``size`` of them by a thread."""
    count, width = columns[0].shape[0], len(columns)

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        sources, out = [T.buffer_proxy(buffer) for buffer in ins], T.buffer_proxy(outs[0])
        with IRBuilder() as builder:
            with T.parallel(0, ceil_div(count, size)) as chunk:
                first = chunk * size
                with T.serial(0, tirx.min(count - first, const(size))) as i:
                    for axis, source in enumerate(sources):
                        out[first + i, axis] = source[first + i]
            return builder.get()

    return te.extern([[count, const(width)]], list(columns), body, dtype="int64", name="rows")


@lowers("torch.aten.nonzero_numpy")
def nonzero_numpy(b: Builder, x: Tensor) -> list[Expr]:
    """aten::nonzero_numpy(Tensor self) -> Tensor[]"""
    return coordinates(b, selected(b, x), b.shape(x) or [1])


def where(b: Builder, condition: Tensor) -> list[Expr]:
    """aten::where(Tensor condition) -> Tensor[]"""
    return nonzero_numpy(b, condition)


def argwhere(b: Builder, x: Tensor) -> Expr:
    """aten::argwhere(Tensor self) -> Tensor"""
    return nonzero(b, x)


@lowers("torch.aten.nonzero_static")
def nonzero_static(b: Builder, x: Tensor, size: int, fill_value: int) -> Expr:
    """aten::nonzero_static(Tensor self, *, SymInt size, int fill_value=-1) -> Tensor"""
    if size < 0:
        b.unsupported("a negative size")

    def padded(found: te.Tensor) -> te.Tensor:
        def element(i: Any, axis: Any) -> Any:
            return tirx.if_then_else(i < found.shape[0], found(i, axis), const(fill_value))

        return te.compute([const(size), found.shape[1]], element, name="padded")

    found = nonzero(b, x)
    if 0 in (size, b.rank(x)):
        return b.emit(relax.op.zeros(relax.ShapeExpr([const(size), const(b.rank(x))]), "int64"))
    return b.te(padded, found, name="padded")


@lowers("torch.aten.masked_select")
def masked_select(b: Builder, x: Tensor, mask: Tensor) -> Expr:
    """aten::masked_select(Tensor self, Tensor mask) -> Tensor"""
    if b.dtype(mask) != "bool":
        b.unsupported("a mask that is not boolean, which ATen reports as an error")
    shape = common_shape(b, [b.shape(x), b.shape(mask)])
    flat = reshape(b, expand_to(b, x, shape), [product(shape)])
    return at_places(b, flat, selected(b, expand_to(b, mask, shape)))


def at_places(b: Builder, flat: Expr, places: Expr) -> Expr:
    """The elements of a 1-d tensor at positions that lie in it."""
    return b.te(
        lambda data, at: te.compute(at.shape, lambda i: data(at(i)), name="select"),
        flat,
        places,
        name="select",
    )


register("torch.aten.argwhere", argwhere, custom=True)
register("torch.aten.where", where, custom=True)
