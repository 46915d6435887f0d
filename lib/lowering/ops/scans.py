"""Cumulative sums and products along a dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert
from torch_tvm.lowering.pointwise import is_float
from torch_tvm.lowering.registry import Tensor, lowers

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def scan(b: Builder, x: Expr, dim: int, combine: Callable[[Scalar, Scalar], Scalar]) -> Expr:
    """``out[k] = combine(out[k - 1], x[k])`` along ``dim``; floats accumulate in float64, as ATen's do."""
    out = b.result_dtype
    rank = b.rank(x)
    if rank == 0:
        return b.cast(x, out)
    axis = b.axis(dim, rank)
    if 0 in b.shape(x):
        return b.emit(relax.op.zeros(relax.ShapeExpr(x.ty.shape.values), out))
    accumulate = "float64" if is_float(out) else out
    running = b.te(lambda source: _running(source, axis, accumulate, combine), b.cast(x, out))
    return b.cast(running, out)


def _running(
    source: te.Tensor, axis: int, dtype: str, combine: Callable[[Scalar, Scalar], Scalar]
) -> te.Tensor:
    shape = source.shape
    before, after, length = _product(shape[:axis]), _product(shape[axis + 1 :]), shape[axis]

    def body(ins: Any, outs: Any) -> tvm.tirx.Stmt:
        with IRBuilder() as builder:
            data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
            with T.parallel(0, before * after) as line:
                base = (line // after) * length * after + line % after
                with T.serial(0, length) as k:
                    at = base + k * after
                    value = convert(data[at], dtype)
                    out[at] = tirx.if_then_else(k > 0, combine(out[at - after], value), value)
            return builder.get()

    source_buffer = tirx.decl_buffer(shape, source.dtype, "data")
    out_buffer = tirx.decl_buffer(shape, dtype, "running")
    return te.extern(
        [shape],
        [source],
        body,
        dtype=dtype,
        in_buffers=[source_buffer],
        out_buffers=[out_buffer],
        name="running",
    )


def _product(sizes: Any) -> Any:
    result: Any = tirx.const(1, "int64")
    for size in sizes:
        result = result * size
    return result


@lowers("torch.aten.cumsum")
def cumsum(b: Builder, x: Tensor, dim: int, dtype: Any) -> Expr:
    """aten::cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return scan(b, x, dim, lambda total, value: total + value)


@lowers("torch.aten.cumprod")
def cumprod(b: Builder, x: Tensor, dim: int, dtype: Any) -> Expr:
    """aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return scan(b, x, dim, lambda total, value: total * value)
