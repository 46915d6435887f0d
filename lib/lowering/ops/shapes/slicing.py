"""Parts of a tensor: slices, selections, diagonals, windows, splits; and writing such a part back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.views import squeeze_at
from torch_tvm.lowering.registry import Size, Tensor, lowers
from torch_tvm.tir import SizeLike, as_size, ceil_div, is_one

R = relax.op
Expr: TypeAlias = relax.Expr

_END = 2**62
_NO_FIT = "the sizes of what is written do not fit"
_OUT_OF_RANGE = "select(): index out of range: {} in a dimension of size {}"


def simplified(expression: Any) -> SizeLike:
    """A TIR expression reduced, as a Python int where it is constant."""
    if isinstance(expression, int):
        return expression
    value = tvm.sym.Analyzer().simplify(expression)
    return int(value) if isinstance(value, tirx.IntImm) else value


def maximum(a: SizeLike, c: SizeLike) -> SizeLike:
    return max(a, c) if isinstance(a, int) and isinstance(c, int) else simplified(tirx.max(a, c))


def minimum(a: SizeLike, c: SizeLike) -> SizeLike:
    return min(a, c) if isinstance(a, int) and isinstance(c, int) else simplified(tirx.min(a, c))


def _from_front(index: SizeLike, size: SizeLike) -> SizeLike:
    """A slice bound, possibly negative, as a position in ``[0, size]``."""
    if isinstance(index, int):
        if index >= _END:
            return size
        if index < 0:
            return maximum(simplified(size + index), 0)
        return minimum(index, size)
    wrapped = tirx.Select(index < 0, index + size, index)
    return minimum(maximum(simplified(wrapped), 0), size)


def slice_bounds(
    size: SizeLike, start: SizeLike | None, end: SizeLike | None, step: int, length: int | None
) -> tuple[SizeLike, SizeLike]:
    """(first position, number of elements) of ``x[start:end:step]``; ``length`` is what the dialect knows."""
    first = _from_front(0 if start is None else start, size)
    last = _from_front(_END if end is None else end, size)
    if length is not None and not isinstance(simplified(last - first), int):
        return first, length
    count = maximum(simplified(last - first), 0)
    return first, count if step == 1 else simplified(ceil_div(count, step))


def strided_slice(b: Builder, x: Expr, axis: int, first: SizeLike, count: SizeLike, step: int = 1) -> Expr:
    """``count`` elements of dimension ``axis`` from ``first``, ``step`` apart."""
    shape = b.shape(x)
    if all(isinstance(v, int) for v in (first, count, shape[axis])):
        if first == 0 and count == shape[axis] and step == 1:
            return x
        end = first + (count - 1) * step + 1 if count else first
        return b.emit(R.strided_slice(x, [axis], [first], [end], [step]))
    if first == 0 and step == 1 and bool(tvm.sym.Analyzer().can_prove_equal(count, shape[axis])):
        return x
    return computed(
        b,
        x,
        [*shape[:axis], count, *shape[axis + 1 :]],
        lambda i, _, sizes: (*i[:axis], sizes[0] + i[axis] * step, *i[axis + 1 :]),
        [first],
    )


def computed(
    b: Builder,
    x: Expr,
    shape: Sequence[SizeLike],
    position: Callable[[Sequence[Any], Sequence[Any], list[Any]], Sequence[Any]],
    sizes: Sequence[SizeLike] = (),
) -> Expr:
    """``result[i] = x[position(i, shape of x, sizes)]``.

    A PrimFunc has symbols of its own: ``position`` gets the shape and ``sizes`` in them.
    """

    def gather(data: te.Tensor, result: list[Any], values: list[Any]) -> te.Tensor:
        return te.compute(
            [as_size(s) for s in result], lambda *i: data(*position(i, data.shape, values)), name="gather"
        )

    return b.te(gather, x, list(shape), list(sizes))


@lowers("torch.aten.slice.Tensor")
def slice_tensor(b: Builder, x: Tensor, dim: int, start: Size | None, end: Size | None, step: int) -> Expr:
    """aten::slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1)"""
    if step < 1:
        b.unsupported("a step below one")
    if b.rank(x) == 0:
        b.unsupported("a slice of a 0-d tensor")
    axis = b.axis(dim, b.rank(x))
    length = None if b.result.shape is None else b.result.shape[axis]
    first, count = slice_bounds(b.shape(x)[axis], start, end, step, length)
    return strided_slice(b, x, axis, first, count, step)


def _position(b: Builder, index: SizeLike, size: SizeLike) -> SizeLike:
    """One index, possibly negative, from the front; out of range is refused where it is known."""
    if isinstance(index, int) and isinstance(size, int) and not -size <= index < size:
        b.unsupported(f"index {index} is out of range for size {size}")
    if isinstance(index, int):
        if not isinstance(size, int):
            inside = size > (index if index >= 0 else -1 - index)
            b.require(inside, _OUT_OF_RANGE, "IndexError", [index, size])
        return simplified(size + index) if index < 0 else index
    inside = tirx.all(index >= -as_size(size), index < as_size(size))
    b.check(inside, _OUT_OF_RANGE, "IndexError", [index, size])
    return simplified(tirx.Select(index < 0, index + size, index))


@lowers("torch.aten.select.int")
def select(b: Builder, x: Tensor, dim: int, index: Size) -> Expr:
    """aten::select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    if b.rank(x) == 0:
        b.unsupported("a selection of a 0-d tensor")
    axis = b.axis(dim, b.rank(x))
    shape = b.shape(x)
    at = _position(b, index, shape[axis])
    if isinstance(at, int) and isinstance(shape[axis], int):
        return squeeze_at(b, strided_slice(b, x, axis, at, 1), axis)
    return computed(
        b,
        x,
        [*shape[:axis], *shape[axis + 1 :]],
        lambda i, _, sizes: (*i[:axis], sizes[0], *i[axis:]),
        [at],
    )


