"""Complex tensors from real ones and back: views, conversions, creation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder, is_tensor
from torch_tvm.lowering.complex_parts import dense, parts_of, together
from torch_tvm.lowering.ops.complex import numbers
from torch_tvm.lowering.ops.complex.elementwise import elementwise, truth_of
from torch_tvm.lowering.ops.complex.numbers import Complex as Number
from torch_tvm.lowering.ops.elementwise.casts import converted
from torch_tvm.lowering.ops.shapes import creation
from torch_tvm.lowering.ops.shapes.creation import filled
from torch_tvm.lowering.ops.shapes.padding import constant_pad_nd
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Complex, Parts, Size, Tensor, lowers_complex

R = relax.op
Expr: TypeAlias = relax.Expr


# -- views ---------------------------------------------------------------------------------------------------


@lowers_complex("torch.aten.view_as_real")
def view_as_real(b: Builder, z: Complex) -> Expr:
    """aten::view_as_real(Tensor(a) self) -> Tensor(a)"""
    return together(b, z)


@lowers_complex("torch.aten.view_as_complex")
def view_as_complex(b: Builder, x: Tensor) -> Parts:
    """aten::view_as_complex(Tensor(a) self) -> Tensor(a)"""
    return parts_of(b, x)


@lowers_complex("torch.aten.real")
def real(b: Builder, z: Complex) -> Expr:
    """aten::real(Tensor(a) self) -> Tensor(a)"""
    return z.re


@lowers_complex("torch.aten.imag")
def imag(b: Builder, z: Complex) -> Expr:
    """aten::imag(Tensor(a) self) -> Tensor(a)"""
    return dense(b, z).im


@lowers_complex("torch.aten.complex")
def complex_(b: Builder, re: Tensor, im: Tensor) -> Parts:
    """aten::complex(Tensor real, Tensor imag) -> Tensor"""
    return Parts(*(pointwise(b, lambda u, v, w=w: (u, v)[w], re, im) for w in (0, 1)))


@lowers_complex("torch.aten.polar")
def polar(b: Builder, length: Tensor, angle: Tensor) -> Parts:
    """aten::polar(Tensor abs, Tensor angle) -> Tensor"""
    return Parts(*(pointwise(b, lambda u, v, f=f: u * f(v), length, angle) for f in (tirx.cos, tirx.sin)))


@lowers_complex("torch.aten._conj")
def conj(b: Builder, z: Complex) -> Parts:
    """aten::_conj(Tensor(a) self) -> Tensor(a)"""
    return Parts(z.re, pointwise(b, lambda u: -u, dense(b, z).im, name="negative"))


# -- conversions ---------------------------------------------------------------------------------------------


@lowers_complex("torch.aten.to.dtype")
def to_dtype(b: Builder, z: Any, dtype: Any, non_blocking: Any, copy: Any, memory_format: Any) -> Any:
    """aten::to.dtype(Tensor self, ScalarType dtype, …) -> Tensor; a complex number as a real one is its real part"""
    if not isinstance(z, Parts):
        return Parts(converted(b, z), 0)
    if b.result_dtype == "bool":
        return truth_of(b, z)
    if not is_complex_code(dtype):
        return converted(b, z.re)
    return Parts(*(converted(b, part) for part in (z.re, dense(b, z).im)))


def is_complex_code(code: Any) -> bool:
    """Whether a ``ScalarType`` is a complex dtype's."""
    return code in (8, 9, 10)


# -- creation --------------------------------------------------------------------------------------------------


