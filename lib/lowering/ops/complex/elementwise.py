"""Arithmetic, functions and comparisons of complex tensors, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder, is_tensor
from torch_tvm.lowering.complex_parts import dense
from torch_tvm.lowering.conversion import differs, is_nan, same
from torch_tvm.lowering.ops.complex import numbers
from torch_tvm.lowering.ops.complex.numbers import Complex as Number
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Complex, Parts, Tensor, lowers_complex

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def elementwise(b: Builder, body: Callable[..., Number], *operands: Parts) -> Parts:
    """``body`` of the numbers at one place: a kernel for each part."""
    return Parts(*(_kernel(b, lambda *z, w=which: getattr(body(*z), w), *operands) for which in ("re", "im")))


def real_valued(b: Builder, body: Callable[..., Scalar], *operands: Parts, compute: str | None = None) -> Expr:
    """``body`` of the numbers at one place, a real or a truth value."""
    return _kernel(b, body, *operands, compute=compute)


def _kernel(b: Builder, body: Callable[..., Scalar], *operands: Parts, compute: str | None = None) -> Expr:
    flat = [part for z in operands for part in (z.re, z.im)]
    pairs = lambda scalars: [Number(*scalars[i : i + 2]) for i in range(0, len(scalars), 2)]
    return pointwise(b, lambda *scalars: body(*pairs(scalars)), *flat, compute=compute)


def part_dtype(b: Builder, *operands: Parts) -> str:
    """The dtype in which truth values of complex numbers are found: the widest of the parts."""
    found = {b.dtype(part) for z in operands for part in (z.re, z.im) if is_tensor(part)}
    return "float64" if "float64" in found else "float32"


def _in_steps(b: Builder, z: Parts, *steps: Callable[[Number], Number]) -> Parts:
    for step in steps:
        z = elementwise(b, step, z)
    return z


def _unary(name: str, *steps: Callable[[Number], Number]) -> None:
    def lowering(b: Builder, z: Complex) -> Parts:
        return _in_steps(b, z, *steps)

    lowering.__doc__ = f"aten::{name}(Tensor self) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


for _name, _function in numbers.FUNCTIONS.items():
    _unary(_name, _function)
for _name, _divisor in numbers.INVERSES.items():
    _unary(_name, _divisor, numbers.reciprocal)


def _rooted(b: Builder, z: Parts, name: str) -> Parts:
    root, function = numbers.ROOTED[name]
    return elementwise(b, function, z, elementwise(b, root, z), elementwise(b, numbers.root_above, z))


@lowers_complex("torch.aten.asin")
def asin(b: Builder, z: Complex) -> Parts:
    """aten::asin(Tensor self) -> Tensor"""
    return _rooted(b, z, "asin")


@lowers_complex("torch.aten.acos")
def acos(b: Builder, z: Complex) -> Parts:
    """aten::acos(Tensor self) -> Tensor"""
    return _rooted(b, z, "acos")


@lowers_complex("torch.aten.acosh")
def acosh(b: Builder, z: Complex) -> Parts:
    """aten::acosh(Tensor self) -> Tensor"""
    return _rooted(b, z, "acosh")


@lowers_complex("torch.aten.asinh")
def asinh(b: Builder, z: Complex) -> Parts:
    """aten::asinh(Tensor self) -> Tensor; ``-i * asin(i * z)``"""
    return _in_steps(b, _rooted(b, _in_steps(b, z, Number.turned), "asin"), Number.turned_back)


@lowers_complex("torch.aten.silu")
def silu(b: Builder, z: Complex) -> Parts:
    """aten::silu(Tensor self) -> Tensor"""
    share = _in_steps(b, z, numbers.INVERSES["sigmoid"], numbers.reciprocal)
    return elementwise(b, lambda u, v: u * v, z, share)


# -- arithmetic --------------------------------------------------------------------------------------------


def _add(b: Builder, x: Parts, y: Parts, alpha: Parts, sign: int = 1) -> Parts:
    """``x + sign * alpha * y``, a product of complex numbers also where ``alpha`` is 1, as ATen has it."""
    return elementwise(b, lambda u, v, w: u + (v * w).scaled(u.number(sign)), x, y, alpha)


@lowers_complex("torch.aten.add.Tensor", "torch.aten.add.Scalar")
def add(b: Builder, x: Complex, y: Complex, alpha: Complex) -> Parts:
    """aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return _add(b, x, y, alpha)


