"""Arithmetic of two tensors, or of a tensor and a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering import wrapping
from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor, plain_size
from torch_tvm.lowering.conversion import held, power
from torch_tvm.lowering.ops.elementwise.integers import integer_power
from torch_tvm.lowering.pointwise import (
    agree,
    kept,
    larger,
    libm,
    named,
    number,
    pointwise,
    rounded_operands,
    smaller,
    times,
)
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.tir import HALF, compute_dtype, is_float, is_integer, product

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def relax_binary(
    b: Builder,
    relax_op: Callable[[Expr, Expr], Expr],
    body: Callable[[Scalar, Scalar], Scalar],
    x: Any,
    y: Any,
) -> Expr:
    """A Relax op where it computes in the result's dtype, one kernel for the half types."""
    dtype = b.result_dtype
    if dtype in HALF or not (is_tensor(x) or is_tensor(y)):
        return pointwise(b, body, x, y)
    tensors = iter(agree(b, [b.cast(v, dtype) for v in (x, y) if is_tensor(v)]))
    left, right = (next(tensors) if is_tensor(v) else b.tensor(v, dtype) for v in (x, y))
    return b.emit(relax_op(left, right))


def _arithmetic(
    b: Builder,
    relax_op: Callable[[Expr, Expr], Expr],
    body: Callable[[Scalar, Scalar], Scalar],
    wrapping_body: Callable[[Scalar, Scalar], Scalar],
    x: Any,
    y: Any,
) -> Expr:
    """:func:`relax_binary`, by ``wrapping_body`` where the numbers may overflow."""
    if wrapping.may_overflow(b.result_dtype):
        return pointwise(b, wrapping_body, x, y)
    return relax_binary(b, relax_op, body, x, y)


# -- sums ----------------------------------------------------------------------------------------------


def _scaled(b: Builder, x: Any, alpha: Any) -> Any:
    """``alpha * x`` in the dtype that the result is computed in; ``x`` itself when alpha is 1."""
    x, alpha = rounded_operands(b, b.result_dtype, x, alpha)
    if not is_tensor(alpha) and not is_symbolic(alpha) and alpha == 1:
        return x
    dtype = compute_dtype(b.result_dtype)
    body = wrapping.product if wrapping.may_overflow(dtype) else times
    return pointwise(b, body, x, alpha, result=dtype, name="scale")


@lowers("torch.aten.add.Tensor", "torch.aten.add.Scalar")
def add(b: Builder, x: Tensor, y: Any, alpha: Any) -> Expr:
    """aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    if b.result_dtype == "bool":
        return pointwise(b, lambda u, v, a: tirx.any(u, tirx.all(v, a)), x, y, alpha)
    if is_float(b.result_dtype) and _is_zero(y) and math.copysign(1.0, _value(y)) > 0:
        return pointwise(b, lambda u: u + kept(tirx.const(0, str(u.ty.dtype))), x)
    (x,) = rounded_operands(b, b.result_dtype, x)
    return _arithmetic(b, R.add, lambda u, v: u + v, wrapping.plus, x, _scaled(b, y, alpha))


def fma(b: Builder, x: Any, y: Any, z: Any) -> Expr:
    """prims::fma(Tensor a, Tensor b, Tensor c) -> Tensor"""
    return pointwise(b, lambda u, v, w: times(u, v) + w, x, y, z)


register("torch.prims.fma", fma, custom=True)


@lowers("torch.aten.sub.Tensor", "torch.aten.sub.Scalar")
def sub(b: Builder, x: Tensor, y: Any, alpha: Any) -> Expr:
    """aten::sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    if is_float(b.result_dtype) and _is_zero(y):
        return pointwise(b, lambda u, v, a: u - kept(v * a), x, y, alpha)
    (x,) = rounded_operands(b, b.result_dtype, x)
    return _arithmetic(b, R.subtract, lambda u, v: u - v, wrapping.minus, x, _scaled(b, y, alpha))


