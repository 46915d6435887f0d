"""Bitwise operations and shifts of integers; on booleans they are logic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import differs
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import bits_of

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr
Body = Callable[[Scalar, Scalar], Scalar]


def bitwise(names: list[str], integers: Body, booleans: Body) -> None:
    """One lowering for all spellings of a bitwise op."""

    def lowering(b: Builder, x: Any, y: Any) -> Expr:
        return pointwise(b, booleans if b.result_dtype == "bool" else integers, x, y)

    lowering.__doc__ = f"{names[0]}(Tensor self, Tensor other) -> Tensor"
    for name in names:
        register(name, lowering)


bitwise(
    ["torch.aten.bitwise_and.Tensor", "torch.aten.bitwise_and.Scalar", "torch.aten.__and__.Tensor"],
    tirx.bitwise_and,
    tirx.all,
)
bitwise(["torch.aten.bitwise_or.Tensor"], tirx.bitwise_or, tirx.any)
bitwise(["torch.aten.bitwise_xor.Tensor"], tirx.bitwise_xor, differs)


def bitwise_not(b: Builder, x: Tensor) -> Expr:
    """aten::bitwise_not(Tensor self) -> Tensor"""
    return pointwise(b, tirx.Not if b.result_dtype == "bool" else tirx.bitwise_not, x)


register("torch.aten.bitwise_not", bitwise_not)


def shift(names: list[str], left: bool) -> None:
    """A shift; an amount outside the width of the type gives 0, or the sign for a right shift."""

    def body(u: Scalar, v: Scalar) -> Scalar:
        dtype = str(u.ty.dtype)
        bits = bits_of(dtype)
        last = tirx.const(bits - 1, dtype)
        outside = tirx.any(v < tirx.const(0, dtype), v > last)
        amount = tirx.Select(outside, last, v)
        if left:
            return tirx.Select(outside, tirx.const(0, dtype), u << amount)
        shifted = u >> amount
        return tirx.Select(outside, shifted if not dtype.startswith("uint") else tirx.const(0, dtype), shifted)

    def lowering(b: Builder, x: Tensor, y: Any) -> Expr:
        if b.result_dtype == "bool":
            b.unsupported("a shift of booleans")
        return pointwise(b, body, x, y)

    lowering.__doc__ = f"{names[0]}(Tensor self, Tensor other) -> Tensor"
    for name in names:
        register(name, lowering)


shift(["torch.aten.bitwise_left_shift.Tensor"], left=True)
shift(["torch.aten.bitwise_right_shift.Tensor"], left=False)
