"""Softmax and its logarithm."""

from __future__ import annotations

from typing import TypeAlias

from tvm import relax

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.registry import DType, Tensor, lowers
from torch_tvm.tir import HALF

R = relax.op
Expr: TypeAlias = relax.Expr


def softmax_over(b: Builder, x: Expr, axis: int, *, log: bool = False) -> Expr:
    """Softmax in the dtype of ``x``; half precisions are computed in float32."""
    dtype = b.dtype(x)
    if b.rank(x) == 0:
        return b.reshape(softmax_over(b, b.reshape(x, [1]), 0, log=log), [])
    wide = b.cast(x, "float32") if dtype in HALF else x
    function = R.nn.log_softmax if log else R.nn.softmax
    return b.cast(b.emit(function(wide, b.axis(axis, b.rank(x)))), dtype)


@lowers("torch.aten.softmax.int")
def softmax(b: Builder, x: Tensor, dim: int, dtype: DType | None) -> Expr:
    """aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    return softmax_over(b, b.cast(x, b.result_dtype), dim)


@lowers("torch.aten.log_softmax.int")
def log_softmax(b: Builder, x: Tensor, dim: int, dtype: DType | None) -> Expr:
    """aten::log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    return softmax_over(b, b.cast(x, b.result_dtype), dim, log=True)
