"""Activation functions, each kept whole so that it fuses as one epilogue."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder, is_tensor
from torch_tvm.lowering.pointwise import kept, libm, pointwise, rounded_operands, times
from torch_tvm.lowering.registry import Number, Tensor, lowers
from torch_tvm.tir import HALF, as_size, is_float

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def _c(value: float, like: Scalar) -> Scalar:
    return tirx.const(value, str(like.ty.dtype))


def at_least(u: Scalar, low: Scalar) -> Scalar:
    """``max(u, low)``; NaN stays."""
    return tirx.Select(u < low, low, u)


def at_most(u: Scalar, high: Scalar) -> Scalar:
    """``min(u, high)``; NaN stays."""
    return tirx.Select(u > high, high, u)


def _limit(u: Scalar, low: float, high: float) -> Scalar:
    return at_most(at_least(u, _c(low, u)), _c(high, u))


def _sigmoid(u: Scalar) -> Scalar:
    return _c(1, u) / (_c(1, u) + tirx.exp(-u))


def _expm1(u: Scalar) -> Scalar:
    return libm("expm1", u)


@lowers("torch.aten.relu")
def relu(b: Builder, x: Tensor) -> Expr:
    """aten::relu(Tensor self) -> Tensor"""
    return pointwise(b, lambda u: at_least(u, _c(0, u)), x)


@lowers("torch.aten.relu6")
def relu6(b: Builder, x: Tensor) -> Expr:
    """aten::relu6(Tensor self) -> Tensor"""
    return pointwise(b, lambda u: _limit(u, 0, 6), x)


@lowers("torch.aten.hardtanh")
def hardtanh(b: Builder, x: Tensor, min_val: Number, max_val: Number) -> Expr:
    """aten::hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor"""
    return pointwise(b, lambda u: _limit(u, min_val, max_val), x)


@lowers("torch.aten.leaky_relu")
def leaky_relu(b: Builder, x: Tensor, negative_slope: Number) -> Expr:
    """aten::leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor"""
    return pointwise(b, lambda u: tirx.Select(u > _c(0, u), u, times(u, _c(negative_slope, u))), x)


@lowers("torch.aten.prelu")
def prelu(b: Builder, x: Tensor, weight: Tensor) -> Expr:
    """aten::prelu(Tensor self, Tensor weight) -> Tensor; ``weight`` has one element or one a channel (dim 1)."""
    rank = b.rank(x)
    if b.rank(weight) == 1 and rank > 1:
        count, channels = b.shape(weight)[0], b.shape(x)[1]
        if count != 1 and not (isinstance(count, int) and isinstance(channels, int)):
            fits = tirx.any(as_size(count) == 1, tirx.EQ(as_size(count), as_size(channels)))
            b.expect(fits, "there are not as many weights as channels")
    if b.rank(weight) == 1 and rank > 2:
        weight = b.reshape(weight, [b.shape(weight)[0], *[1] * (rank - 2)])
    elif b.rank(weight) == 1 and rank == 0:
        weight = b.reshape(weight, [])
    return pointwise(b, lambda u, w: tirx.Select(u > _c(0, u), u, u * w), x, weight)


@lowers("torch.aten.elu")
def elu(b: Builder, x: Tensor, alpha: Number, scale: Number, input_scale: Number) -> Expr:
    """aten::elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor"""

    def body(u: Scalar) -> Scalar:
        negative = times(_expm1(u * _c(input_scale, u)), _c(alpha * scale, u))
        return tirx.Select(u <= _c(0, u), negative, u * _c(scale, u))

    return pointwise(b, body, x)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


@lowers("torch.aten.selu")
def selu(b: Builder, x: Tensor) -> Expr:
    """aten::selu(Tensor self) -> Tensor"""
    return elu(b, x, _SELU_ALPHA, _SELU_SCALE, 1.0)


@lowers("torch.aten.celu")
def celu(b: Builder, x: Tensor, alpha: Number) -> Expr:
    """aten::celu(Tensor self, Scalar alpha=1.0) -> Tensor"""
    return elu(b, x, alpha, 1.0, 1.0 / alpha)


@lowers("torch.aten.gelu")
def gelu(b: Builder, x: Tensor, approximate: str) -> Expr:
    """aten::gelu(Tensor self, *, str approximate='none') -> Tensor"""
    if approximate not in ("none", "tanh"):
        b.unsupported(f"gelu approximated by '{approximate}'")
    op = R.nn.gelu if approximate == "none" else R.nn.gelu_tanh
    if b.result_dtype == "float32":
        return b.emit(op(x))
    return pointwise(b, _gelu if approximate == "none" else _gelu_tanh, x)


def _gelu(u: Scalar) -> Scalar:
    return _c(0.5, u) * u * (_c(1, u) + tirx.erf(u * _c(math.sqrt(0.5), u)))


def _gelu_tanh(u: Scalar) -> Scalar:
    inner = _c(math.sqrt(2 / math.pi), u) * (u + _c(0.044715, u) * u * u * u)
    return _c(0.5, u) * u * (_c(1, u) + tirx.tanh(inner))


@lowers("torch.aten.silu")
def silu(b: Builder, x: Tensor) -> Expr:
    """aten::silu(Tensor self) -> Tensor"""
    if b.result_dtype in HALF:
        return pointwise(b, lambda u: u * _sigmoid(u), x)
    return b.emit(R.nn.silu(x))


@lowers("torch.aten.mish")
def mish(b: Builder, x: Tensor) -> Expr:
    """aten::mish(Tensor self) -> Tensor"""
    return pointwise(b, lambda u: u * tirx.tanh(libm("log1p", tirx.exp(u))), x)


@lowers("torch.aten.hardswish")
def hardswish(b: Builder, x: Tensor) -> Expr:
    """aten::hardswish(Tensor self) -> Tensor"""
    return pointwise(b, lambda u: u * _limit(u + _c(3, u), 0, 6) / _c(6, u), x)


@lowers("torch.aten.hardsigmoid")
def hardsigmoid(b: Builder, x: Tensor) -> Expr:
    """aten::hardsigmoid(Tensor self) -> Tensor"""
    return pointwise(b, lambda u: _limit(u + _c(3, u), 0, 6) / _c(6, u), x)


@lowers("torch.aten.softplus")
def softplus(b: Builder, x: Tensor, beta: Number, threshold: Number) -> Expr:
    """aten::softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor"""

    def body(u: Scalar) -> Scalar:
        scaled = times(u, _c(beta, u))
        return tirx.Select(scaled > _c(threshold, u), u, libm("log1p", tirx.exp(scaled)) / kept(_c(beta, u)))

    return pointwise(b, body, x)


@lowers("torch.aten.log_sigmoid")
def log_sigmoid(b: Builder, x: Tensor) -> Expr:
    """aten::log_sigmoid(Tensor self) -> Tensor"""
    return pointwise(b, lambda u: at_most(u, _c(0, u)) - libm("log1p", tirx.exp(-tirx.abs(u))), x)


@lowers("torch.aten.threshold")
def threshold(b: Builder, x: Tensor, threshold: Number, value: Number) -> Expr:
    """aten::threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor"""
    return pointwise(b, lambda u: tirx.Select(u <= _c(threshold, u), _c(value, u), u), x)


@lowers("torch.aten.hardshrink")
def hardshrink(b: Builder, x: Tensor, lambd: Number) -> Expr:
    """aten::hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor"""
    (lambd,) = rounded_operands(b, b.result_dtype, lambd)

    def body(u: Scalar) -> Scalar:
        return tirx.Select(tirx.all(u >= _c(-lambd, u), u <= _c(lambd, u)), _c(0, u), u)

    return pointwise(b, body, x)


@lowers("torch.aten.softshrink")
def softshrink(b: Builder, x: Tensor, lambd: Number) -> Expr:
    """aten::softshrink(Tensor self, Scalar lambd=0.5) -> Tensor"""

    def body(u: Scalar) -> Scalar:
        low, high = _c(-lambd, u), _c(lambd, u)
        middle = tirx.Select(u < low, u + high, times(u, _c(0, u)))
        return tirx.Select(u > high, u - high, middle)

    return pointwise(b, body, x)


@lowers("torch.aten.glu")
def glu(b: Builder, x: Tensor, dim: int) -> Expr:
    """aten::glu(Tensor self, int dim=-1) -> Tensor"""
    axis = b.axis(dim, b.rank(x))
    size = b.shape(x)[axis]
    if not isinstance(size, int):
        b.unsupported("glu over a symbolic size")
    left, right = (
        b.emit(R.strided_slice(x, axes=[axis], begin=[begin], end=[begin + size // 2])) for begin in (0, size // 2)
    )
    return pointwise(b, lambda u, v: u * _sigmoid(v), left, right)


# -- limits given as operands ----------------------------------------------------------------------------


def _clamped(b: Builder, x: Expr, low: Any, high: Any) -> Expr:
    bounds = [bound for bound in (low, high) if bound is not None]
    if any(isinstance(bound, float) and math.isnan(bound) for bound in bounds):
        return pointwise(b, lambda u: tirx.const(math.nan, str(u.ty.dtype)), x)

    def body(u: Scalar, *limits: Scalar) -> Scalar:
        remaining = iter(limits)
        if low is not None:
            limit = next(remaining)
            u = _bounded(u, limit, u > limit) if is_tensor(low) else at_least(u, limit)
        if high is not None:
            limit = next(remaining)
            u = _bounded(u, limit, u < limit) if is_tensor(high) else at_most(u, limit)
        return u

    if b.result_dtype != "bool":
        return pointwise(b, body, x, *bounds)
    return pointwise(b, lambda *v: body(*(item.astype("int8") for item in v)).astype("bool"), x, *bounds)


def _bounded(u: Scalar, limit: Scalar, is_inside: Scalar) -> Scalar:
    """``u`` where it is inside or NaN, else the limit of a tensor, also where that is NaN or as large."""
    if is_float(str(u.ty.dtype)):
        is_inside = tirx.any(is_inside, tirx.isnan(u))
    return tirx.Select(is_inside, u, limit)


@lowers("torch.aten.clamp", "torch.aten.clamp.Tensor")
def clamp(b: Builder, x: Tensor, low: Any, high: Any) -> Expr:
    """aten::clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    return _clamped(b, x, low, high)


@lowers("torch.aten.clamp_min", "torch.aten.clamp_min.Tensor")
def clamp_min(b: Builder, x: Tensor, low: Any) -> Expr:
    """aten::clamp_min(Tensor self, Scalar min) -> Tensor"""
    return _clamped(b, x, low, None)


@lowers("torch.aten.clamp_max", "torch.aten.clamp_max.Tensor")
def clamp_max(b: Builder, x: Tensor, high: Any) -> Expr:
    """aten::clamp_max(Tensor self, Scalar max) -> Tensor"""
    return _clamped(b, x, None, high)
