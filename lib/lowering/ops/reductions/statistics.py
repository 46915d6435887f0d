"""Variance, norms and log-sum-exp: reductions of two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, differs, power
from torch_tvm.lowering.ops.reductions.folds import (
    axes_of,
    count_of,
    highest,
    lowest,
    mean_over,
    reduce,
    sum_dtype,
    total,
)
from torch_tvm.lowering.pointwise import larger, pointwise, smaller
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.tir import as_size, compute_dtype

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def _variance(
    b: Builder, x: Expr, dim: Any, correction: Any, keepdim: bool, *, root: bool, want_mean: bool = False
) -> list[Expr]:
    """Variance (or its root) by the two-pass formula in float64, as ATen's, and the mean when wanted."""
    axes, out = axes_of(b, x, dim), b.results[0].dtype or b.result_dtype
    accumulate = "float64"
    mean = mean_over(b, x, axes, True, accumulate)
    deviation = lambda u, m: (u - m) * (u - m)
    squares = pointwise(b, deviation, x, mean, compute=accumulate, result=accumulate, name="deviation")
    summed = total(b, squares, axes, keepdim, accumulate=accumulate, result=accumulate)

    def finish(u: Scalar, n: Scalar, taken: Scalar) -> Scalar:
        zero = tirx.const(0, accumulate)
        variance = u / tirx.Select(n - taken < zero, zero, n - taken)
        return tirx.sqrt(variance) if root else variance

    count = count_of(b, x, axes)
    if isinstance(count, int) and isinstance(correction, (int, float)):
        rest = max(count - correction, 0)
        factor = 1 / rest if rest else math.inf
        scaled = lambda u: tirx.sqrt(u * tirx.const(factor, accumulate)) if root else u * tirx.const(factor, accumulate)
        variance = pointwise(b, scaled, summed, compute=accumulate, result=out, name="variance")
    else:
        variance = pointwise(b, finish, summed, count, correction, compute=accumulate, result=out, name="variance")
    if not want_mean:
        return [variance]
    kept = mean if keepdim else b.reshape(mean, [s for a, s in enumerate(b.shape(mean)) if a not in axes])
    return [variance, b.cast(kept, out)]


def _correction(unbiased: bool) -> float:
    return 1.0 if unbiased else 0.0


@lowers("torch.aten.var.correction")
def var_correction(b: Builder, x: Tensor, dim: list[int] | None, correction: Any, keepdim: bool) -> Expr:
    """aten::var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor"""
    return _variance(b, x, dim, 1 if correction is None else correction, keepdim, root=False)[0]


@lowers("torch.aten.var.dim")
def var_dim(b: Builder, x: Tensor, dim: list[int] | None, unbiased: bool, keepdim: bool) -> Expr:
    """aten::var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor"""
    return _variance(b, x, dim, _correction(unbiased), keepdim, root=False)[0]


@lowers("torch.aten.var")
def var_all(b: Builder, x: Tensor, unbiased: bool) -> Expr:
    """aten::var(Tensor self, bool unbiased=True) -> Tensor"""
    return _variance(b, x, None, _correction(unbiased), False, root=False)[0]


@lowers("torch.aten.std.correction")
def std_correction(b: Builder, x: Tensor, dim: list[int] | None, correction: Any, keepdim: bool) -> Expr:
    """aten::std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor"""
    return _variance(b, x, dim, 1 if correction is None else correction, keepdim, root=True)[0]


@lowers("torch.aten.std.dim")
def std_dim(b: Builder, x: Tensor, dim: list[int] | None, unbiased: bool, keepdim: bool) -> Expr:
    """aten::std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor"""
    return _variance(b, x, dim, _correction(unbiased), keepdim, root=True)[0]


@lowers("torch.aten.std")
def std_all(b: Builder, x: Tensor, unbiased: bool) -> Expr:
    """aten::std(Tensor self, bool unbiased=True) -> Tensor"""
    return _variance(b, x, None, _correction(unbiased), False, root=True)[0]


def _with_mean(name: str, root: bool) -> None:
    """``var_mean`` and ``std_mean``: the root of a variance that overflows need not."""

    def correction(b: Builder, x: Tensor, dim: list[int] | None, correction: Any, keepdim: bool) -> list[Expr]:
        rest = 1 if correction is None else correction
        return _variance(b, x, dim, rest, keepdim, root=root, want_mean=True)

    def over(b: Builder, x: Tensor, dim: list[int] | None, unbiased: bool, keepdim: bool) -> list[Expr]:
        return _variance(b, x, dim, _correction(unbiased), keepdim, root=root, want_mean=True)

    def whole(b: Builder, x: Tensor, unbiased: bool) -> list[Expr]:
        return _variance(b, x, None, _correction(unbiased), False, root=root, want_mean=True)

    for overload, function in ((".correction", correction), (".dim", over), ("", whole)):
        function.__doc__ = f"aten::{name}{overload} -> (Tensor, Tensor)"
        register(f"torch.aten.{name}{overload}", function, custom=root)


_with_mean("var_mean", root=False)
_with_mean("std_mean", root=True)


# -- norms -------------------------------------------------------------------------------------------------


