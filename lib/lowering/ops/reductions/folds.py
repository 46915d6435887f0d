"""Reductions over some or all dimensions.

Sums are kept in float64 where more than :data:`FLOAT_SUM` elements meet, so that the error does not grow with
the size whatever the order of a schedule; maxima carry NaN, as ATen's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert
from torch_tvm.lowering.pointwise import larger, pointwise, smaller
from torch_tvm.lowering.registry import Tensor, lowers
from torch_tvm.tir import as_size, compute_dtype, is_float

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr

FLOAT_SUM = 256


def axes_of(b: Builder, x: Expr, dim: Any) -> list[int]:
    """The reduced dimensions in order; ``None`` and an empty list mean all."""
    rank = b.rank(x)
    if dim is None or dim == []:
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else list(dim)
    axes = {b.axis(int(d), rank) for d in dims}
    return sorted(axis for axis in axes if axis < rank)


def reduced_size(b: Builder, x: Expr, axes: Sequence[int]) -> int | None:
    """How many elements meet in one result; ``None`` when that is symbolic."""
    count = count_of(b, x, axes)
    return count if isinstance(count, int) else None


def sum_dtype(b: Builder, x: Expr, axes: Sequence[int], result: str) -> str:
    """The dtype of a sum's accumulator."""
    if not is_float(result):
        return result
    count = reduced_size(b, x, axes)
    return compute_dtype(result) if count is not None and count <= FLOAT_SUM else "float64"


Combine = Callable[[Scalar, Scalar], Scalar]


def reduce(
    b: Builder,
    x: Expr,
    axes: Sequence[int],
    keepdim: bool,
    combine: Combine,
    identity: Callable[[str], Scalar],
    *,
    accumulate: str,
    result: str | None = None,
    before: Callable[[Scalar], Scalar] = lambda u: u,
    after: Callable[[Scalar], Scalar] = lambda u: u,
    name: str | None = None,
) -> Expr:
    """``after(combine over axes of before(x))``: one reduction in ``accumulate`` and one cast to ``result``."""
    out = result or b.result_dtype
    reducer = te.comm_reducer(combine, identity, name=name or "reduce")

    def kernel(source: te.Tensor) -> te.Tensor:
        rank = len(source.shape)
        kept = [axis for axis in range(rank) if axis not in axes]
        loops = {axis: te.reduce_axis((0, source.shape[axis]), name=f"r{axis}") for axis in axes}
        shape = [source.shape[a] if a in kept else 1 for a in range(rank) if a in kept or keepdim]

        def value(*indices: Any) -> Scalar:
            outer = dict(zip([a for a in range(rank) if a in kept or keepdim], indices, strict=True))
            point = [loops[a] if a in loops else outer[a] for a in range(rank)]
            return convert(before(source(*point)), accumulate)

        if not axes:
            return te.compute(shape, lambda *i: convert(after(value(*i)), out), name="reduced")
        total = te.compute(shape, lambda *i: reducer(value(*i), axis=list(loops.values())), name="reduced")
        if accumulate == out and _is_identity(after, accumulate):
            return total
        return te.compute(shape, lambda *i: convert(after(total(*i)), out), name="finished")

    return b.te(kernel, x, name=name)


def _is_identity(after: Callable[[Scalar], Scalar], dtype: str) -> bool:
    probe = tirx.Var("probe", dtype)
    return after(probe) is probe or after(probe).same_as(probe)


def total(
    b: Builder,
    x: Expr,
    axes: Sequence[int],
    keepdim: bool,
    *,
    accumulate: str,
    result: str | None = None,
    before: Callable[[Scalar], Scalar] = lambda u: u,
    after: Callable[[Scalar], Scalar] = lambda u: u,
    name: str = "sum",
) -> Expr:
    """A sum in ``accumulate``."""
    add: Combine = lambda u, v: u + v
    zero = lambda dtype: tirx.const(0, dtype)
    return reduce(
        b,
        x,
        axes,
        keepdim,
        add,
        zero,
        accumulate=accumulate,
        result=result,
        before=before,
        after=after,
        name=name,
    )


def count_of(b: Builder, x: Expr, axes: Sequence[int]) -> Any:
    """The number of elements that meet, as an int (0 where one of unknown sizes is 0) or a TIR expression."""
    sizes = [b.shape(x)[axis] for axis in axes]
    return 0 if 0 in sizes else math.prod(sizes)


