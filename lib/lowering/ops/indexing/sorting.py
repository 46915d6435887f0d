"""Sorting along a dimension: stable, NaN last, by way of integer keys."""

from __future__ import annotations

from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.kernels import wide_sort
from torch_tvm.lowering.ops.indexing.kernels.sort import is_long, is_selection, order, smallest_by_digits
from torch_tvm.lowering.ops.indexing.kernels.sort import largest as selected
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, is_float

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def sorting_keys(b: Builder, x: Expr) -> Expr:
    """Integers in the order of ``x``: zeros of both signs are equal, NaN is the largest."""
    source = b.dtype(x)
    if not is_float(source):
        key = "int64" if source == "int64" else "int32"
        return pointwise(b, lambda u: u, x, compute=key, result=key, name="key")
    inner = compute_dtype(source)
    key = "int64" if inner == "float64" else "int32"

    def body(u: Scalar) -> Scalar:
        zero = tirx.const(0, inner)
        bits = tirx.reinterpret(key, tirx.Select(tirx.EQ(u, zero), zero, u))
        last = tvm.tirx.max_value(key)
        ordered = tirx.Select(bits < tirx.const(0, key), tirx.bitwise_xor(bits, last), bits)
        return tirx.Select(tirx.isnan(u), last, ordered)

    return pointwise(b, body, x, compute=inner, result=key, name="key")


def sorting_indices(b: Builder, x: Expr, axis: int, descending: bool) -> Expr:
    """The stable order of ``x`` along ``axis`` as int64."""
    ordered = wide_sort.order if b.many_threads else order
    return b.te(lambda keys: ordered(keys, axis, descending), sorting_keys(b, x), name="argsort")


def along(b: Builder, x: Expr, order: Expr, axis: int, count: SizeLike | None = None) -> tuple[Expr, Expr]:
    """The first ``count`` elements (``None``: all) of ``x`` in ``order``, and their indices."""

    def sizes(order_: te.Tensor) -> list[Any]:
        return [count if a == axis and count is not None else size for a, size in enumerate(order_.shape)]

    def values(source: te.Tensor, order_: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Scalar:
            return source(*(order_(*i) if a == axis else index for a, index in enumerate(i)))

        return te.compute(sizes(order_), element, name="sorted")

    taken = b.te(values, x, order, name="sorted")
    if count is None:
        return taken, order
    return taken, b.te(lambda o: te.compute(sizes(o), lambda *i: o(*i), name="indices"), order, name="indices")


def _sorted(b: Builder, x: Expr, dim: int, descending: bool) -> list[Expr]:
    if b.rank(x) == 0:
        zero = pointwise(b, lambda u: tirx.const(0, "int64"), x, compute=b.dtype(x), result="int64")
        return [x, zero]
    axis = b.axis(dim, b.rank(x))
    if 0 in b.shape(x):
        return [x, b.emit(relax.op.zeros(relax.ShapeExpr(x.ty.shape.values), "int64"))]
    return list(along(b, x, sorting_indices(b, x, axis, descending), axis))


@lowers("torch.aten.sort")
def sort(b: Builder, x: Tensor, dim: int, descending: bool) -> list[Expr]:
    """aten::sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)"""
    return _sorted(b, x, dim, descending)


@lowers("torch.aten.argsort")
def argsort(b: Builder, x: Tensor, dim: int, descending: bool) -> Expr:
    """aten::argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor"""
    return _sorted(b, x, dim, descending)[1]


@lowers("torch.aten.topk")
def topk(b: Builder, x: Tensor, k: Size, dim: int, largest: bool, sorted: bool) -> list[Expr]:
    """aten::topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor, Tensor)"""
    if b.rank(x) == 0:
        return [x, b.broadcast(b.const(0, "int64"), [])]
    axis = b.axis(dim, b.rank(x))
    if not isinstance(k, int):
        b.check(tirx.all(k >= 0, as_size(b.shape(x)[axis]) >= k), "selected index k out of range")
        return list(along(b, x, sorting_indices(b, x, axis, largest), axis, k))
    if 0 in b.shape(x) or k == 0:
        sizes = relax.ShapeExpr([as_size(k if a == axis else s) for a, s in enumerate(b.shape(x))])
        return [b.emit(relax.op.zeros(sizes, dtype)) for dtype in (b.dtype(x), "int64")]
    b.expect(as_size(b.shape(x)[axis]) >= k, "selected index k out of range")
    length = b.shape(x)[axis]
    if b.many_threads:
        places = b.te(lambda keys: wide_sort.order(keys, axis, largest, k), sorting_keys(b, x), name="topk")
        return list(along(b, x, places, axis))
    if not is_selection(k, length) and is_long(length, k):
        places = b.te(lambda keys: smallest_by_digits(keys, axis, k, largest), sorting_keys(b, x), name="topk")
        return list(along(b, x, places, axis))
    if not is_selection(k, length):
        return list(along(b, x, sorting_indices(b, x, axis, largest), axis, k))
    places = b.te(lambda keys: selected(keys, axis, k, not largest), sorting_keys(b, x), name="topk")
    return list(along(b, x, places, axis))


def sort_stable(b: Builder, x: Tensor, stable: bool | None, dim: int, descending: bool) -> list[Expr]:
    """aten::sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False)
    -> (Tensor values, Tensor indices)"""
    return _sorted(b, x, dim, descending)


def argsort_stable(b: Builder, x: Tensor, stable: bool, dim: int, descending: bool) -> Expr:
    """aten::argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor"""
    return _sorted(b, x, dim, descending)[1]


def msort(b: Builder, x: Tensor) -> Expr:
    """aten::msort(Tensor self) -> Tensor"""
    return _sorted(b, x, 0, False)[0]


register("torch.aten.sort.stable", sort_stable, custom=True)
register("torch.aten.argsort.stable", argsort_stable, custom=True)
register("torch.aten.msort", msort, custom=True)