@lowers("torch.aten.narrow")
def narrow(b: Builder, x: Tensor, dim: int, start: Size, length: Size) -> Expr:
    """aten::narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)"""
    axis = b.axis(dim, b.rank(x))
    size = b.shape(x)[axis]
    if not isinstance(start, int):
        first = simplified(tirx.Select(start < 0, start + size, start))
    else:
        first = simplified(size + start) if start < 0 else start
    end = simplified(first + length)
    if isinstance(end, int) and isinstance(size, int) and end > size:
        b.unsupported(f"start {start} and length {length} exceed size {size}")
    if not (isinstance(end, int) and isinstance(size, int)):
        inside = tirx.all(as_size(first) >= 0, as_size(end) <= as_size(size))
        b.require(inside, "narrow(): start and length exceed the dimension's size")
    return strided_slice(b, x, axis, first, length)


@lowers("torch.aten.diagonal")
def diagonal(b: Builder, x: Tensor, offset: int, dim1: int, dim2: int) -> Expr:
    """aten::diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)"""
    row, column, rest, count = _diagonal(b, x, offset, dim1, dim2)
    shape = b.shape(x)
    down, right = max(-offset, 0), max(offset, 0)

    def position(i: Sequence[Any], shape: Sequence[Any], sizes: list[Any]) -> list[Any]:
        at = dict(zip(rest, i[:-1], strict=True))
        at[row], at[column] = i[-1] + down, i[-1] + right
        return [at[axis] for axis in range(len(shape))]

    return computed(b, x, [*(shape[axis] for axis in rest), count], position)


def _diagonal(b: Builder, x: Expr, offset: int, dim1: int, dim2: int) -> tuple[int, int, list[int], SizeLike]:
    rank = b.rank(x)
    row, column = b.axis(dim1, rank), b.axis(dim2, rank)
    if row == column:
        b.unsupported("the two dimensions of a diagonal are the same")
    rest = [axis for axis in range(rank) if axis not in (row, column)]
    rows = simplified(b.shape(x)[row] - max(-offset, 0))
    columns = simplified(b.shape(x)[column] - max(offset, 0))
    return row, column, rest, maximum(minimum(rows, columns), 0)