# -- sums and means ----------------------------------------------------------------------------------------


@lowers("torch.aten.sum.dim_IntList")
def sum_dim(b: Builder, x: Tensor, dim: list[int] | None, keepdim: bool, dtype: Any) -> Expr:
    """aten::sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    axes, out = axes_of(b, x, dim), b.result_dtype
    if out == "bool":
        b.unsupported("a sum into booleans")
    return total(b, x, axes, keepdim, accumulate=sum_dtype(b, x, axes, out), before=_to(b, x, out))


def _to(b: Builder, x: Expr, dtype: str) -> Callable[[Scalar], Scalar]:
    """Elements cast to the result's dtype first, where that loses something (a float summed as an integer)."""
    return (lambda u: convert(u, dtype)) if is_float(b.dtype(x)) and not is_float(dtype) else lambda u: u


@lowers("torch.aten.sum")
def sum_all(b: Builder, x: Tensor, dtype: Any) -> Expr:
    """aten::sum(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return sum_dim(b, x, None, False, dtype)


@lowers("torch.aten.mean.dim")
def mean_dim(b: Builder, x: Tensor, dim: list[int] | None, keepdim: bool, dtype: Any) -> Expr:
    """aten::mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    axes = axes_of(b, x, dim)
    return mean_over(b, x, axes, keepdim, b.result_dtype)


def mean_over(b: Builder, x: Expr, axes: Sequence[int], keepdim: bool, result: str) -> Expr:
    """The mean in ``result``; NaN over nothing.

    That of an image stays an operation that the layout passes know; its partial sums are short.
    """
    shape = b.shape(x)
    is_image = len(shape) > 3 and list(axes) == list(range(2, len(shape)))
    if is_image and b.dtype(x) == result == "float32" and reduced_size(b, x, axes):
        mean = b.emit(relax.op.mean(x, list(axes), keepdims=True))
        return mean if keepdim else b.reshape(mean, shape[:2])
    accumulate = sum_dtype(b, x, axes, result)
    count = count_of(b, x, axes)
    if isinstance(count, int):
        scale = tirx.const(count, accumulate) if count else tirx.const(float("nan"), accumulate)
        return total(b, x, axes, keepdim, accumulate=accumulate, result=result, after=lambda u: u / scale, name="mean")
    whole = total(b, x, axes, keepdim, accumulate=accumulate, result=accumulate)
    return pointwise(b, lambda u, n: u / n, whole, count, compute=accumulate, result=result, name="mean")


@lowers("torch.aten.mean")
def mean_all(b: Builder, x: Tensor, dtype: Any) -> Expr:
    """aten::mean(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return mean_dim(b, x, None, False, dtype)


@lowers("torch.aten.prod.dim_int")
def prod_dim(b: Builder, x: Tensor, dim: int, keepdim: bool, dtype: Any) -> Expr:
    """aten::prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return _prod(b, x, axes_of(b, x, dim), keepdim)


