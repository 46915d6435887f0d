"""Functions of the bits of a float, and of its size: ``frexp``, ``nextafter``, ``hypot``."""

from __future__ import annotations

from typing import TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.aten.libraries import SPECIAL_FUNCTIONS
from torch_tvm.lowering.builder import Builder, InLibrary
from torch_tvm.lowering.pointwise import larger, named, pointwise, smaller
from torch_tvm.lowering.polynomials import constants
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import FORMATS, compute_dtype

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def frexp(b: Builder, x: Tensor) -> list[Expr]:
    """aten::frexp.Tensor(Tensor self) -> (Tensor mantissa, Tensor exponent)"""
    dtype = compute_dtype(b.dtype(x))
    form = FORMATS[dtype]
    word, fraction, half = f"int{form.bits}", form.mantissa, form.bias - 1  # the exponent of a half
    large = 2.0 ** (fraction + 2)
    integer = lambda number: tirx.const(number, word)
    exponent_of = lambda u: tirx.bitwise_and(
        tirx.shift_right(tirx.reinterpret(word, u), integer(fraction)), integer(2 * half + 3)
    )

    def is_plain(u: Scalar) -> Scalar:
        return tirx.all(tirx.isfinite(u), tirx.any(u < constants(u)(0), u > constants(u)(0)))

    def normal(u: Scalar) -> Scalar:
        return tirx.Select(tirx.EQ(exponent_of(u), integer(0)), u * constants(u)(large), u)

    def mantissa(u: Scalar) -> Scalar:
        kept = integer(~((2 * half + 3) << fraction))
        bits = tirx.bitwise_and(tirx.reinterpret(word, normal(u)), kept)
        return tirx.Select(is_plain(u), tirx.reinterpret(dtype, tirx.bitwise_or(bits, integer(half << fraction))), u)

    def exponent(u: Scalar) -> Scalar:
        moved = tirx.Select(tirx.EQ(exponent_of(u), integer(0)), integer(half + fraction + 2), integer(half))
        found = exponent_of(normal(u)) - moved
        return tirx.Cast("int32", tirx.Select(is_plain(u), found, integer(0)))

    return [
        pointwise(b, mantissa, x, compute=dtype, result=b.dtype(x), name="mantissa"),
        pointwise(b, exponent, x, compute=dtype, result="int32", name="exponent"),
    ]


def nextafter(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::nextafter(Tensor self, Tensor other) -> Tensor"""
    dtype = b.result_dtype
    if dtype not in FORMATS:
        raise InLibrary(SPECIAL_FUNCTIONS)
    word = f"int{FORMATS[dtype].bits}"
    integer = lambda number: tirx.const(number, word)

    def body(u: Scalar, v: Scalar) -> Scalar:
        zero = constants(u)(0)
        grows = tirx.EQ(tirx.Cast("int32", u < v), tirx.Cast("int32", u > zero))
        step = tirx.Select(grows, integer(1), integer(-1))
        moved = tirx.reinterpret(dtype, tirx.reinterpret(word, u) + step)
        least = tirx.reinterpret(dtype, integer(1))
        moved = tirx.Select(tirx.EQ(u, zero), tirx.copysign(least, v), moved)
        moved = tirx.Select(tirx.EQ(u, v), v, moved)
        return tirx.Select(tirx.any(tirx.isnan(u), tirx.isnan(v)), u + v, moved)

    return pointwise(b, body, x, y)


def hypot(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::hypot(Tensor self, Tensor other) -> Tensor"""

    def body(x: Scalar, y: Scalar) -> Scalar:
        constant = constants(x)
        zero, one = constant(0), constant(1)

        def of_sizes(u: Scalar, v: Scalar) -> Scalar:
            length = lambda most: named(smaller(u, v) / most, lambda r: most * tirx.sqrt(one + r * r))
            value = named(larger(u, v), lambda most: tirx.Select(tirx.EQ(most, zero), most, length(most)))
            return tirx.Select(tirx.any(tirx.isinf(u), tirx.isinf(v)), tirx.infinity(str(u.ty.dtype)), value)

        return named(tirx.abs(x), lambda u: named(tirx.abs(y), lambda v: of_sizes(u, v)))

    return pointwise(b, body, x, y)


for _function, _overload in ((frexp, ".Tensor"), (nextafter, ""), (hypot, "")):
    register(f"torch.aten.{_function.__name__}{_overload}", _function, custom=True)
