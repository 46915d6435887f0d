"""Tensors from nothing: constants, ranges, identity matrices, triangles.

Random values have no lowering: they come from PyTorch's own generator, so that a seed means the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor, plain_size
from torch_tvm.lowering.conversion import convert
from torch_tvm.lowering.pointwise import kept, number, pointwise
from torch_tvm.lowering.registry import Number, Size, Tensor, lowers
from torch_tvm.tir import as_size, ceil_div, is_float

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def filled(b: Builder, shape: Sequence[Any], value: Any) -> Expr:
    """A tensor of ``shape`` and the result's dtype, every element ``value`` (a number, size or 0-d tensor)."""
    dtype = b.result_dtype
    sizes = relax.ShapeExpr([as_size(size) for size in shape])
    if is_tensor(value):
        scalar = value if b.rank(value) == 0 else b.reshape(value, [])
        fill = lambda goal, v: te.compute(list(goal), lambda *i: convert(v(), dtype), name="full")
        return b.te(fill, sizes, scalar, name="full")
    if is_symbolic(value):
        fill_size = lambda goal, v: te.compute(list(goal), lambda *i: convert(v, dtype), name="full")
        return b.te(fill_size, sizes, value, name="full")
    if dtype == "bfloat16" and all(plain_size(size) != 0 for size in shape):
        return b.te(lambda goal: _filled_bfloat16(list(goal), float(value)), sizes, name="full")
    if is_float(dtype) and (value == 0 or not math.isfinite(value)):  # TVM's own kernel stumbles over infinities
        constant = kept(tirx.const(float(value), dtype))
        return b.te(lambda goal: te.compute(list(goal), lambda *i: constant, name="full"), sizes, name="full")
    return b.emit(relax.op.full(sizes, b.tensor(value, dtype), dtype))


def _filled_bfloat16(shape: list[Any], value: float) -> te.Tensor:
    """A plain loop: a vector of bfloat16 constants does not reach machine code."""
    count: Any = 1
    for size in shape:
        count = count * size
    if any(isinstance(size, (int, tirx.IntImm)) and int(size) == 0 for size in shape):
        return te.compute(shape, lambda *_: tirx.const(value, "bfloat16"), name="full")

    def body(_: Any, outs: Any) -> tvm.tirx.Stmt:
        with IRBuilder() as builder:
            out = T.buffer_proxy(outs[0])
            with T.serial(0, count) as i:
                out[i] = tirx.Cast("bfloat16", tirx.const(value, "float32"))
            return builder.get()

    buffer = tirx.decl_buffer(shape, "bfloat16", "filled", layout=None)
    return te.extern([shape], [], body, dtype="bfloat16", out_buffers=[buffer], name="full")


@lowers("torch.aten.full")
def full(b: Builder, size: list[Size], value: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype, Layout?, Device?, bool? pin) -> Tensor"""
    return filled(b, size, value)


@lowers("torch.aten.zeros")
def zeros(b: Builder, size: list[Size], dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::zeros(SymInt[] size, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory=None) -> Tensor"""
    return filled(b, size, 0)


@lowers("torch.aten.ones")
def ones(b: Builder, size: list[Size], dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::ones(SymInt[] size, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory=None) -> Tensor"""
    return filled(b, size, 1)


@lowers("torch.aten.full_like")
def full_like(
    b: Builder, x: Tensor, value: Any, dtype: Any, layout: Any, device: Any, pin: Any, memory_format: Any
) -> Expr:
    """aten::full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout?, …) -> Tensor"""
    return filled(b, b.shape(x), value)


@lowers("torch.aten.fill.Scalar")
def fill_scalar(b: Builder, x: Tensor, value: Any) -> Expr:
    """aten::fill.Scalar(Tensor self, Scalar value) -> Tensor"""
    return filled(b, b.shape(x), value)


@lowers("torch.aten.zeros_like")
def zeros_like(b: Builder, x: Tensor, dtype: Any, layout: Any, device: Any, pin: Any, memory_format: Any) -> Expr:
    """aten::zeros_like(Tensor self, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory, …) -> Tensor"""
    return filled(b, b.shape(x), 0)


@lowers("torch.aten.ones_like")
def ones_like(b: Builder, x: Tensor, dtype: Any, layout: Any, device: Any, pin: Any, memory_format: Any) -> Expr:
    """aten::ones_like(Tensor self, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory, …) -> Tensor"""
    return filled(b, b.shape(x), 1)


@lowers("torch.aten.new_full")
def new_full(
    b: Builder, x: Tensor, size: list[Size], value: Any, dtype: Any, layout: Any, device: Any, pin: Any
) -> Expr:
    """aten::new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, …) -> Tensor"""
    return filled(b, size, value)


@lowers("torch.aten.new_zeros")
def new_zeros(b: Builder, x: Tensor, size: list[Size], dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout?, Device?, …) -> Tensor"""
    return filled(b, size, 0)