@lowers("torch.aten.prod")
def prod_all(b: Builder, x: Tensor, dtype: Any) -> Expr:
    """aten::prod(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return _prod(b, x, axes_of(b, x, None), False)


def _prod(b: Builder, x: Expr, axes: Sequence[int], keepdim: bool) -> Expr:
    out = b.result_dtype
    if out == "bool":
        b.unsupported("a product into booleans")
    multiply: Combine = lambda u, v: u * v
    one = lambda dtype: tirx.const(1, dtype)
    return reduce(b, x, axes, keepdim, multiply, one, accumulate=compute_dtype(out), before=_to(b, x, out), name="prod")


@lowers("torch.aten.count_nonzero.dim_IntList")
def count_nonzero_dims(b: Builder, x: Tensor, dim: list[int]) -> Expr:
    """aten::count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor"""
    return total(b, x, axes_of(b, x, dim), False, accumulate="int64", before=lambda u: convert(u, "bool"))


@lowers("torch.aten.count_nonzero")
def count_nonzero(b: Builder, x: Tensor, dim: int | None) -> Expr:
    """aten::count_nonzero(Tensor self, int? dim=None) -> Tensor"""
    return count_nonzero_dims(b, x, [] if dim is None else [dim])


# -- truth -----------------------------------------------------------------------------------------------


def _truth(b: Builder, x: Expr, dim: Any, keepdim: bool, is_all: bool) -> Expr:
    combine: Combine = (lambda u, v: tirx.all(u, v)) if is_all else (lambda u, v: tirx.any(u, v))
    identity = lambda dtype: tirx.const(is_all, "bool")
    return reduce(
        b,
        x,
        axes_of(b, x, dim),
        keepdim,
        combine,
        identity,
        accumulate="bool",
        before=lambda u: convert(u, "bool"),
    )


@lowers("torch.aten.any.dim", "torch.aten.any.dims")
def any_dim(b: Builder, x: Tensor, dim: int | list[int] | None, keepdim: bool) -> Expr:
    """aten::any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor"""
    return _truth(b, x, dim, keepdim, False)


@lowers("torch.aten.any")
def any_all(b: Builder, x: Tensor) -> Expr:
    """aten::any(Tensor self) -> Tensor"""
    return _truth(b, x, None, False, False)


@lowers("torch.aten.all.dim")
def all_dim(b: Builder, x: Tensor, dim: int, keepdim: bool) -> Expr:
    """aten::all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor"""
    return _truth(b, x, dim, keepdim, True)


@lowers("torch.aten.all")
def all_all(b: Builder, x: Tensor) -> Expr:
    """aten::all(Tensor self) -> Tensor"""
    return _truth(b, x, None, False, True)


# -- extrema -----------------------------------------------------------------------------------------------


def lowest(dtype: str) -> Scalar:
    """The identity of a maximum: minus infinity, or the smallest integer."""
    if dtype == "bool":
        return tirx.const(False, "bool")
    return tirx.const(float("-inf"), dtype) if is_float(dtype) else tirx.min_value(dtype)


def highest(dtype: str) -> Scalar:
    """The identity of a minimum: infinity, or the largest integer."""
    if dtype == "bool":
        return tirx.const(True, "bool")
    return tirx.const(float("inf"), dtype) if is_float(dtype) else tirx.max_value(dtype)


def _extremum(b: Builder, x: Expr, dim: Any, keepdim: bool, is_max: bool, result: str | None = None) -> Expr:
    axes = axes_of(b, x, dim)
    _refuse_empty(b, x, axes)
    combine, identity = (larger, lowest) if is_max else (smaller, highest)
    return reduce(
        b, x, axes, keepdim, combine, identity, accumulate=compute_dtype(b.dtype(x)), result=result,
        name="max" if is_max else "min",
    )  # fmt: skip


def extremum_of_all(b: Builder, x: Expr, is_max: bool) -> Expr:
    """The largest or smallest element (0-d, in the dtype of ``x``); NaN where one is."""
    return _extremum(b, x, None, False, is_max, b.dtype(x))


def _refuse_empty(b: Builder, x: Expr, axes: Sequence[int]) -> None:
    if any(b.shape(x)[axis] == 0 for axis in axes if isinstance(b.shape(x)[axis], int)):
        b.unsupported("an extremum of nothing, which ATen reports as an error")
    for axis in axes:
        b.expect(as_size(b.shape(x)[axis]) >= 1, "an extremum of nothing")


@lowers("torch.aten.amax")
def amax(b: Builder, x: Tensor, dim: list[int], keepdim: bool) -> Expr:
    """aten::amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _extremum(b, x, dim, keepdim, True)