@lowers("torch.aten.rsub.Scalar")
def rsub(b: Builder, x: Tensor, y: Any, alpha: Any) -> Expr:
    """aten::rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    (y,) = rounded_operands(b, b.result_dtype, y)
    return _arithmetic(b, R.subtract, lambda u, v: u - v, wrapping.minus, y, _scaled(b, x, alpha))


@lowers("torch.aten.mul.Tensor", "torch.aten.mul.Scalar")
def mul(b: Builder, x: Tensor, y: Any) -> Expr:
    """aten::mul.Tensor(Tensor self, Tensor other) -> Tensor"""
    if b.result_dtype == "bool":
        return pointwise(b, tirx.all, x, y)
    if is_float(b.result_dtype):
        for factor, other in ((x, y), (y, x)):
            if _is_zero(factor) and is_tensor(other):
                return pointwise(b, times, other, _value(factor))
    return _arithmetic(b, R.multiply, times, wrapping.product, _factor(b, x), _factor(b, y))


def _factor(b: Builder, value: Any) -> Any:
    """A number, be it a tensor, as it is; other tensors in the result's dtype."""
    is_number = not is_tensor(value) or b.rank(value) == 0
    return value if is_number else rounded_operands(b, b.result_dtype, value)[0]


def _is_zero(value: Any) -> bool:
    if isinstance(value, tvm.ir.GenericConst) and value.value.shape != ():
        return False
    return isinstance(value, (bool, int, float, tvm.ir.GenericConst)) and _value(value) == 0


def _value(value: Any) -> float:
    """The number that a constant without dimensions, or a Python number, is."""
    return float(value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else value)


# -- quotients -----------------------------------------------------------------------------------------


@lowers("torch.aten.div.Tensor", "torch.aten.div.Scalar")
def div(b: Builder, x: Tensor, y: Any) -> Expr:
    """aten::div.Tensor(Tensor self, Tensor other) -> Tensor"""
    if isinstance(y, (bool, int, float)) and y == 0:
        return pointwise(b, lambda u, v: u * v, x, math.copysign(math.inf, y))
    return relax_binary(b, R.divide, lambda u, v: u / v, *_quotient_operands(b, x, y))


def _quotient_operands(b: Builder, x: Any, y: Any) -> list[Any]:
    return [*rounded_operands(b, b.result_dtype, x), _factor(b, y)]


@lowers("torch.aten.div.Tensor_mode", "torch.aten.div.Scalar_mode")
def div_mode(b: Builder, x: Tensor, y: Any, rounding_mode: str | None) -> Expr:
    """aten::div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor"""
    if rounding_mode is None:
        return div(b, x, y)
    if rounding_mode not in ("floor", "trunc"):
        b.unsupported(f"rounding mode '{rounding_mode}'")
    if rounding_mode == "floor":
        return floor_divide(b, x, y)
    if is_float(b.result_dtype):
        return pointwise(b, lambda u, v: tirx.trunc(u / kept(v)), *_quotient_operands(b, x, y))
    return _integer_quotient(b, tirx.truncdiv, x, y)


@lowers("torch.aten.floor_divide", "torch.aten.floor_divide.Scalar")
def floor_divide(b: Builder, x: Tensor, y: Any) -> Expr:
    """aten::floor_divide(Tensor self, Tensor other) -> Tensor"""
    if is_float(b.result_dtype):
        return pointwise(b, _float_floor_divide, *_quotient_operands(b, x, y))
    return _integer_quotient(b, tirx.floordiv, x, y)


@lowers("torch.aten.remainder.Tensor", "torch.aten.remainder.Scalar")
def remainder(b: Builder, x: Any, y: Any) -> Expr:
    """aten::remainder.Tensor(Tensor self, Tensor other) -> Tensor"""
    if is_float(b.result_dtype):
        return pointwise(b, _float_remainder, *rounded_operands(b, b.result_dtype, x, y))
    return _integer_quotient(b, tirx.floormod, x, y)


@lowers("torch.aten.fmod.Tensor", "torch.aten.fmod.Scalar")
def fmod(b: Builder, x: Tensor, y: Any) -> Expr:
    """aten::fmod.Tensor(Tensor self, Tensor other) -> Tensor"""
    if is_float(b.result_dtype):
        return pointwise(b, lambda u, v: libm("fmod", u, v), *rounded_operands(b, b.result_dtype, x, y))
    return _integer_quotient(b, tirx.truncmod, x, y)