@lowers_complex("torch.aten.full")
def full(b: Builder, size: list[Size], value: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Parts:
    """aten::full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype, …) -> Tensor"""
    re, im = (value.real, value.imag) if isinstance(value, complex) else (value, 0)
    return Parts(filled(b, size, re), filled(b, size, im))


@lowers_complex("torch.aten.ones")
def ones(b: Builder, size: list[Size], dtype: Any, layout: Any, device: Any, pin: Any) -> Parts:
    """aten::ones(SymInt[] size, *, ScalarType? dtype=None, …) -> Tensor"""
    return full(b, size, 1, dtype, layout, device, pin)


@lowers_complex("torch.aten.new_full")
def new_full(b: Builder, z: Any, size: list[Size], value: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Any:
    """aten::new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, …) -> Tensor"""
    return full(b, size, value, dtype, layout, device, pin)


@lowers_complex("torch.aten.new_ones")
def new_ones(b: Builder, z: Any, size: list[Size], dtype: Any, layout: Any, device: Any, pin: Any) -> Parts:
    """aten::new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, …) -> Tensor"""
    return full(b, size, 1, dtype, layout, device, pin)


@lowers_complex("torch.aten.full_like")
def full_like(
    b: Builder, z: Any, value: Any, dtype: Any, layout: Any, device: Any, pin: Any, memory_format: Any
) -> Parts:
    """aten::full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, …) -> Tensor"""
    return full(b, _shape(b, z), value, dtype, layout, device, pin)


@lowers_complex("torch.aten.ones_like")
def ones_like(b: Builder, z: Any, dtype: Any, layout: Any, device: Any, pin: Any, memory_format: Any) -> Parts:
    """aten::ones_like(Tensor self, *, ScalarType? dtype=None, …) -> Tensor"""
    return full(b, _shape(b, z), 1, dtype, layout, device, pin)


@lowers_complex("torch.aten.fill.Scalar")
def fill_scalar(b: Builder, z: Complex, value: Any) -> Parts:
    """aten::fill.Scalar(Tensor self, Scalar value) -> Tensor"""
    return full(b, _shape(b, z), value, None, None, None, None)


@lowers_complex("torch.aten.fill.Tensor")
def fill_tensor(b: Builder, z: Complex, value: Complex) -> Parts:
    """aten::fill.Tensor(Tensor self, Tensor value) -> Tensor"""
    return Parts(*(filled(b, _shape(b, z), part) for part in (value.re, value.im)))


@lowers_complex("torch.aten.scalar_tensor")
def scalar_tensor(b: Builder, value: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Parts:
    """aten::scalar_tensor(Scalar s, *, ScalarType? dtype=None, …) -> Tensor"""
    return full(b, [], value, dtype, layout, device, pin)


_ENDS = ("", ".Tensor_Tensor", ".Tensor_Scalar", ".Scalar_Tensor")
"""Overloads of ranges by whether an end is a tensor."""


def _range(b: Builder, start: Parts, end: Parts, steps: int, value: Callable[[Number], Number]) -> Parts:
    """``value`` of numbers at equal distances, from the nearer end."""

    def body(i: Number, u: Number, v: Number) -> Number:
        step = (v - u).scaled(u.number(1 / max(steps - 1, 1)))
        up, down = u + step.scaled(i.re), v - step.scaled(u.number(steps - 1) - i.re)
        return value(numbers.chosen(i.re < u.number(steps // 2), up, down) if steps > 1 else u)

    place = creation.arange(b, steps, None, None, None, None)
    return elementwise(b, body, Parts(place, 0), start, end)


@lowers_complex(*(f"torch.aten.linspace{ends}" for ends in _ENDS))
def linspace(
    b: Builder, start: Complex, end: Complex, steps: int, dtype: Any, layout: Any, device: Any, pin: Any
) -> Parts:
    """aten::linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None, …) -> Tensor"""
    return _range(b, start, end, steps, lambda z: z)


@lowers_complex(*(f"torch.aten.logspace{ends}" for ends in _ENDS))
def logspace(
    b: Builder,
    start: Complex,
    end: Complex,
    steps: int,
    base: float,
    dtype: Any,
    layout: Any,
    device: Any,
    pin: Any,
) -> Parts:
    """aten::logspace(Scalar start, Scalar end, int steps, float base=10.0, *, ScalarType? dtype=None, …) -> Tensor"""
    length, turn = math.log(abs(base)) if base else -math.inf, math.pi if base < 0 else 0.0
    power = lambda z: numbers.exp(z * Number(z.number(length), z.number(turn)))
    return _range(b, start, end, steps, power)


@lowers_complex("torch.aten.eye")
def eye(b: Builder, n: Size, dtype: Any, layout: Any, device: Any, pin: Any) -> Parts:
    """aten::eye(SymInt n, *, ScalarType? dtype=None, …) -> Tensor"""
    return Parts(creation.eye(b, n, dtype, layout, device, pin), 0)


@lowers_complex("torch.aten.eye.m")
def eye_m(b: Builder, n: Size, m: Size, dtype: Any, layout: Any, device: Any, pin: Any) -> Parts:
    """aten::eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None, …) -> Tensor"""
    return Parts(creation.eye_m(b, n, m, dtype, layout, device, pin), 0)


@lowers_complex("torch.aten.constant_pad_nd")
def pad(b: Builder, z: Complex, sizes: list[Size], value: Complex) -> Parts:
    """aten::constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor"""
    z = dense(b, z)
    return Parts(constant_pad_nd(b, z.re, sizes, value.re), constant_pad_nd(b, z.im, sizes, value.im))


def _shape(b: Builder, z: Any) -> list[Any]:
    value = z.re if isinstance(z, Parts) else z
    return b.shape(value) if is_tensor(value) else []


@lowers_complex("torch.aten.size.int")
def size_int(b: Builder, z: Complex, dim: int) -> Any:
    """aten::size.int(Tensor self, int dim) -> int"""
    return b.shape(z.re)[b.axis(dim, b.rank(z.re))]