@lowers("torch.aten.amin")
def amin(b: Builder, x: Tensor, dim: list[int], keepdim: bool) -> Expr:
    """aten::amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return _extremum(b, x, dim, keepdim, False)


@lowers("torch.aten.max")
def max_all(b: Builder, x: Tensor) -> Expr:
    """aten::max(Tensor self) -> Tensor"""
    return _extremum(b, x, None, False, True)


@lowers("torch.aten.min")
def min_all(b: Builder, x: Tensor) -> Expr:
    """aten::min(Tensor self) -> Tensor"""
    return _extremum(b, x, None, False, False)


@lowers("torch.aten.aminmax")
def aminmax(b: Builder, x: Tensor, dim: int | None, keepdim: bool) -> list[Expr]:
    """aten::aminmax(Tensor self, *, int? dim=None, bool keepdim=False) -> (Tensor min, Tensor max)"""
    return [_extremum(b, x, dim, keepdim, is_max) for is_max in (False, True)]


def arg_extremum(b: Builder, x: Expr, axis: int | None, keepdim: bool, is_max: bool) -> tuple[Expr, Expr]:
    """The extremum along ``axis`` (``None``: of the flattened tensor) and the first index of it, NaN first of all."""
    rank = b.rank(x)
    axes = list(range(rank)) if axis is None else [axis] if rank else []
    _refuse_empty(b, x, axes)
    source_dtype = b.dtype(x)
    dtype = "uint8" if source_dtype == "bool" else compute_dtype(source_dtype)

    reducer = _arg_reducer(dtype, is_max)

    def kernel(source: te.Tensor) -> list[te.Tensor]:
        loops = {a: te.reduce_axis((0, source.shape[a]), name=f"r{a}") for a in axes}
        kept = [a for a in range(rank) if a not in axes]
        outer_axes = [a for a in range(rank) if a in kept or keepdim]
        shape = [source.shape[a] if a in kept else 1 for a in outer_axes]

        def pair(*indices: Any) -> Any:
            outer = dict(zip(outer_axes, indices, strict=True))
            point = [loops[a] if a in loops else outer[a] for a in range(rank)]
            flat: Any = tirx.const(0, "int64")
            for a in axes:
                flat = flat * source.shape[a] + loops[a]
            value = convert(source(*point), dtype)
            if not axes:
                return tirx.const(0, "int64"), value
            return reducer((tirx.Cast("int64", flat), value), axis=list(loops.values()))

        index, value = te.compute(shape, pair, name="arg")
        if dtype == source_dtype:
            return [index, value]
        return [index, te.compute(shape, lambda *i: convert(value(*i), source_dtype), name="value")]

    both = b.te(kernel, x)
    return b.emit(relax.TupleGetItem(both, 1)), b.emit(relax.TupleGetItem(both, 0))


def _arg_reducer(dtype: str, is_max: bool) -> Any:
    """The better of two pairs of index and value: NaN before all numbers, the lower index of equal values."""

    def better(u: Scalar, v: Scalar) -> Scalar:
        ahead = u > v if is_max else u < v
        if not is_float(dtype):
            return ahead
        return tirx.any(tirx.all(tirx.isnan(u), tirx.Not(tirx.isnan(v))), tirx.all(ahead, tirx.Not(tirx.isnan(v))))

    def tied(u: Scalar, v: Scalar) -> Scalar:
        return tirx.any(u == v, tirx.all(tirx.isnan(u), tirx.isnan(v))) if is_float(dtype) else u == v

    def combine(left: Any, right: Any) -> tuple[Scalar, Scalar]:
        zero = tirx.const(0, "int64")
        ahead = tirx.any(better(left[1], right[1]), tirx.all(tied(left[1], right[1]), left[0] < right[0]))
        take_left = tirx.any(right[0] < zero, tirx.all(left[0] >= zero, ahead))
        return tirx.Select(take_left, left[0], right[0]), tirx.Select(take_left, left[1], right[1])

    identity = lambda index, value: (tirx.const(-1, index), (lowest if is_max else highest)(value))
    return te.comm_reducer(combine, identity, name="argmax" if is_max else "argmin")


@lowers("torch.aten.max.dim")
def max_dim(b: Builder, x: Tensor, dim: int, keepdim: bool) -> list[Expr]:
    """aten::max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return list(arg_extremum(b, x, b.axis(dim, b.rank(x)), keepdim, True))


@lowers("torch.aten.min.dim")
def min_dim(b: Builder, x: Tensor, dim: int, keepdim: bool) -> list[Expr]:
    """aten::min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return list(arg_extremum(b, x, b.axis(dim, b.rank(x)), keepdim, False))


@lowers("torch.aten.argmax")
def argmax(b: Builder, x: Tensor, dim: int | None, keepdim: bool) -> Expr:
    """aten::argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    return arg_extremum(b, x, None if dim is None else b.axis(dim, b.rank(x)), keepdim, True)[1]


@lowers("torch.aten.argmin")
def argmin(b: Builder, x: Tensor, dim: int | None, keepdim: bool) -> Expr:
    """aten::argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    return arg_extremum(b, x, None if dim is None else b.axis(dim, b.rank(x)), keepdim, False)[1]