@lowers_complex("torch.aten.sub.Tensor", "torch.aten.sub.Scalar")
def sub(b: Builder, x: Complex, y: Complex, alpha: Complex) -> Parts:
    """aten::sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    return _add(b, x, y, alpha, -1)


@lowers_complex("torch.aten.rsub.Scalar")
def rsub(b: Builder, x: Complex, y: Complex, alpha: Complex) -> Parts:
    """aten::rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return _add(b, y, x, alpha, -1)


@lowers_complex("torch.aten.mul.Tensor", "torch.aten.mul.Scalar")
def mul(b: Builder, x: Complex, y: Complex) -> Parts:
    """aten::mul.Tensor(Tensor self, Tensor other) -> Tensor"""
    return elementwise(b, lambda u, v: u * v, x, y)


@lowers_complex("torch.aten.div.Tensor", "torch.aten.div.Scalar")
def div(b: Builder, x: Complex, y: Complex) -> Parts:
    """aten::div.Tensor(Tensor self, Tensor other) -> Tensor"""
    return elementwise(b, lambda u, v: u / v, x, y)


@lowers_complex("torch.aten.addcmul")
def addcmul(b: Builder, x: Complex, y: Complex, z: Complex, value: Complex) -> Parts:
    """aten::addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    return elementwise(b, lambda u, v, w, c: u + c * v * w, x, y, z, value)


@lowers_complex("torch.aten.addcdiv")
def addcdiv(b: Builder, x: Complex, y: Complex, z: Complex, value: Complex) -> Parts:
    """aten::addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    return elementwise(b, lambda u, v, w, c: u + c * v / w, x, y, z, value)


@lowers_complex("torch.aten.lerp.Tensor", "torch.aten.lerp.Scalar")
def lerp(b: Builder, start: Complex, end: Complex, weight: Complex) -> Parts:
    """aten::lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor; from the nearer end, as ATen's"""

    def body(u: Number, v: Number, w: Number) -> Number:
        way = v - u
        near = numbers.magnitude(w) < u.number(0.5)
        return numbers.chosen(near, u + w * way, v - way * (w.one() - w))

    return elementwise(b, body, start, end, weight)


@lowers_complex("torch.aten.logaddexp")
def logaddexp(b: Builder, x: Complex, y: Complex) -> Parts:
    """aten::logaddexp(Tensor self, Tensor other) -> Tensor"""
    low, high = elementwise(b, numbers.lesser, x, y), elementwise(b, numbers.greater, x, y)
    near = _in_steps(b, elementwise(b, lambda u, v: u - v, low, high), numbers.exp, numbers.log1p)
    total = elementwise(b, lambda u, v: numbers.exp(u) + numbers.exp(v), low, high)
    return elementwise(b, numbers.log_of_sum, x, y, low, high, near, _in_steps(b, total, numbers.log))


# -- powers ----------------------------------------------------------------------------------------------

_POWERS: dict[float, tuple[Callable[[Number], Number], ...]] = {
    0: (Number.one,),
    1: (lambda u: u,),
    2: (lambda u: u * u,),
    3: (lambda u: u * u * u,),
    0.5: (numbers.sqrt,),
    -0.5: (numbers.sqrt, numbers.reciprocal),
    -1: (numbers.reciprocal,),
    -2: (lambda u: u * u, numbers.reciprocal),
}


@lowers_complex("torch.aten.pow.Tensor_Scalar")
def pow_scalar(b: Builder, z: Complex, exponent: Complex) -> Parts:
    """aten::pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    steps = _POWERS.get(exponent.re) if exponent.im == 0 else None
    return pow_tensor(b, z, exponent) if steps is None else _in_steps(b, z, *steps)


@lowers_complex("torch.aten.pow.Tensor_Tensor", "torch.aten.pow.Scalar")
def pow_tensor(b: Builder, z: Complex, exponent: Complex) -> Parts:
    """aten::pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor; the power 0 of 0 is NaN, as ATen's"""
    logarithm = elementwise(b, numbers.log, z)
    return _in_steps(b, elementwise(b, numbers.product_of_c, exponent, logarithm), numbers.exp)