@lowers("torch.aten.unfold")
def unfold(b: Builder, x: Tensor, dimension: int, size: int, step: int) -> Expr:
    """aten::unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)"""
    if b.rank(x) == 0:
        b.unsupported("windows of a 0-d tensor")
    axis = b.axis(dimension, b.rank(x))
    shape = b.shape(x)
    extent = shape[axis]
    if isinstance(extent, int):
        count = simplified((extent - size) // step + 1)
    else:
        b.require(extent >= size, "the windows are larger than the dimension")
        count = simplified(tirx.floordiv(extent - size, step) + 1)
    return computed(
        b,
        x,
        [*shape[:axis], count, *shape[axis + 1 :], size],
        lambda i, *_: (*i[:axis], i[axis] * step + i[-1], *i[axis + 1 : -1]),
    )


# -- splitting ----------------------------------------------------------------------------------------


def _pieces(b: Builder, x: Expr, axis: int, sizes: Sequence[SizeLike]) -> list[Expr]:
    pieces: list[Expr] = []
    first: SizeLike = 0
    for size in sizes:
        pieces.append(strided_slice(b, x, axis, first, size))
        first = simplified(first + size)
    return pieces


def _known_size(b: Builder, x: Expr, axis: int) -> int:
    size = b.shape(x)[axis]
    return size if isinstance(size, int) else b.unsupported("the number of pieces is known only at run time")


@lowers("torch.aten.split.Tensor")
def split(b: Builder, x: Tensor, split_size: int, dim: int) -> list[Expr]:
    """aten::split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]"""
    axis = b.axis(dim, b.rank(x))
    size = _known_size(b, x, axis)
    if split_size < 1:
        return [x] if size == 0 else b.unsupported("a split size below one")
    starts = range(0, size, split_size) if size else [0]
    return _pieces(b, x, axis, [min(split_size, size - start) for start in starts])


@lowers("torch.aten.split_with_sizes")
def split_with_sizes(b: Builder, x: Tensor, split_sizes: list[Size], dim: int) -> list[Expr]:
    """aten::split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]"""
    axis = b.axis(dim, b.rank(x))
    total: SizeLike = 0
    for size in split_sizes:
        total = simplified(total + size)
    if b.is_computed(total):
        b.check(
            tirx.EQ(as_size(total), as_size(b.shape(x)[axis])),
            "the sizes of a split do not add up to the dimension's",
        )
    return _pieces(b, x, axis, split_sizes)


@lowers("torch.aten.unbind.int")
def unbind(b: Builder, x: Tensor, dim: int) -> list[Expr]:
    """aten::unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]"""
    axis = b.axis(dim, b.rank(x))
    return [squeeze_at(b, strided_slice(b, x, axis, i, 1), axis) for i in range(_known_size(b, x, axis))]


# -- writing a part back ------------------------------------------------------------------------------


def _replaced(
    b: Builder,
    x: Expr,
    source: Expr,
    inside: Callable[[Sequence[Any], list[Any]], Any],
    position: Callable[[Sequence[Any], list[Any]], Sequence[Any]],
    sizes: Sequence[SizeLike] = (),
) -> Expr:
    """``x`` with ``source[position(i, sizes)]`` where ``inside(i, sizes)``."""
    source = b.cast(source, b.dtype(x))

    def write(data: te.Tensor, value: te.Tensor, n: list[Any]) -> te.Tensor:
        return te.compute(
            data.shape,
            lambda *i: tirx.if_then_else(inside(i, n), value(*position(i, n)), data(*i)),
            name="scatter",
        )

    return b.te(write, x, source, list(sizes))


@lowers("torch.aten.slice_scatter")
def slice_scatter(
    b: Builder, x: Tensor, source: Tensor, dim: int, start: Size | None, end: Size | None, step: int
) -> Expr:
    """aten::slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None,
    SymInt step=1) -> Tensor"""
    if step < 1:
        b.unsupported("a step below one")
    axis = b.axis(dim, b.rank(x))
    size = b.shape(x)[axis]
    first, count = slice_bounds(size, start, end, step, None)
    have = b.shape(source)[axis]
    if isinstance(have, int) and isinstance(count, int) and have != count:
        b.unsupported(f"{have} elements for a slice of {count}")
    shape = b.shape(x)
    b.expect_equal(b.shape(source), [*shape[:axis], count, *shape[axis + 1 :]], _NO_FIT)
    if is_one(step) and first == 0 and isinstance(count, int) and count == size:
        return b.cast(source, b.dtype(x))
    if isinstance(count, int) and count == 0:
        return x

    def inside(i: Sequence[Any], n: list[Any]) -> Any:
        offset = i[axis] - n[0]
        return tirx.all(offset >= 0, offset < n[1] * step, tirx.floormod(offset, step) == 0)

    def position(i: Sequence[Any], n: list[Any]) -> list[Any]:
        return [*i[:axis], tirx.floordiv(i[axis] - n[0], step), *i[axis + 1 :]]

    return _replaced(b, x, source, inside, position, [first, count])


@lowers("torch.aten.select_scatter")
def select_scatter(b: Builder, x: Tensor, source: Tensor, dim: int, index: Size) -> Expr:
    """aten::select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor"""
    axis = b.axis(dim, b.rank(x))
    shape = b.shape(x)
    at = _position(b, index, shape[axis])
    b.expect_equal(b.shape(source), [*shape[:axis], *shape[axis + 1 :]], _NO_FIT)
    return _replaced(b, x, source, lambda i, n: i[axis] == n[0], lambda i, _: [*i[:axis], *i[axis + 1 :]], [at])


@lowers("torch.aten.diagonal_scatter")
def diagonal_scatter(b: Builder, x: Tensor, source: Tensor, offset: int, dim1: int, dim2: int) -> Expr:
    """aten::diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor"""
    row, column, rest, count = _diagonal(b, x, offset, dim1, dim2)
    if count == 0:
        return x
    b.expect_equal(b.shape(source), [*(b.shape(x)[axis] for axis in rest), count], _NO_FIT)
    down, right = max(-offset, 0), max(offset, 0)
    return _replaced(
        b,
        x,
        source,
        lambda i, n: tirx.all(i[row] - down == i[column] - right, i[row] >= down, i[row] - down < n[0]),
        lambda i, _: [*(i[axis] for axis in rest), i[row] - down],
        [count],
    )
