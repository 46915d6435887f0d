"""Cumulative sums and products along a dimension."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert
from torch_tvm.lowering.pointwise import is_float
from torch_tvm.lowering.registry import Tensor, lowers
from torch_tvm.support.attributes import SCAN

Expr: TypeAlias = relax.Expr


def scan(b: Builder, x: Expr, dim: int, combine: str) -> Expr:
    """``out[k] = combine(out[k - 1], x[k])`` along ``dim`` for ``sum`` or ``product``.

    Floats accumulate in float64, as ATen's do.
    """
    out = b.result_dtype
    rank = b.rank(x)
    if rank == 0:
        return b.cast(x, out)
    axis = b.axis(dim, rank)
    if 0 in b.shape(x):
        return b.emit(relax.op.zeros(relax.ShapeExpr(x.ty.shape.values), out))
    accumulate = "float64" if is_float(out) else out
    fields = json.dumps({"axis": axis, "combine": combine, "accumulate": accumulate})
    kernel = lambda source: _running(source, axis, accumulate, out, combine)
    is_exact = not is_float(out) and not is_float(b.dtype(x))
    return b.te(kernel, x if is_exact else b.cast(x, out), attributes={SCAN: fields})


def _running(source: te.Tensor, axis: int, accumulate: str, dtype: str, combine: str) -> te.Tensor:
    """The scan as one loop over lines; a target that has a rule for scans makes its own loops."""
    shape = source.shape
    before, after, length = _product(shape[:axis]), _product(shape[axis + 1 :]), shape[axis]

    def body(ins: Any, outs: Any) -> tvm.tirx.Stmt:
        with IRBuilder() as builder:
            data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
            with T.parallel(0, before * after) as line:
                base = (line // after) * length * after + line % after
                total = T.buffer_proxy(T.alloc_buffer((1,), accumulate, scope="local"))
                total[0] = tirx.const(0 if combine == "sum" else 1, accumulate)
                with T.serial(0, length) as k:
                    at = base + k * after
                    value = convert(data[at], accumulate)
                    total[0] = total[0] + value if combine == "sum" else total[0] * value
                    out[at] = convert(total[0], dtype)
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
    return scan(b, x, dim, "sum")


@lowers("torch.aten.cumprod")
def cumprod(b: Builder, x: Tensor, dim: int, dtype: Any) -> Expr:
    """aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return scan(b, x, dim, "product")
