"""Counts and sums by bin: bincount and the histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, loaded
from torch_tvm.lowering.ops.indexing.kernels.bisection import first_where
from torch_tvm.lowering.ops.indexing.kernels.wide_sort import grouped
from torch_tvm.lowering.ops.reductions.folds import extremum_of_all
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Lowering, Number, Size, Tensor, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import SizeLike, as_size, const, is_float, product, static

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr

PARTS = 16
"""Parts of the elements, each with bins of its own, so that threads do not meet; their number decides the rounding."""

FEW = 1 << 12
"""Elements that a part needs besides its bins to be worth it."""

FEW_BINS = 1 << 11
"""Bins of which a GPU can have a set for each part of the elements."""

MOST_PARTS = 1 << 12
SHORTEST_PART = 1 << 6


@dataclass(frozen=True)
class _Tally:
    """Sums by bin: ``place(reads, i)`` is the bin of element ``i`` (negative: none), ``weight`` what it adds, or 1."""

    place: Callable[[Sequence[Any], Scalar], Scalar]
    weight: Callable[[Sequence[Any], Scalar], Scalar] | None
    accumulator: str
    result: str

    def body(self, ins: Sequence[Any], outs: Sequence[Any], count: Scalar, bins: Scalar) -> tirx.Stmt:
        """A few parts, which threads go through and one of them adds up."""
        reads, out = [T.buffer_proxy(buffer) for buffer in ins], T.buffer_proxy(outs[0])
        least, most = const(1), const(PARTS)
        number = tirx.max(least, tirx.min(most, tirx.floordiv(count, bins * 4 + FEW)))
        with IRBuilder() as builder:
            with T.seq_scope():
                sums = self._sums(reads, count, bins, number)
                with T.serial(0, number - 1) as part, T.serial(0, bins) as i:
                    sums[i] = sums[i] + sums[(part + 1) * bins + i]
                with T.serial(0, bins) as i:
                    out[i] = convert(sums[i], self.result)
            return builder.get()

    def on_many_threads(self, ins: Sequence[Any], outs: Sequence[Any], count: Scalar, bins: Scalar) -> tirx.Stmt:
        """Few bins by many parts, whose sums a thread for each bin adds up; else elements sorted by their bins."""
        reads, out = [T.buffer_proxy(buffer) for buffer in ins], T.buffer_proxy(outs[0])
        known = static(bins)
        with IRBuilder() as builder:
            with T.seq_scope():
                if known is None or known > FEW_BINS:
                    self._grouped(reads, out, count, bins)
                else:
                    self._in_parts(reads, out, count, bins)
            return builder.get()

    def _sums(self, reads: Sequence[Any], count: Scalar, bins: Scalar, number: Scalar) -> Any:
        """``number`` parts of the elements one after the other, each with bins of its own."""
        sums = allocate(number * bins, self.accumulator)
        with T.parallel(0, number) as part:
            with T.serial(0, bins) as i:
                sums[part * bins + i] = tirx.const(0, self.accumulator)
            begin = tirx.floordiv(part * count, number)
            with T.serial(0, tirx.floordiv((part + 1) * count, number) - begin) as step:
                self._add(reads, sums, begin + step, part * bins)
        return sums

    def _add(self, reads: Sequence[Any], sums: Any, i: Scalar, first: Scalar) -> None:
        place = allocate(1, "int64")
        place[0] = self.place(reads, i)
        with T.If(place[0] >= 0), T.Then():
            sums[first + place[0]] = sums[first + place[0]] + self._weight(reads, i)

    def _weight(self, reads: Sequence[Any], i: Scalar) -> Scalar:
        return tirx.const(1, self.accumulator) if self.weight is None else self.weight(reads, i)

    def _in_parts(self, reads: Sequence[Any], out: Any, count: Scalar, bins: Scalar) -> None:
        number = tirx.max(const(1), tirx.min(const(MOST_PARTS), tirx.floordiv(count, bins + SHORTEST_PART)))
        sums = self._sums(reads, count, bins, number)
        with T.parallel(0, bins) as i:
            with T.serial(0, number - 1) as part:
                sums[i] = sums[i] + sums[(part + 1) * bins + i]
            out[i] = convert(sums[i], self.result)

    def _grouped(self, reads: Sequence[Any], out: Any, count: Scalar, bins: Scalar) -> None:
        groups = grouped(lambda i: self.place(reads, i), count, bins)
        with T.parallel(0, bins) as i:
            total = allocate(1, self.accumulator, "local")
            if self.weight is None:
                total[0] = tirx.Cast(self.accumulator, groups.count(i))
            else:
                total[0] = tirx.const(0, self.accumulator)
                with T.serial(0, groups.count(i)) as number:
                    total[0] = total[0] + self._weight(reads, groups.update(i, number))
            out[i] = convert(total[0], self.result)


def tally(b: Builder, tensors: Sequence[Expr], count: SizeLike, bins: SizeLike, how: _Tally) -> Expr:
    """The sums of ``how`` over ``count`` elements, a 1-d tensor of ``bins``."""

    def kernel(*given: Any) -> te.Tensor:
        *sources, (elements, size) = given
        make = how.on_many_threads if b.many_threads else how.body
        body = lambda ins, outs: make(ins, outs, elements, size)
        return te.extern([[size]], list(sources), body, dtype=how.result, name="tally")

    sizes = relax.ShapeExpr([as_size(count), as_size(bins)])
    return b.te(kernel, *tensors, sizes, name="tally")


def _flat(b: Builder, x: Expr) -> Expr:
    return reshape(b, x, [product(b.shape(x))])


def bincount(b: Builder, x: Tensor, weights: Tensor | None, minlength: Size) -> Expr:
    """aten::bincount(Tensor self, Tensor? weights=None, SymInt minlength=0) -> Tensor"""
    count, dtype = b.shape(x)[0], b.result_dtype
    if isinstance(count, int) and count == 0:
        return b.emit(R.zeros(relax.ShapeExpr([as_size(minlength)]), dtype))
    if weights is not None:
        b.expect_equal(b.shape(weights), [count], "weights should be 1-d and have the same length as input")
    wide = b.cast(x, "int64")
    if not isinstance(count, int) and weights is not None:
        some = b.emit(R.greater(b.tensor(count, "int64"), b.const(0, "int64")))
        b.check(some, "weighted counts of nothing: eager PyTorch gives integers")
    if not isinstance(count, int):  # there may be no number
        wide = b.emit(R.concat([wide, relax.const([0], "int64")], 0))
    least, most = (extremum_of_all(b, wide, is_max) for is_max in (False, True))
    is_counted = b.emit(R.greater_equal(least, b.const(0, "int64")))
    b.check(is_counted, "bincount only supports 1-d non-negative integral inputs.")
    bins = b.emit(R.add(most, b.const(1, "int64")))
    if not isinstance(count, int):
        some = b.emit(R.minimum(b.tensor(count, "int64"), b.const(1, "int64")))
        bins = b.emit(R.multiply(bins, some))
    length = b.emit(R.maximum(bins, b.tensor(minlength, "int64")))
    inner = "float64" if is_float(dtype) else dtype
    place = lambda reads, i: tirx.Cast("int64", reads[0][i])
    weight = None if weights is None else lambda reads, i: convert(reads[1][i], inner)
    tensors = [x] if weights is None else [x, weights]
    return tally(b, tensors, count, b.counted(length), _Tally(place, weight, inner, dtype))


# -- histograms ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Range:
    """The outer edges of bins: ``ends``, or the extrema of the data; ``margin`` parts them where they are equal.

    Without data they are ``empty``.
    """

    ends: tuple[float, float] | None
    margin: float
    empty: tuple[float, float]

    def edges(self, b: Builder, x: Expr) -> list[Expr]:
        """The lowest and the highest edge (0-d) for the elements of ``x``."""
        dtype = b.dtype(x)
        given = self.empty if self.ends is None and 0 in b.shape(x) else self.ends
        if given is not None:
            low, high = given
            if low > high:
                b.unsupported("a range whose end is below its start, which ATen reports as an error")
            if low == high:
                low, high = low - self.margin, high + self.margin
            return [b.const(low, dtype), b.const(high, dtype)]
        ends = [extremum_of_all(b, x, is_max) for is_max in (False, True)]
        zero = tirx.const(0, dtype)
        is_finite = lambda u, v: tirx.EQ(u - u + (v - v), zero)
        finite = pointwise(b, is_finite, *ends, compute=dtype, result="bool", name="finite")
        b.check(finite, "the range of the histogram is not finite")
        return [pointwise(b, part, *ends, compute=dtype, result=dtype, name="edge") for part in self._parts(dtype)]

    def _parts(self, dtype: str) -> list[Callable[[Scalar, Scalar], Scalar]]:
        margin = tirx.const(self.margin, dtype)
        return [
            lambda u, v: tirx.Select(tirx.EQ(u, v), u - margin, u),
            lambda u, v: tirx.Select(tirx.EQ(u, v), v + margin, v),
        ]


def histc(b: Builder, x: Tensor, bins: int, min: Number, max: Number) -> Expr:
    """aten::histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor"""
    dtype, ends = b.dtype(x), (float(min), float(max))
    if dtype not in ("float32", "float64"):
        b.unsupported("a histogram of integers or of half precision")
    edges = _Range(ends if min != max else None, 1.0, ends).edges(b, x)

    def place(reads: Sequence[Any], i: Scalar) -> Scalar:
        value, left, right = loaded(reads[0][i]), reads[1][()], reads[2][()]
        at = _scaled(value, left, right, const(bins))
        return tirx.if_then_else(_inside(value, left, right), tirx.min(at, const(bins - 1)), const(-1))

    count = product(b.shape(x))
    how = _Tally(place, None, "int64", dtype)
    return tally(b, [_flat(b, x), *edges], count, bins, how)


def _inside(value: Scalar, left: Scalar, right: Scalar) -> Scalar:
    return tirx.all(value >= left, value <= right)


def _scaled(value: Scalar, left: Scalar, right: Scalar, bins: Scalar) -> Scalar:
    """The bin of a value among equal ones, computed as ATen does."""
    return tirx.Cast("int64", (value - left) * tirx.Cast(str(value.ty.dtype), bins) / (right - left))


def _spaced(b: Builder, ends: Sequence[Expr], bins: int) -> Expr:
    """The edges of equal bins: from each end, as ``linspace`` counts."""
    dtype = b.dtype(ends[0])

    def edges(low: te.Tensor, high: te.Tensor) -> te.Tensor:
        number = lambda value: tirx.Cast(dtype, value)

        def edge(i: Any) -> Scalar:
            step = (high() - low()) / number(const(bins))
            return tirx.Select(i < (bins + 1) // 2, low() + step * number(i), high() - step * number(bins - i))

        return te.compute([const(bins + 1)], edge, name="edges")

    return b.te(edges, *ends, name="edges")


def _upper_bound(edges: Any, value: Scalar, begin: Scalar, end: Scalar) -> Scalar:
    """How many of the edges are no larger than a value, of which those before ``begin`` are."""
    return first_where(lambda i: edges[i] > value, begin, end)


def _histogram(b: Builder, x: Expr, edges: Sequence[Expr], weight: Expr | None, density: bool, is_spaced: bool) -> Expr:
    """The elements of each row of ``x`` (the last dimension) among the edges of each dimension."""
    dtype, width = b.dtype(x), len(edges)
    lengths = [b.shape(e)[0] for e in edges]
    bins = [length - 1 for length in lengths]
    if any(isinstance(number, int) and number < 1 for number in bins):
        b.unsupported("no bins")
    count = product(b.shape(x)[:-1])
    sizes = [as_size(length) for length in lengths]

    def place(reads: Sequence[Any], i: Scalar) -> Scalar:
        total = allocate(1, "int64")
        total[0] = const(0)
        for axis in range(width):
            value, own, size = reads[0][i * width + axis], reads[1 + axis], sizes[axis]
            left, right = own[0], own[size - 1]
            with T.If(tirx.all(total[0] >= 0, _inside(value, left, right))):
                with T.Then():
                    begin, end = const(0), size
                    if is_spaced:
                        near = allocate(1, "int64")
                        near[0] = _scaled(value, left, right, size - 1)
                        begin, end = tirx.max(near[0] - 1, 0), tirx.min(near[0] + 2, size)
                    at = tirx.min(_upper_bound(own, value, begin, end) - 1, size - 2)
                    total[0] = total[0] * (size - 1) + at
                with T.Else():
                    total[0] = const(-1)
        return total[0]

    inner = "int64" if weight is None else "float64"
    add = None if weight is None else lambda reads, i: convert(reads[1 + width][i], inner)
    tensors = [_flat(b, x), *edges, *([] if weight is None else [_flat(b, weight)])]
    hist = tally(b, tensors, count, product(bins), _Tally(place, add, inner, dtype))
    hist = reshape(b, hist, bins)
    return _density(b, hist, edges) if density else hist


def _density(b: Builder, hist: Expr, edges: Sequence[Expr]) -> Expr:
    """Shares of the whole by the size of each bin."""
    hist = b.emit(R.divide(hist, b.emit(R.sum(hist))))
    for axis, own in enumerate(edges):
        widths = b.te(
            lambda e: te.compute([e.shape[0] - 1], lambda i: e(i + 1) - e(i), name="widths"),
            own,
            name="widths",
        )
        shape: list[SizeLike] = [1] * len(edges)
        shape[axis] = b.shape(widths)[0]
        hist = b.emit(R.divide(hist, reshape(b, widths, shape)))
    return hist


def _bin_edges(b: Builder, x: Expr, bins: Sequence[int], ends: Sequence[float] | None) -> list[Expr]:
    """The edges of equal bins in each dimension of the rows of ``x``."""
    edges, width = [], len(bins)
    rows = reshape(b, x, [product(b.shape(x)[:-1]), width])
    for axis, number in enumerate(bins):
        own = None if ends is None else (ends[2 * axis], ends[2 * axis + 1])
        column = rows
        if own is None:
            column = b.te(lambda r, a=axis: te.compute([r.shape[0]], lambda i: r(i, a), name="column"), rows)
        edges.append(_spaced(b, _Range(own, 0.5, (0.0, 1.0)).edges(b, column), number))
    return edges


def _as_rows(b: Builder, x: Expr) -> Expr:
    return reshape(b, x, [product(b.shape(x)), 1])


def histogram(
    b: Builder, x: Tensor, bins: int, range: list[float] | None, weight: Tensor | None, density: bool
) -> list[Expr]:
    """aten::histogram.bin_ct(Tensor self, int bins=100, *, float[]? range=None, Tensor? weight=None,
    bool density=False) -> (Tensor hist, Tensor bin_edges)"""
    rows = _as_rows(b, x)
    edges = _bin_edges(b, rows, [bins], range)
    return [_histogram(b, rows, edges, weight, density, True), *edges]


def histogram_of_edges(b: Builder, x: Tensor, bins: Tensor, weight: Tensor | None, density: bool) -> list[Expr]:
    """aten::histogram.bins_tensor(Tensor self, Tensor bins, *, Tensor? weight=None,
    bool density=False) -> (Tensor hist, Tensor bin_edges)"""
    return [_histogram(b, _as_rows(b, x), [bins], weight, density, False), bins]


def histogram_edges(
    b: Builder, x: Tensor, bins: list[int], range: list[float] | None, weight: Tensor | None, density: bool
) -> list[Expr]:
    """aten::_histogramdd_bin_edges(Tensor self, int[] bins, *, float[]? range=None, Tensor? weight=None,
    bool density=False) -> Tensor[]"""
    return _bin_edges(b, x, bins, range)


def histogram_of_rows(
    b: Builder, x: Tensor, bins: list[int], range: list[float] | None, weight: Tensor | None, density: bool
) -> Expr:
    """aten::_histogramdd_from_bin_cts(Tensor self, int[] bins, *, float[]? range=None, Tensor? weight=None,
    bool density=False) -> Tensor"""
    return _histogram(b, x, _bin_edges(b, x, bins, range), weight, density, True)


def histogram_of_rows_by_edges(b: Builder, x: Tensor, bins: list[Tensor], weight: Tensor | None, density: bool) -> Expr:
    """aten::_histogramdd_from_bin_tensors(Tensor self, Tensor[] bins, *, Tensor? weight=None,
    bool density=False) -> Tensor"""
    return _histogram(b, x, bins, weight, density, False)


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.bincount": bincount,
    "torch.aten.histc": histc,
    "torch.aten.histogram.bin_ct": histogram,
    "torch.aten.histogram.bins_tensor": histogram_of_edges,
    "torch.aten._histogramdd_bin_edges": histogram_edges,
    "torch.aten._histogramdd_from_bin_cts": histogram_of_rows,
    "torch.aten._histogramdd_from_bin_tensors": histogram_of_rows_by_edges,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
