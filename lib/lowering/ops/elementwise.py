"""Elementwise arithmetic of one tensor or of a tensor and a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.registry import Number, Tensor, lowers, register

R = relax.op
Expr = relax.Expr


def unary(name: str, function: Callable[[Expr], Expr]) -> None:
    """A look-alike: one tensor in, one of the result's dtype out, computed in that dtype."""

    def lowering(b: Builder, x: Tensor) -> Expr:
        return b.emit(function(b.cast(x, b.result_dtype)))

    lowering.__doc__ = f"{name}(Tensor self) -> Tensor"
    register(name, lowering)


unary("torch.aten.relu", R.nn.relu)
unary("torch.aten.exp", R.exp)
unary("torch.aten.tanh", R.tanh)
unary("torch.aten.sigmoid", R.sigmoid)


@lowers("torch.aten.leaky_relu")
def leaky_relu(b: Builder, x: Tensor, negative_slope: Number) -> Expr:
    """aten::leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor"""
    return b.emit(R.nn.leakyrelu(x, float(negative_slope)))


@lowers("torch.aten.add.Tensor", "torch.aten.add.Scalar")
def add(b: Builder, x: Tensor, y: Any, alpha: Any) -> Expr:
    """aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    dtype = b.result_dtype
    left, right = b.cast(x, dtype), b.tensor(y, dtype)
    if alpha != 1:
        right = b.emit(R.multiply(right, b.tensor(alpha, dtype)))
    return b.emit(R.add(left, right))
