"""Choices between tensors and the small fused combinations: where, masked_fill, lerp, addcmul."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import tvm
from tvm import relax, tirx

from torch_tvm.lowering import wrapping
from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor
from torch_tvm.lowering.conversion import convert, loaded
from torch_tvm.lowering.pointwise import agree, number, pointwise, rounded_operands, times
from torch_tvm.lowering.registry import Tensor, lowers
from torch_tvm.tir import broadcast_shape, is_float

te = tvm.te
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def choose(b: Builder, condition: Expr, x: Any, y: Any, *, name: str | None = None) -> Expr:
    """``condition ? x : y`` in the result's dtype; nothing is rounded on the way."""
    dtype = b.result_dtype
    operands = [condition, x, y]
    tensors = agree(b, [operand for operand in operands if is_tensor(operand)])
    sizes = [operand for operand in operands if is_symbolic(operand)]

    def kernel(*args: Any) -> Any:
        sources, values = list(args[: len(tensors)]), list(args[len(tensors) :])
        shape = broadcast_shape([list(t.shape) for t in sources])

        def element(*indices: Any) -> Scalar:
            left, extra = iter(sources), iter(values)
            condition_value, *choices = (
                _load(next(left), indices, shape) if is_tensor(o) else next(extra) if is_symbolic(o) else o
                for o in operands
            )
            yes, no = (v if not isinstance(v, (bool, int, float)) else number(v, dtype) for v in choices)
            chosen, yes, no = (
                convert(loaded(value), kind) for value, kind in ((condition_value, "bool"), (yes, dtype), (no, dtype))
            )
            if dtype == "bool":
                return tirx.any(tirx.all(chosen, yes), tirx.all(tirx.Not(chosen), no))
            return tirx.Select(chosen, yes, no)

        return te.compute(shape, element, name="choose")

    return b.te(kernel, *tensors, *sizes, name=name)


def _load(source: Any, indices: Any, shape: Any) -> Scalar:
    skipped = len(shape) - len(source.shape)
    return source(
        *(
            0 if isinstance(size, tirx.IntImm) and int(size) == 1 else index
            for size, index in zip(source.shape, indices[skipped:], strict=True)
        )
    )


@lowers(
    "torch.aten.where.self",
    "torch.aten.where.Scalar",
    "torch.aten.where.ScalarOther",
    "torch.aten.where.ScalarSelf",
)
def where(b: Builder, condition: Tensor, x: Any, y: Any) -> Expr:
    """aten::where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    return choose(b, condition, x, y)


@lowers("torch.aten.masked_fill.Scalar", "torch.aten.masked_fill.Tensor")
def masked_fill(b: Builder, x: Tensor, mask: Tensor, value: Any) -> Expr:
    """aten::masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return choose(b, mask, value, x)


@lowers("torch.aten.nan_to_num")
def nan_to_num(b: Builder, x: Tensor, nan: float | None, posinf: float | None, neginf: float | None) -> Expr:
    """aten::nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor"""
    dtype = b.result_dtype
    if not is_float(dtype):
        return x
    high = torch.finfo(getattr(torch, dtype)).max  # TVM's largest bfloat16 is the one of float32
    if_nan = 0.0 if nan is None else nan
    if_high = high if posinf is None else posinf
    if_low = -high if neginf is None else neginf

    def body(u: Scalar) -> Scalar:
        c = lambda value: tirx.const(value, str(u.ty.dtype))
        infinity = tirx.infinity(str(u.ty.dtype))
        finite = tirx.Select(u == infinity, c(if_high), tirx.Select(u == -infinity, c(if_low), u))
        return tirx.Select(tirx.isnan(u), c(if_nan), finite)

    return pointwise(b, body, x)


@lowers("torch.aten.lerp.Tensor", "torch.aten.lerp.Scalar")
def lerp(b: Builder, start: Tensor, end: Tensor, weight: Any) -> Expr:
    """aten::lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor"""

    def body(u: Scalar, v: Scalar, w: Scalar) -> Scalar:
        half, one = tirx.const(0.5, str(u.ty.dtype)), tirx.const(1, str(u.ty.dtype))
        return tirx.Select(tirx.abs(w) < half, u + times(w, v - u), v + times(w - one, v - u))

    return pointwise(b, body, start, end, weight)


@lowers("torch.aten.addcmul")
def addcmul(b: Builder, x: Tensor, y: Tensor, z: Tensor, value: Any) -> Expr:
    """aten::addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    if wrapping.may_overflow(b.result_dtype):
        body = lambda u, v, w, a: wrapping.plus(u, wrapping.product(wrapping.product(a, v), w))
        return pointwise(b, body, x, y, z, value)
    operands = rounded_operands(b, b.result_dtype, x, y, z)
    return pointwise(b, lambda u, v, w, a: u + times(a, v) * w, *operands, value)


@lowers("torch.aten.addcdiv")
def addcdiv(b: Builder, x: Tensor, y: Tensor, z: Tensor, value: Any) -> Expr:
    """aten::addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor"""
    operands = rounded_operands(b, b.result_dtype, x, y, z)
    return pointwise(b, lambda u, v, w, a: u + times(a, v / w), *operands, value)