def _norm(b: Builder, x: Expr, order: Any, axes: Sequence[int], keepdim: bool) -> Expr:
    if not isinstance(order, (int, float)):
        return _norm_of_any_order(b, x, order, axes, keepdim)
    out = b.result_dtype
    inner = compute_dtype(out)
    size = lambda u: tirx.abs(convert(u, inner))
    if math.isinf(order):
        if any(b.shape(x)[a] == 0 for a in axes if isinstance(b.shape(x)[a], int)):
            b.unsupported("an infinity norm of nothing, which ATen reports as an error")
        for axis in axes:
            b.expect(as_size(b.shape(x)[axis]) >= 1, "an infinity norm of nothing")
        combine, identity = (larger, lowest) if order > 0 else (smaller, highest)
        return reduce(b, x, axes, keepdim, combine, identity, accumulate=inner, before=size, name="norm")
    accumulate = sum_dtype(b, x, axes, out)
    before, after = power_and_root(order, accumulate, inner)
    return total(b, x, axes, keepdim, accumulate=accumulate, before=before, after=after, name="norm")


def _norm_of_any_order(b: Builder, x: Expr, order: Any, axes: Sequence[int], keepdim: bool) -> Expr:
    """A norm whose order only the run knows: that of the powers, or what stands for it at 0 and infinity."""
    out = b.result_dtype
    inner, accumulate = compute_dtype(out), sum_dtype(b, x, axes, out)
    given = pointwise(b, lambda p: p, b.tensor(order, accumulate), compute=accumulate, result=accumulate)
    powers = pointwise(b, lambda u, p: power(tirx.abs(u), p), x, given, compute=accumulate, result=accumulate)
    summed = total(b, powers, axes, keepdim, accumulate=accumulate, result=accumulate)
    is_other, _ = power_and_root(0, accumulate, inner)
    counted = total(b, x, axes, keepdim, accumulate=accumulate, result=accumulate, before=is_other)
    size = lambda u: tirx.abs(convert(u, inner))
    largest, smallest = (
        reduce(b, x, axes, keepdim, combine, identity, accumulate=inner, result=accumulate, before=size)
        for combine, identity in ((larger, lowest), (smaller, highest))
    )

    def choose(p: Scalar, s: Scalar, count: Scalar, most: Scalar, least: Scalar) -> Scalar:
        infinity, zero, one = tirx.infinity(accumulate), tirx.const(0, accumulate), tirx.const(1, accumulate)
        of_powers = power(s, one / tirx.Select(p == zero, one, p))
        ends = tirx.Select(p == infinity, most, tirx.Select(p == -infinity, least, of_powers))
        return tirx.Select(p == zero, count, ends)

    return pointwise(b, choose, given, summed, counted, largest, smallest, compute=accumulate, result=out, name="norm")


def power_and_root(
    order: float, accumulate: str, inner: str
) -> tuple[Callable[[Scalar], Scalar], Callable[[Scalar], Scalar]]:
    """What each element counts for the norm of ``order``, and what their sum becomes."""
    wide = lambda u: tirx.abs(convert(convert(u, inner), accumulate))
    same: Callable[[Scalar], Scalar] = lambda u: u
    if order == 0:
        return (lambda u: convert(differs(convert(u, inner), tirx.const(0, inner)), accumulate)), same
    if order == 1:
        return wide, same
    if order == 2:
        return (lambda u: wide(u) * wide(u)), tirx.sqrt
    exponent, root = tirx.const(order, accumulate), tirx.const(1 / order, accumulate)
    return (lambda u: power(wide(u), exponent)), (lambda u: power(u, root))


@lowers("torch.aten.linalg_vector_norm")
def linalg_vector_norm(b: Builder, x: Tensor, order: Any, dim: list[int] | None, keepdim: bool, dtype: Any) -> Expr:
    """aten::linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *,
    ScalarType? dtype)
    """
    return _norm(b, x, order, axes_of(b, x, dim), keepdim)


@lowers("torch.aten.norm.Scalar")
def norm_scalar(b: Builder, x: Tensor, p: Any) -> Expr:
    """aten::norm.Scalar(Tensor self, Scalar p=2) -> Tensor"""
    return _norm(b, x, p, range(b.rank(x)), False)


def weight_norm(b: Builder, v: Tensor, g: Tensor, dim: int) -> Expr:
    """aten::_weight_norm(Tensor v, Tensor g, int dim=0) -> Tensor; the norm of ``v`` is over all
    dimensions but ``dim``
    """
    rank = b.rank(v)
    axes = [axis for axis in range(rank) if dim == -1 or axis != b.axis(dim, rank)]
    scale = b.emit(relax.op.divide(g, _norm(b, v, 2.0, axes, dim != -1)))
    return b.emit(relax.op.multiply(v, scale))


register("torch.aten._weight_norm", weight_norm, custom=True)


@lowers("torch.aten.logsumexp")
def logsumexp(b: Builder, x: Tensor, dim: list[int], keepdim: bool) -> Expr:
    """aten::logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor"""
    axes, out = axes_of(b, x, dim), b.result_dtype
    inner = compute_dtype(out)
    top = reduce(b, x, axes, True, larger, lowest, accumulate=inner, result=inner, name="max")

    def safe(m: Scalar) -> Scalar:
        infinity = tirx.infinity(inner)
        return tirx.Select(tirx.any(m == infinity, m == -infinity), tirx.const(0, inner), m)

    shifted = pointwise(b, lambda u, m: tirx.exp(u - safe(m)), x, top, compute=inner, result=inner, name="exp")
    summed = total(b, shifted, axes, True, accumulate=sum_dtype(b, x, axes, out), result=inner)
    value = pointwise(b, lambda s, m: tirx.log(s) + safe(m), summed, top, compute=inner, result=out)
    if keepdim:
        return value
    return b.reshape(value, [size for a, size in enumerate(b.shape(value)) if a not in axes])
