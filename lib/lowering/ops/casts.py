"""Conversions between dtypes."""

from __future__ import annotations

from typing import Any

from tvm import relax

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.pointwise import is_float, pointwise
from torch_tvm.lowering.registry import Tensor, lowers

Expr = relax.Expr


def converted(b: Builder, x: Expr) -> Expr:
    """``x`` in the dtype of the op's result: fractions are cut off, anything but zero is true."""
    source, target = b.dtype(x), b.result_dtype
    if source == target:
        return x
    if target == "bool" or (is_float(source) and not is_float(target)):
        return pointwise(b, lambda u: u, x, compute=source, name="cast")
    return b.cast(x, target)


@lowers("torch.aten.to.dtype")
def to_dtype(b: Builder, x: Tensor, dtype: Any, non_blocking: Any, copy: Any, memory_format: Any) -> Expr:
    """aten::to.dtype(Tensor self, ScalarType dtype, bool non_blocking, bool copy, MemoryFormat?) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten.to.dtype_layout")
def to_dtype_layout(
    b: Builder, x: Tensor, dtype: Any, layout: Any, device: Any, pin: Any, non_blocking: Any, copy: Any, format: Any
) -> Expr:
    """aten::to.dtype_layout(Tensor self, *, ScalarType? dtype, Layout?, Device?, bool? pin_memory, …) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten.to.device")
def to_device(
    b: Builder, x: Tensor, device: Any, dtype: Any, non_blocking: Any, copy: Any, memory_format: Any
) -> Expr:
    """aten::to.device(Tensor self, Device device, ScalarType dtype, bool non_blocking, bool copy, …) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten.to.prim_Device")
def to_prim_device(b: Builder, x: Tensor, device: Any, dtype: Any, non_blocking: Any, copy: Any) -> Expr:
    """aten::to.prim_Device(Tensor self, Device? device, int? dtype=None, bool non_blocking, bool copy) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten.to.other")
def to_other(b: Builder, x: Tensor, other: Tensor, non_blocking: Any, copy: Any, memory_format: Any) -> Expr:
    """aten::to.other(Tensor self, Tensor other, bool non_blocking, bool copy, MemoryFormat?) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten._to_copy")
def to_copy(
    b: Builder, x: Tensor, dtype: Any, layout: Any, device: Any, pin: Any, non_blocking: Any, memory_format: Any
) -> Expr:
    """aten::_to_copy(Tensor self, *, ScalarType? dtype, Layout?, Device?, bool? pin_memory, …) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten.type_as")
def type_as(b: Builder, x: Tensor, other: Tensor) -> Expr:
    """aten::type_as(Tensor self, Tensor other) -> Tensor"""
    return converted(b, x)


@lowers("torch.aten._cast_Float", "torch.aten._cast_Long")
def cast_to(b: Builder, x: Tensor, non_blocking: Any) -> Expr:
    """aten::_cast_Float(Tensor self, bool non_blocking=False) -> Tensor"""
    return converted(b, x)