@lowers("torch.aten.new_ones")
def new_ones(b: Builder, x: Tensor, size: list[Size], dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout?, Device?, …) -> Tensor"""
    return filled(b, size, 1)


@lowers("torch.aten.scalar_tensor")
def scalar_tensor(b: Builder, value: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory) -> Tensor"""
    return filled(b, [], value)


# -- ranges ------------------------------------------------------------------------------------------------


def _along(b: Builder, length: Any, value: Callable[..., Scalar], *extra: Any) -> Expr:
    """A vector of ``length`` elements ``value(i, *extra)``."""
    dtype = b.result_dtype

    def kernel(goal: Any, *sizes: Any) -> te.Tensor:
        return te.compute(list(goal), lambda i: convert(value(i, *sizes), dtype), name="range")

    return b.te(kernel, relax.ShapeExpr([as_size(length)]), *extra, name="range")


@lowers("torch.aten.arange.start_step")
def arange_start_step(
    b: Builder, start: Any, end: Any, step: Any, dtype: Any, layout: Any, device: Any, pin: Any
) -> Expr:
    """aten::arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, …) -> Tensor"""
    bounds = (start, end, step)
    if any(isinstance(bound, float) or not _is_integer(b, bound) for bound in bounds) and not all(
        isinstance(bound, (int, float)) for bound in bounds
    ):
        return _range_of_floats(b, start, end, step)
    start, end, step = (b.size(bound) for bound in bounds)
    if not is_symbolic(step) and step == 0:
        b.unsupported("a range with step 0")
    floats = any(isinstance(bound, float) for bound in (start, end, step))
    if any(is_symbolic(bound) for bound in (start, end, step)):
        return _symbolic_range(b, start, end, step)
    length = _ceil((end - start) / step) if floats else max(ceil_div(int(end) - int(start), int(step)), 0)
    wide = "float64" if floats or is_float(b.result_dtype) else "int64"
    first, stride = tirx.const(start, wide), tirx.const(step, wide)
    return _along(b, length, lambda i: first + tirx.Cast(wide, i) * stride)


