"""Functions of one tensor: rounding, roots, exponentials, logarithms, trigonometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.pointwise import libm, pointwise
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.lowering.wrapping import magnitude, may_overflow, negative, product
from torch_tvm.tir import HALF, compute_dtype, is_float

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def unary(name: str, relax_op: Callable[[Expr], Expr], *aliases: str) -> None:
    """A look-alike of one Relax op, computed in the result's dtype (float32 for the half types)."""

    def lowering(b: Builder, x: Tensor) -> Expr:
        dtype = b.result_dtype
        value = b.cast(x, compute_dtype(dtype))
        return b.cast(b.emit(relax_op(value)), dtype)

    _register(lowering, name, *aliases)


def scalar_unary(name: str, body: Callable[[Scalar], Scalar], *, custom: bool = False) -> None:
    """A look-alike of one TIR expression, computed in the result's dtype (float32 for the half types)."""

    def lowering(b: Builder, x: Tensor) -> Expr:
        return pointwise(b, body, x)

    _register(lowering, name, custom=custom)


def rounding(name: str, relax_op: Callable[[Expr], Expr], *aliases: str) -> None:
    """A look-alike that leaves integers alone."""

    def lowering(b: Builder, x: Tensor) -> Expr:
        dtype = b.result_dtype
        if not is_float(dtype):
            return b.cast(x, dtype)
        return b.cast(b.emit(relax_op(b.cast(x, compute_dtype(dtype)))), dtype)

    _register(lowering, name, *aliases)


def _register(lowering: Callable[..., Expr], *names: str, custom: bool = False) -> None:
    lowering.__doc__ = f"{names[0].removeprefix('torch.')}(Tensor self) -> Tensor"
    for name in names:
        register(name, lowering, custom=custom)


def _one(u: Scalar) -> Scalar:
    return tirx.const(1, str(u.ty.dtype))


def _zero(u: Scalar) -> Scalar:
    return tirx.const(0, str(u.ty.dtype))


unary("torch.aten.exp", R.exp)
unary("torch.aten.sqrt", R.sqrt)
unary("torch.aten.rsqrt", R.rsqrt)
unary("torch.aten.log", R.log)
unary("torch.aten.erf", R.erf)
unary("torch.aten.sin", R.sin)
unary("torch.aten.cos", R.cos)
unary("torch.aten.tanh", R.tanh)
unary("torch.aten.sigmoid", R.sigmoid)

rounding("torch.aten.ceil", R.ceil)
rounding("torch.aten.floor", R.floor)
rounding("torch.aten.round", R.round)
rounding("torch.aten.trunc", R.trunc)

scalar_unary("torch.aten.exp2", tirx.exp2)
scalar_unary("torch.aten.expm1", lambda u: libm("expm1", u))
scalar_unary("torch.aten.log2", tirx.log2)
scalar_unary("torch.aten.log10", tirx.log10)
scalar_unary("torch.aten.log1p", lambda u: libm("log1p", u))
scalar_unary("torch.aten.reciprocal", lambda u: _one(u) / u)
scalar_unary("torch.aten.tan", lambda u: libm("tan", u))
scalar_unary("torch.aten.asin", lambda u: libm("asin", u))
scalar_unary("torch.aten.acos", lambda u: libm("acos", u))
scalar_unary("torch.aten.atan", lambda u: libm("atan", u))
scalar_unary("torch.aten.sinh", lambda u: libm("sinh", u))
scalar_unary("torch.aten.cosh", lambda u: libm("cosh", u))
scalar_unary("torch.aten.asinh", lambda u: libm("asinh", u))
scalar_unary("torch.aten.acosh", lambda u: libm("acosh", u))
scalar_unary("torch.aten.atanh", lambda u: libm("atanh", u))
scalar_unary(
    "torch.aten.angle",
    lambda u: tirx.Select(tirx.isnan(u), u, tirx.Select(u < _zero(u), tirx.const(math.pi, str(u.ty.dtype)), _zero(u))),
    custom=True,
)
scalar_unary("torch.aten.square", lambda u: product(u, u))
scalar_unary("torch.aten.frac", lambda u: u - tirx.trunc(u))


@lowers("torch.aten.abs")
def abs_(b: Builder, x: Tensor) -> Expr:
    """aten::abs(Tensor self) -> Tensor"""
    dtype = b.result_dtype
    if may_overflow(dtype):
        return pointwise(b, magnitude, x)
    return x if dtype in ("uint8", "bool") else b.emit(R.abs(x)) if dtype not in HALF else pointwise(b, tirx.abs, x)


@lowers("torch.aten.neg")
def neg(b: Builder, x: Tensor) -> Expr:
    """aten::neg(Tensor self) -> Tensor"""
    dtype = b.result_dtype
    if dtype in HALF:
        return pointwise(b, lambda u: u * tirx.const(-1, str(u.ty.dtype)), x)  # 0 - u loses the sign of 0
    if dtype.startswith("uint"):
        return pointwise(b, lambda u: _zero(u) - u, x)
    if may_overflow(dtype):
        return pointwise(b, negative, x)
    return b.emit(R.negative(x))


@lowers("torch.aten.sgn")
def sgn(b: Builder, x: Tensor) -> Expr:
    """aten::sgn(Tensor self) -> Tensor"""
    if b.result_dtype == "bool":
        return x

    def body(u: Scalar) -> Scalar:
        if str(u.ty.dtype).startswith("uint"):
            return tirx.Select(u > _zero(u), _one(u), _zero(u))
        negative = tirx.Select(u < _zero(u), _zero(u) - _one(u), _zero(u))
        return tirx.Select(u > _zero(u), _one(u), negative)

    return pointwise(b, body, x)


@lowers("torch.aten.round.decimals")
def round_decimals(b: Builder, x: Tensor, decimals: int) -> Expr:
    """aten::round.decimals(Tensor self, *, int decimals) -> Tensor"""
    if not is_float(b.result_dtype):
        b.unsupported("rounding integers to decimals")
    if decimals == 0:
        return pointwise(b, tirx.nearbyint, x)
    ten = 10.0 ** abs(decimals)

    def body(u: Scalar) -> Scalar:
        scale = tirx.const(ten, str(u.ty.dtype))
        return tirx.nearbyint(u * scale) / scale if decimals > 0 else tirx.nearbyint(u / scale) * scale

    return pointwise(b, body, x)


@lowers("torch.aten.logit")
def logit(b: Builder, x: Tensor, eps: float | None) -> Expr:
    """aten::logit(Tensor self, float? eps=None) -> Tensor"""

    def body(u: Scalar) -> Scalar:
        if eps is not None:
            low, high = (tirx.const(value, str(u.ty.dtype)) for value in (eps, 1.0 - eps))
            u = tirx.Select(u < low, low, tirx.Select(u > high, high, u))
        return tirx.log(u / (_one(u) - u))

    return pointwise(b, body, x)


# -- classification ------------------------------------------------------------------------------------


def classify(name: str, body: Callable[[Scalar], Scalar], of_integers: bool) -> None:
    """A question about a float; every integer has the same answer."""

    def lowering(b: Builder, x: Tensor) -> Expr:
        if not is_float(b.dtype(x)):
            return pointwise(b, lambda u: tirx.const(of_integers, "bool"), x, compute=b.dtype(x))
        return pointwise(b, body, x, compute=compute_dtype(b.dtype(x)))

    _register(lowering, name)


classify("torch.aten.isnan", tirx.isnan, False)
classify("torch.aten.isinf", tirx.isinf, False)
classify("torch.aten.isfinite", tirx.isfinite, True)
