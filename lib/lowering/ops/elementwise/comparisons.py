"""Comparisons and logic: the result is a boolean tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import differs, same
from torch_tvm.lowering.pointwise import pointwise, promoted_dtype, rounded_operands
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import compute_dtype

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def comparison(name: str, body: Callable[[Scalar, Scalar], Scalar]) -> None:
    """``name.Tensor`` and ``name.Scalar``, compared in the operands' common dtype."""

    def lowering(b: Builder, x: Tensor, y: Any) -> Expr:
        dtype = promoted_dtype(b, x, y)
        compute = "uint8" if dtype == "bool" else compute_dtype(dtype)
        return pointwise(b, body, *rounded_operands(b, dtype, x, y), compute=compute)

    lowering.__doc__ = f"{name}.Tensor(Tensor self, Tensor other) -> Tensor"
    register(f"{name}.Tensor", lowering)
    register(f"{name}.Scalar", lowering)


comparison("torch.aten.eq", same)
comparison("torch.aten.ne", differs)
comparison("torch.aten.lt", lambda u, v: u < v)
comparison("torch.aten.le", lambda u, v: u <= v)
comparison("torch.aten.gt", lambda u, v: u > v)
comparison("torch.aten.ge", lambda u, v: u >= v)


def logical(name: str, body: Callable[[Scalar, Scalar], Scalar]) -> None:
    """Logic of two tensors of any dtype: what is not zero is true."""

    def lowering(b: Builder, x: Tensor, y: Tensor) -> Expr:
        return pointwise(b, body, x, y, compute="bool")

    lowering.__doc__ = f"{name}(Tensor self, Tensor other) -> Tensor"
    register(name, lowering)


logical("torch.aten.logical_and", tirx.all)
logical("torch.aten.logical_or", tirx.any)
logical("torch.aten.logical_xor", differs)


def logical_not(b: Builder, x: Tensor) -> Expr:
    """aten::logical_not(Tensor self) -> Tensor"""
    return pointwise(b, tirx.Not, x, compute="bool")


register("torch.aten.logical_not", logical_not)
