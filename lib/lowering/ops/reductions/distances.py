"""Distances between the rows of matrices, for any norm."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.networks.matmul import product_of
from torch_tvm.lowering.ops.reductions.folds import total
from torch_tvm.lowering.ops.reductions.statistics import power_and_root
from torch_tvm.lowering.ops.shapes.views import common_shape, expand_to, same_size
from torch_tvm.lowering.pointwise import larger, pointwise
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, is_float

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = Any

ROWS_FOR_PRODUCTS = 25
"""Above so many rows on a side, ATen takes Euclidean distances from a matrix product unless it is told not to.

A number of rows that is unknown may be a small one, of which rows that are alike have a distance of exactly 0.
"""

IF_NECESSARY, ALWAYS, NEVER = range(3)


def cdist(b: Builder, x: Tensor, y: Tensor, p: float, compute_mode: int | None) -> Expr:
    """aten::cdist(Tensor x1, Tensor x2, float p=2, int? compute_mode=None) -> Tensor"""
    shape = _joined(b, x, y)
    rows, columns, depth = *shape[-2:], b.shape(x)[-1]
    if 0 in (*shape, depth):
        return b.emit(R.zeros(relax.ShapeExpr([as_size(s) for s in shape]), b.dtype(x)))
    many = any(isinstance(s, int) and s > ROWS_FOR_PRODUCTS for s in (rows, columns))
    mode = compute_mode or IF_NECESSARY
    if p == 2 and (mode == ALWAYS or (mode == IF_NECESSARY and many)):
        return euclidean(b, x, y)
    batch = shape[:-2]
    left, right = (expand_to(b, v, [*batch, *b.shape(v)[-2:]]) for v in (x, y))
    return _norms(b, left, right, p)


def _joined(b: Builder, x: Expr, y: Expr) -> list[SizeLike]:
    """The shape of the distances."""
    if b.rank(x) < 2 or b.rank(y) < 2 or not is_float(b.dtype(x)) or b.dtype(x) != b.dtype(y):
        b.unsupported("distances need two matrices, or batches of them, of one floating-point dtype")
    if not same_size(b.shape(x)[-1], b.shape(y)[-1]):
        b.unsupported("rows of different lengths")
    batch = common_shape(b, [b.shape(x)[:-2], b.shape(y)[:-2]])
    return [*batch, b.shape(x)[-2], b.shape(y)[-2]]


def euclidean(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::_euclidean_dist(Tensor x1, Tensor x2) -> Tensor

    ``√(|x|² + |y|² - 2 x·y)``, as accurate as ATen's own product.
    """
    _joined(b, x, y)
    dtype = b.dtype(x)
    square = lambda v: total(b, v, [b.rank(v) - 1], True, accumulate=dtype, result=dtype, before=lambda u: u * u)
    swapped = lambda v: b.emit(R.permute_dims(v, [*range(b.rank(v) - 2), b.rank(v) - 1, b.rank(v) - 2]))
    two, zero = (tirx.const(value, dtype) for value in (2, 0))
    root = lambda s, left, right: tirx.sqrt(larger((left + right) - two * s, zero))
    return pointwise(b, root, product_of(b, x, swapped(y)), square(x), swapped(square(y)), compute=dtype)


def _norms(b: Builder, x: Expr, y: Expr, p: float) -> Expr:
    """The norm of each difference of a row of ``x`` and one of ``y``, summed directly."""
    dtype = b.dtype(x)
    wide = compute_dtype(dtype)
    measure, combine, finish = _norm(p, wide)
    reducer = te.comm_reducer(combine, lambda kind: tirx.const(0, kind), name="norm")

    def kernel(left: te.Tensor, right: te.Tensor) -> te.Tensor:
        depth = te.reduce_axis((0, left.shape[-1]), name="depth")

        def element(*i: Scalar) -> Scalar:
            *batch, row, column = i
            return reducer(measure(left(*batch, row, depth) - right(*batch, column, depth)), axis=depth)

        shape = [*left.shape[:-1], right.shape[-2]]
        summed = te.compute(shape, element, name="norm")
        return te.compute(shape, lambda *i: finish(summed(*i)), name="distance")

    return b.cast(b.te(kernel, b.cast(x, wide), b.cast(y, wide)), dtype)


Unary: TypeAlias = Callable[[Scalar], Scalar]


def _norm(p: float, dtype: str) -> tuple[Unary, Callable[[Scalar, Scalar], Scalar], Unary]:
    """What each difference counts, how counts combine, and what comes of them; the largest one is never NaN, as in
    ATen.
    """
    add: Callable[[Scalar, Scalar], Scalar] = lambda u, v: u + v
    same: Unary = lambda u: u
    constant = functools.partial(tirx.const, dtype=dtype)
    if p == 0:
        differs = lambda u: tirx.Select(tirx.abs(u) > constant(0), constant(1), u)
        return differs, add, same
    if math.isinf(p):
        return (
            lambda u: tirx.Select(tirx.abs(u) > constant(0), tirx.abs(u), constant(0)),
            lambda u, v: tirx.max(u, v),
            same,
        )
    before, after = power_and_root(p, dtype, dtype)
    return before, add, after


register("torch.aten.cdist", cdist, custom=True)
register("torch.aten._cdist_forward", cdist, custom=True)
register("torch.aten._euclidean_dist", euclidean, custom=True)
