"""Quantised tensors as PT2E export writes them: integers with a scale and a zero point.

Dequantising is written as plain Relax operations, ``(float32(q) - zero_point) * scale``: that is the pattern
:mod:`torch_tvm.transforms.quantized.products` looks for, whoever wrote it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.pointwise import number, pointwise
from torch_tvm.lowering.registry import DType, Tensor, lowers, register
from torch_tvm.tir import HALF

R = relax.op
Expr: TypeAlias = relax.Expr

_QUANTIZED = ("int8", "uint8", "int16", "int32")


def _quantize(b: Builder, x: Expr, inverse: Any, zero: Any, low: int, high: int, dtype: str) -> Expr:
    """``clamp(round(x * inverse) + zero, low, high)``, rounding half to even, as ``dtype``.

    ``inverse`` and ``zero`` are numbers, or tensors that broadcast to ``x``.
    """
    if b.dtype(x) in HALF:
        x = b.cast(x, "float32")
    if b.dtype(x) != "float32":
        b.unsupported(f"quantising {b.dtype(x)}")
    if dtype not in _QUANTIZED:
        b.unsupported(f"quantising to {dtype}")
    least, most = number(low, "float32"), number(high, "float32")

    def body(u: Any, inv: Any, zp: Any) -> Any:
        value = tirx.nearbyint(u * inv) + zp
        # Not min and max, which lose a NaN; every value kept is an integer that fits 32 bits.
        value = tirx.Select(value < least, least, tirx.Select(value > most, most, value))
        return tirx.Cast(dtype, tirx.Cast("int32", value))

    return pointwise(b, body, x, inverse, zero, compute="float32", result=dtype, name="quantize")


def _dequantize(b: Builder, q: Expr, scale: Expr, zero: Expr | None, dtype: str | None) -> Expr:
    """``(float32(q) - zero) * scale``; ``scale`` and ``zero`` are float32 and broadcast to ``q``."""
    if b.dtype(q) not in _QUANTIZED:
        b.unsupported(f"dequantising {b.dtype(q)}")
    value = b.cast(q, "float32")
    if zero is not None:
        value = b.emit(R.subtract(value, zero))
    return b.cast(b.emit(R.multiply(value, scale)), dtype or "float32")


def _along(b: Builder, values: Expr, axis: int, rank: int) -> Expr:
    """A vector with one value for each index of ``axis``, for broadcasting to ``rank`` axes."""
    shape: list[Any] = [1] * rank
    shape[b.axis(axis, rank)] = b.shape(values)[0]
    return b.reshape(values, shape)


@lowers("torch.quantized_decomposed.quantize_per_tensor")
def quantize_per_tensor(
    b: Builder, x: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: DType
) -> Expr:
    """quantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int quant_max, ScalarType)"""
    if scale == 0.0:
        b.unsupported("a scale of zero")
    return _quantize(b, x, 1.0 / scale, zero_point, quant_min, quant_max, dtype)


def quantize_per_tensor_tensor(
    b: Builder, x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int, dtype: DType
) -> Expr:
    """quantize_per_tensor.tensor(Tensor input, Tensor scale, Tensor zero_point, int, int, ScalarType dtype)"""
    scale, zero = b.reshape(b.cast(scale, "float64"), []), b.reshape(zero_point, [])
    inverse = b.cast(b.emit(R.divide(relax.const(1.0, "float64"), scale)), "float32")
    return _quantize(b, x, inverse, b.cast(zero, "float32"), quant_min, quant_max, dtype)


@lowers("torch.quantized_decomposed.quantize_per_channel")
def quantize_per_channel(
    b: Builder,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: DType,
) -> Expr:
    """quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, int, int, ScalarType)"""
    if b.dtype(scales) != "float32":
        b.unsupported(f"scales of {b.dtype(scales)}")
    inverse = b.emit(R.divide(relax.const(1.0, "float32"), scales))
    inverse, zero = (_along(b, t, axis, b.rank(x)) for t in (inverse, b.cast(zero_points, "float32")))
    return _quantize(b, x, inverse, zero, quant_min, quant_max, dtype)


@lowers("torch.quantized_decomposed.dequantize_per_tensor")
def dequantize_per_tensor(
    b: Builder,
    q: Tensor,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: DType,
    out_dtype: DType | None,
) -> Expr:
    """dequantize_per_tensor(Tensor input, float scale, int zero_point, …, *, ScalarType? out_dtype=None)"""
    zero = relax.const(float(zero_point), "float32") if zero_point else None
    return _dequantize(b, q, relax.const(scale, "float32"), zero, out_dtype)


def dequantize_per_tensor_tensor(
    b: Builder,
    q: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: DType,
    out_dtype: DType | None,
) -> Expr:
    """dequantize_per_tensor.tensor(Tensor input, Tensor scale, Tensor zero_point, …) -> Tensor"""
    scale, zero_point = b.reshape(scale, []), b.reshape(zero_point, [])
    return _dequantize(b, q, b.cast(scale, "float32"), b.cast(zero_point, "float32"), out_dtype)


@lowers("torch.quantized_decomposed.dequantize_per_channel")
def dequantize_per_channel(
    b: Builder,
    q: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: DType,
    out_dtype: DType | None,
) -> Expr:
    """dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, …) -> Tensor"""
    if b.dtype(scales) != "float32":
        b.unsupported(f"scales of {b.dtype(scales)}")
    rank = b.rank(q)
    scale = _along(b, scales, axis, rank)
    zero = None if zero_points is None else b.cast(_along(b, zero_points, axis, rank), "float32")
    return _dequantize(b, q, scale, zero, out_dtype)


for _name, _function in (
    ("quantize_per_tensor.tensor", quantize_per_tensor_tensor),
    ("dequantize_per_tensor.tensor", dequantize_per_tensor_tensor),
):
    register(f"torch.quantized_decomposed.{_name}", _function, custom=True)