def _integer_quotient(b: Builder, op: Callable[[Scalar, Scalar], Scalar], x: Any, y: Any) -> Expr:
    """An integer division; ``-1`` is spelled out because the smallest integer / -1 traps."""
    if b.result_dtype == "bool":
        b.unsupported("a division of booleans")
    if not isinstance(y, (bool, int)):
        return _quotient_of_values(b, op, x, y)
    y = held(y, b.result_dtype)
    if y == 0:
        b.unsupported("an integer division by zero, which ATen reports as an error")
    if y == -1:
        is_quotient = op in (tirx.floordiv, tirx.truncdiv)
        return pointwise(b, lambda u: -u if is_quotient else u - u, x)
    return pointwise(b, lambda u, v: op(_chosen(u), v), x, y)


def _quotient_of_values(b: Builder, op: Callable[[Scalar, Scalar], Scalar], x: Any, y: Any) -> Expr:
    """An integer division by what only the run knows: a zero is an error then."""
    dtype = b.result_dtype
    y = b.tensor(y, dtype)
    has_elements = not is_tensor(x) or all(size != 0 for size in map(plain_size, b.shape(x)))
    if has_elements:
        b.check(_without_zeros(b, y), "ZeroDivisionError")
    one, is_signed = tirx.const(1, dtype), not dtype.startswith("u")

    def quotient(u: Scalar, v: Scalar) -> Scalar:
        traps = tirx.EQ(v, number(-1, dtype)) if is_signed else tirx.const(False, "bool")
        found = op(_chosen(u), tirx.Select(tirx.any(tirx.EQ(v, number(0, dtype)), traps), one, v))
        if not is_signed:
            return found
        return tirx.Select(traps, -u if op in (tirx.floordiv, tirx.truncdiv) else u - u, found)

    return pointwise(b, quotient, x, y)


def _without_zeros(b: Builder, y: Expr) -> Expr:
    """Whether no element is 0, as a 0-d bool."""
    count = product(b.shape(y))

    def body(values: te.Tensor) -> te.Tensor:
        axis = te.reduce_axis((0, values.shape[0]), "i")
        is_zero = lambda i: tirx.Cast("int64", tirx.EQ(values(i), number(0, b.dtype(y))))
        zeros = te.compute((), lambda: te.sum(is_zero(axis), axis=[axis]), name="zeros")
        return te.compute((), lambda: tirx.EQ(zeros(), tirx.const(0, "int64")), name="divisor")

    return b.te(body, b.reshape(y, [count]), name="divisor")


def _chosen(u: Scalar) -> Scalar:
    """A number made of a bool as a choice: TVM cannot divide a vector of the former."""
    if not isinstance(u, tirx.Cast) or u.value.ty.dtype != "bool":
        return u
    one, zero = (tirx.const(value, str(u.ty.dtype)) for value in (1, 0))
    return tirx.Select(u.value, one, zero)


def _float_remainder(u: Scalar, v: Scalar) -> Scalar:
    zero = tirx.const(0, str(u.ty.dtype))
    rest = libm("fmod", u, v)
    opposite = tirx.any(tirx.all(rest < zero, v > zero), tirx.all(rest > zero, v < zero))
    return tirx.Select(opposite, rest + v, rest)


def _float_floor_divide(u: Scalar, v: Scalar) -> Scalar:
    """ATen's ``div_floor_floating`` (c10/util/generic_math.h)."""
    dtype, v = str(u.ty.dtype), kept(v)
    zero, one, half = (tirx.const(value, dtype) for value in (0, 1, 0.5))
    rest = libm("fmod", u, v)
    quotient = (u - rest) / v
    opposite = tirx.any(tirx.all(rest < zero, v > zero), tirx.all(rest > zero, v < zero))
    quotient = tirx.Select(opposite, quotient - one, quotient)
    floor = tirx.floor(quotient)
    floor = tirx.Select(quotient - floor > half, floor + one, floor)
    signed_zero = tirx.copysign(zero, u / v)
    return tirx.Select(v == zero, u / v, tirx.Select(quotient == zero, signed_zero, floor))