def _ceil(value: float) -> int:
    return max(-int(-value // 1), 0)


def _is_integer(b: Builder, bound: Any) -> bool:
    if is_tensor(bound):
        return b.dtype(bound).startswith("int")
    return not is_symbolic(bound) or not is_float(str(bound.ty.dtype))


def _range_of_floats(b: Builder, start: Any, end: Any, step: Any) -> Expr:
    """A range by bounds that are no integers, and of which the run knows one: its length is computed in float64."""
    given = [b.tensor(bound, "float64") for bound in (start, end, step)]
    count = lambda first, last, by: tirx.ceil((last - first) / by)
    length = pointwise(b, count, *given, compute="float64", result="int64", name="length")
    sizes = b.size(length)
    b.check(as_size(sizes) >= 0, "upper bound and lower bound inconsistent with step sign")
    return _along(b, sizes, lambda i, first, by: first() + tirx.Cast("float64", i) * by(), given[0], given[2])


def _symbolic_range(b: Builder, start: Any, end: Any, step: Any) -> Expr:
    if is_symbolic(step):
        b.check(tirx.NE(step, tirx.const(0, "int64")), "step must be nonzero")
        forward, size = step > 0, tirx.Select(step > 0, step, tirx.Select(step < 0, -step, tirx.const(1, "int64")))
        length = ceil_div(tirx.Select(forward, as_size(end) - start, as_size(start) - end), size)
    else:
        length = ceil_div(end - start if step > 0 else start - end, abs(int(step)))
    length = tvm.sym.Analyzer().simplify(length)
    if b.is_computed(length) or is_symbolic(step):
        b.check(length >= 0, "upper bound and lower bound inconsistent with step sign")
    sizes = [bound for bound in (start, step) if is_symbolic(bound)]

    def value(i: Scalar, *known: Scalar) -> Scalar:
        left = iter(known)
        first, by = (next(left) if is_symbolic(n) else tirx.const(int(n), "int64") for n in (start, step))
        return first + tirx.Cast("int64", i) * by

    return _along(b, length, value, *sizes)


@lowers("torch.aten.arange.start")
def arange_start(b: Builder, start: Any, end: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout?, Device?, …) -> Tensor"""
    return arange_start_step(b, start, end, 1, dtype, layout, device, pin)


@lowers("torch.aten.arange")
def arange(b: Builder, end: Any, dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, …) -> Tensor"""
    return arange_start_step(b, 0, end, 1, dtype, layout, device, pin)


@lowers("torch.aten.linspace")
def linspace(
    b: Builder, start: Number, end: Number, steps: int, dtype: Any, layout: Any, device: Any, pin: Any
) -> Expr:
    """aten::linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None, …) -> Tensor"""
    if not is_float(b.result_dtype):
        b.unsupported("linspace of integers")
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    c = lambda value: tirx.const(value, "float64")

    def value(i: Scalar) -> Scalar:
        up = c(start) + c(step) * tirx.Cast("float64", i)
        down = c(end) - c(step) * tirx.Cast("float64", tirx.const(steps - 1, "int64") - i)
        return tirx.Select(i < tirx.const(steps // 2, "int64"), up, down) if steps > 1 else up

    return _along(b, steps, value)


# -- matrices ----------------------------------------------------------------------------------------------


@lowers("torch.aten.eye.m")
def eye_m(b: Builder, n: Size, m: Size, dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory) -> Tensor"""
    dtype = b.result_dtype
    one, zero = number(1, dtype), number(0, dtype)
    kernel = lambda goal: te.compute(list(goal), lambda i, j: tirx.Select(tirx.EQ(i, j), one, zero), name="eye")
    return b.te(kernel, relax.ShapeExpr([as_size(n), as_size(m)]), name="eye")


@lowers("torch.aten.eye")
def eye(b: Builder, n: Size, dtype: Any, layout: Any, device: Any, pin: Any) -> Expr:
    """aten::eye(SymInt n, *, ScalarType? dtype=None, Layout?, Device?, bool? pin_memory=None) -> Tensor"""
    return eye_m(b, n, n, dtype, layout, device, pin)


def _triangle(b: Builder, x: Expr, diagonal: int, keeps: Callable[[Scalar, Scalar], Scalar]) -> Expr:
    zero = number(0, b.dtype(x))
    offset = tirx.const(diagonal, "int64")

    def kernel(source: te.Tensor) -> te.Tensor:
        def element(*indices: Any) -> Scalar:
            row, column = (tirx.Cast("int64", index) for index in indices[-2:])
            return tirx.Select(keeps(column - row, offset), source(*indices), zero)

        return te.compute(source.shape, element, name="triangle")

    return b.te(kernel, x)


@lowers("torch.aten.tril")
def tril(b: Builder, x: Tensor, diagonal: int) -> Expr:
    """aten::tril(Tensor self, SymInt diagonal=0) -> Tensor"""
    return _triangle(b, x, diagonal, lambda distance, offset: distance <= offset)


@lowers("torch.aten.triu")
def triu(b: Builder, x: Tensor, diagonal: int) -> Expr:
    """aten::triu(Tensor self, SymInt diagonal=0) -> Tensor"""
    return _triangle(b, x, diagonal, lambda distance, offset: distance >= offset)
