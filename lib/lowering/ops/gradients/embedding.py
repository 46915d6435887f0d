"""The gradient of an embedding's table."""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.positions import checked
from torch_tvm.lowering.ops.indexing.scatter import write_at
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Size, Tensor, lowers
from torch_tvm.tir import compute_dtype, product

Expr: TypeAlias = relax.Expr


@lowers("torch.aten.embedding_dense_backward")
def embedding_dense_backward(
    b: Builder, grad: Tensor, indices: Tensor, num_weights: Size, padding_idx: int, scale_grad_by_freq: bool
) -> Expr:
    """aten::embedding_dense_backward(Tensor grad_output, Tensor indices, SymInt num_weights, SymInt padding_idx,
    bool scale_grad_by_freq) -> Tensor"""
    width, dtype = b.shape(grad)[-1], b.dtype(grad)
    wide = compute_dtype(dtype)
    count = product(b.shape(indices))
    where = reshape(b, checked(b, indices, num_weights, ignored=padding_idx, nearest=False), [count])

    def kept(places: te.Tensor) -> te.Tensor:
        padding, none = tirx.const(padding_idx, "int64"), tirx.const(-1, "int64")
        return te.compute(places.shape, lambda i: _unless(places(i), padding, none), name="kept")

    if padding_idx >= 0:
        where = b.te(kept, where, name="kept_places")
    zeros = lambda *shape: b.broadcast(b.const(0, wide), list(shape))
    rows = b.cast(reshape(b, grad, [count, width]), wide)
    result = write_at(b, zeros(num_weights, width), where, rows, "sum", row=width)
    if scale_grad_by_freq:
        ones = b.broadcast(b.const(1, wide), [count])
        often = reshape(b, write_at(b, zeros(num_weights), where, ones, "sum"), [num_weights, 1])
        once = lambda total, times: total / tirx.max(times, tirx.const(1, wide))
        result = pointwise(b, once, result, often, result=wide)
    return b.cast(result, dtype)


def _unless(value: Any, unwanted: Any, otherwise: Any) -> Any:
    return tirx.Select(tirx.EQ(value, unwanted), otherwise, value)
