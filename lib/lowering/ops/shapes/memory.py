"""Tensors as they lie in memory: elements by offset and strides."""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.registry import Size, Tensor, lowers
from torch_tvm.tir import as_size, product

Expr: TypeAlias = relax.Expr


@lowers("torch.aten.as_strided")
def as_strided(b: Builder, x: Tensor, size: list[Size], stride: list[Size], storage_offset: Size | None) -> Expr:
    """aten::as_strided(Tensor(a) self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None) -> Tensor(a)

    The importers give all of the memory as ``x``, in its order.
    """
    if any(isinstance(n, int) and n == 0 for n in size):
        return b.emit(relax.op.zeros(relax.ShapeExpr([as_size(n) for n in size]), b.dtype(x)))
    count, offset = product(b.shape(x)), as_size(storage_offset or 0)
    last: Any = offset
    for n, step in zip(size, stride, strict=True):
        last = last + (as_size(n) - 1) * as_size(step)
    is_empty = tirx.any(tirx.const(False, "bool"), *[as_size(n) < 1 for n in size])
    fits = b.analyzer.simplify(tirx.any(is_empty, last < as_size(count)))
    if isinstance(fits, tirx.IntImm) and not int(fits):
        b.unsupported("elements that lie outside of the memory")
    b.check(fits, "as_strided: elements lie outside of the tensor's memory")

    def body(memory: te.Tensor, goal: Any, numbers: Any) -> te.Tensor:
        first, *steps = numbers
        place = lambda i: sum((at * step for at, step in zip(i, steps, strict=True)), first)
        return te.compute(list(goal), lambda *i: memory(place(i)), name="as_strided")

    sizes = relax.ShapeExpr([as_size(n) for n in size])
    steps = relax.ShapeExpr([offset, *[as_size(n) for n in stride]])
    return b.te(body, reshape(b, x, [count]), sizes, steps)
