"""Conversions between dtypes."""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.pointwise import pointwise, round_to_bfloat16
from torch_tvm.lowering.registry import Tensor, lowers
from torch_tvm.tir import is_float

Expr: TypeAlias = relax.Expr


def converted(b: Builder, x: Expr) -> Expr:
    """``x`` in the dtype of the op's result: fractions are cut off, anything but zero is true."""
    source, target = b.dtype(x), b.result_dtype
    if source == target:
        return x
    if "bfloat16" in (source, target):  # a chain in bfloat16 is computed in float32 up to here
        x = round_to_bfloat16(b, x)
    if target == "bfloat16":
        return x
    if target == "bool" or (is_float(source) and not is_float(target)):
        return pointwise(b, lambda u: u, x, compute=source, name="cast")
    return b.cast(x, target)


@lowers("torch.aten.to.dtype")
def to_dtype(b: Builder, x: Tensor, dtype: Any, non_blocking: Any, copy: Any, memory_format: Any) -> Expr:
    """aten::to.dtype(Tensor self, ScalarType dtype, bool non_blocking, bool copy, MemoryFormat?) -> Tensor"""
    return converted(b, x)