# -- real and truth values -----------------------------------------------------------------------------------


@lowers_complex("torch.aten.abs")
def abs_(b: Builder, z: Complex) -> Expr:
    """aten::abs(Tensor self) -> Tensor"""
    return real_valued(b, numbers.magnitude, z)


@lowers_complex("torch.aten.angle")
def angle(b: Builder, z: Complex) -> Expr:
    """aten::angle(Tensor self) -> Tensor"""
    return real_valued(b, numbers.angle, z)


def _truth(name: str, body: Callable[[Number], Scalar]) -> None:
    def lowering(b: Builder, z: Complex) -> Expr:
        return real_valued(b, body, z, compute=part_dtype(b, z))

    lowering.__doc__ = f"aten::{name}(Tensor self) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


def _is_true(z: Number) -> Scalar:
    zero = z.number(0)
    return tirx.any(differs(z.re, zero), differs(z.im, zero))


_truth("isnan", lambda z: tirx.any(is_nan(z.re), is_nan(z.im)))
_truth("isinf", lambda z: tirx.any(tirx.isinf(z.re), tirx.isinf(z.im)))
_truth("isfinite", lambda z: tirx.all(tirx.isfinite(z.re), tirx.isfinite(z.im)))
_truth("logical_not", lambda z: tirx.Not(_is_true(z)))


def _comparison(name: str, body: Callable[[Number, Number], Scalar]) -> None:
    def lowering(b: Builder, x: Complex, y: Complex) -> Expr:
        return real_valued(b, body, x, y, compute=part_dtype(b, x, y))

    lowering.__doc__ = f"aten::{name}(Tensor self, Tensor other) -> Tensor"
    lowers_complex(f"torch.aten.{name}")(lowering)


for _suffix in ("Tensor", "Scalar"):
    _comparison(f"eq.{_suffix}", lambda u, v: tirx.all(same(u.re, v.re), same(u.im, v.im)))
    _comparison(f"ne.{_suffix}", lambda u, v: tirx.any(differs(u.re, v.re), differs(u.im, v.im)))

_comparison("logical_and", lambda u, v: tirx.all(_is_true(u), _is_true(v)))
_comparison("logical_or", lambda u, v: tirx.any(_is_true(u), _is_true(v)))
_comparison("logical_xor", lambda u, v: differs(_is_true(u), _is_true(v)))


def truth_of(b: Builder, z: Parts) -> Expr:
    """Where a complex tensor is not zero."""
    return pointwise(
        b,
        lambda re, im: _is_true(Number(re, im)),
        z.re,
        z.im,
        compute=part_dtype(b, z),
        result="bool",
        name="truth",
    )


# -- choices -----------------------------------------------------------------------------------------------


def _where(b: Builder, condition: Expr, x: Parts, y: Parts) -> Parts:
    def half(u: Any, v: Any) -> Expr:
        choose = lambda c, p, q: tirx.Select(differs(c, tirx.const(0, str(c.ty.dtype))), p, q)
        return pointwise(b, choose, condition, u, v)

    x, y = (dense(b, z) if is_tensor(z.re) else z for z in (x, y))
    return Parts(half(x.re, y.re), half(x.im, y.im))


@lowers_complex("torch.aten.where.ScalarOther", "torch.aten.where.ScalarSelf", "torch.aten.where.Scalar")
def where(b: Builder, condition: Tensor, x: Complex, y: Complex) -> Parts:
    """aten::where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor"""
    return _where(b, condition, x, y)


@lowers_complex("torch.aten.masked_fill.Scalar")
def masked_fill(b: Builder, z: Complex, mask: Tensor, value: Complex) -> Parts:
    """aten::masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return _where(b, mask, value, z)


__all__ = ["elementwise", "real_valued", "truth_of"]