# -- powers ----------------------------------------------------------------------------------------------

_SMALL_POWER = 64


@lowers("torch.aten.pow.Tensor_Scalar")
def pow_tensor_scalar(b: Builder, x: Tensor, exponent: Any) -> Expr:
    """aten::pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    dtype = b.result_dtype
    if not isinstance(exponent, (bool, int, float)):
        if is_integer(dtype):
            b.check(_is_natural(b, exponent), "Integers to negative integer powers are not allowed.")
        return pow_tensor_tensor(b, x, exponent)
    if is_integer(dtype):
        if not 0 <= exponent <= _SMALL_POWER:
            b.unsupported(f"an integer to the power {exponent}")
        return pointwise(b, lambda u: _integer_power(u, int(exponent)), x)
    if dtype == "bool":
        b.unsupported("a power of booleans")
    if exponent == 0.5 and dtype not in HALF:
        return b.emit(R.sqrt(b.cast(x, dtype)))
    if exponent == 2 and dtype not in HALF:
        value = b.cast(x, dtype)
        return b.emit(R.multiply(value, value))
    (exponent,) = rounded_operands(b, dtype, exponent)
    special = _FLOAT_POWERS.get(float(exponent))
    if dtype == "float16" and exponent in _ROOTS:
        special = _ROOTS[exponent]
    return pointwise(b, special, x) if special else pointwise(b, power, x, exponent)


def _is_natural(b: Builder, number: Expr) -> Expr:
    """Whether an integer of the running program is not negative: an expression, or a 0-d tensor for one."""
    if is_symbolic(number):
        return number >= 0
    kernel = lambda x: te.compute((), lambda: x() >= tirx.const(0, x.dtype), name="compute")
    return b.te(kernel, b.reshape(number, []), name="natural")


_FLOAT_POWERS: dict[float, Callable[[Scalar], Scalar]] = {
    0.0: lambda u: tirx.const(1, str(u.ty.dtype)),
    0.5: tirx.sqrt,
    1.0: lambda u: u,
    2.0: lambda u: u * u,
    3.0: lambda u: u * u * u,
    -0.5: lambda u: tirx.const(1, str(u.ty.dtype)) / tirx.sqrt(u),
    -1.0: lambda u: tirx.const(1, str(u.ty.dtype)) / u,
    -2.0: lambda u: tirx.const(1, str(u.ty.dtype)) / (u * u),
}


def _root(u: Scalar) -> Scalar:
    """``u ** 0.5`` as C has it: zeros and infinities lose their sign."""
    return tirx.Select(tirx.any(u == tirx.const(0, str(u.ty.dtype)), tirx.isinf(u)), tirx.abs(u), tirx.sqrt(u))


_ROOTS: dict[float, Callable[[Scalar], Scalar]] = {
    0.5: _root,
    -0.5: lambda u: tirx.const(1, str(u.ty.dtype)) / _root(u),
}
"""Where ATen calls C's function for float16; for all others it takes a root."""


def _integer_power(u: Scalar, exponent: int) -> Scalar:
    if exponent < 2:
        return u if exponent else tirx.const(1, str(u.ty.dtype))
    square = named(_integer_power(u, exponent // 2), lambda root: wrapping.product(root, root))
    return named(square, lambda even: wrapping.product(even, u)) if exponent % 2 else square


@lowers("torch.aten.pow.Tensor_Tensor", "torch.aten.pow.Scalar")
def pow_tensor_tensor(b: Builder, x: Any, exponent: Any) -> Expr:
    """aten::pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor"""
    if b.result_dtype == "bool":
        b.unsupported("a power of booleans")
    if not is_float(b.result_dtype):
        return integer_power(b, x, exponent)
    return pointwise(b, power, *rounded_operands(b, b.result_dtype, x, exponent))


# -- choices and the rest ------------------------------------------------------------------------------


def binary(name: str, body: Callable[[Scalar, Scalar], Scalar], *, custom: bool = False) -> None:
    """A look-alike: one kernel, computed in the dtype that ATen computes the result in."""

    def lowering(b: Builder, x: Any, y: Any) -> Expr:
        return pointwise(b, body, *rounded_operands(b, b.result_dtype, x, y))

    lowering.__doc__ = f"{name}(Tensor self, Tensor other) -> Tensor"
    register(name, lowering, custom=custom)


def _ignoring_nan(
    pick: Callable[[Scalar, Scalar], Scalar], comes_first: Callable[[Scalar, Scalar], Scalar]
) -> Callable[[Scalar, Scalar], Scalar]:
    """``pick`` that gives the other operand where one is NaN, and the first of equals."""

    def body(u: Scalar, v: Scalar) -> Scalar:
        if not is_float(str(u.ty.dtype)):
            return pick(u, v)
        return tirx.Select(tirx.any(tirx.isnan(v), comes_first(u, v)), u, v)

    return body


def log_add_exp(u: Scalar, v: Scalar) -> Scalar:
    """``log(exp(u) + exp(v))`` from the larger one; equal infinities stay what they are."""
    top, bottom = larger(u, v), smaller(u, v)
    return tirx.Select(tirx.all(tirx.isinf(u), u == v), u, top + libm("log1p", tirx.exp(bottom - top)))


def _xlogy(u: Scalar, v: Scalar) -> Scalar:
    zero = tirx.const(0, str(u.ty.dtype))
    return tirx.Select(tirx.isnan(v), v, tirx.Select(u == zero, zero, u * tirx.log(v)))


def _xlog1py(u: Scalar, v: Scalar) -> Scalar:
    zero = tirx.const(0, str(u.ty.dtype))
    return tirx.Select(tirx.isnan(v), v, tirx.Select(u == zero, zero, u * libm("log1p", v)))


binary("torch.aten.maximum", larger)
binary("torch.aten.minimum", smaller)
binary("torch.aten.fmax", _ignoring_nan(larger, lambda u, v: u >= v))
binary("torch.aten.fmin", _ignoring_nan(smaller, lambda u, v: u <= v))
binary("torch.aten.atan2", lambda u, v: libm("atan2", u, v))
binary("torch.aten.copysign.Tensor", tirx.copysign)
binary("torch.aten.logaddexp", log_add_exp)
binary("torch.aten.xlogy.Tensor", _xlogy)
binary("torch.aten.xlogy.Scalar_Self", _xlogy, custom=True)
binary("torch.aten.xlogy.Scalar_Other", _xlogy, custom=True)
for _overload in ("", ".self_scalar", ".other_scalar"):
    binary(f"torch.aten.special_xlog1py{_overload}", _xlog1py, custom=True)


@lowers("torch.aten.ldexp.Tensor")
def ldexp(b: Builder, x: Tensor, exponent: Tensor) -> Expr:
    """aten::ldexp.Tensor(Tensor self, Tensor other) -> Tensor

    ``other`` holds integers; ``2 ** other`` alone may be infinite.
    """

    def body(u: Scalar, v: Scalar) -> Scalar:
        limit = lambda number: tirx.const(number, str(v.ty.dtype))
        bounded = tirx.Cast("int32", tirx.max(tirx.min(v, limit(_LONGEST)), limit(-_LONGEST)))
        return libm("ldexp", u, bounded)

    return pointwise(b, body, x, exponent)


_LONGEST = 4096  # beyond all exponents


@lowers("torch.aten.heaviside")
def heaviside(b: Builder, x: Tensor, values: Tensor) -> Expr:
    """aten::heaviside(Tensor self, Tensor values) -> Tensor"""

    def body(u: Scalar, v: Scalar) -> Scalar:
        dtype = str(u.ty.dtype)
        zero = tirx.const(0, dtype)
        return tirx.Select(u == zero, v, tirx.Select(u > zero, tirx.const(1, dtype), zero))

    return pointwise(b, body, x, values, compute="uint8" if b.result_dtype == "bool" else None)
