"""Losses."""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.positions import checked, in_range
from torch_tvm.lowering.ops.reductions.folds import total
from torch_tvm.lowering.ops.reductions.softmax import softmax_over
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Number, Tensor, lowers
from torch_tvm.tir import compute_dtype

Expr: TypeAlias = relax.Expr

NONE, MEAN, SUM = range(3)


@lowers("torch.aten.cross_entropy_loss")
def cross_entropy_loss(
    b: Builder,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: Number,
) -> Expr:
    """aten::cross_entropy_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=Mean,
    SymInt ignore_index=-100, float label_smoothing=0.0) -> Tensor"""
    dim, dtype = min(b.rank(x) - 1, 1), b.dtype(x)
    if b.dtype(target) != "int64" or b.rank(target) != b.rank(x) - 1:
        b.unsupported("a target of probabilities")
    if weight is not None or label_smoothing:
        b.unsupported("class weights or smoothed labels")
    if 0 in b.shape(x):
        b.unsupported("a loss of nothing")
    inner = compute_dtype(dtype)
    sizes = b.shape(x)
    b.expect_equal(b.shape(target), [*sizes[:dim], *sizes[dim + 1 :]], "the target does not fit the scores")
    labels = checked(b, target, b.shape(x)[dim], ignored=ignore_index, nearest=False)

    def loss(scores: te.Tensor, labels: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            label = labels(*i)
            last = in_range(label, scores.shape[dim])
            ignored = tirx.EQ(label, tirx.const(ignore_index, "int64"))
            return tirx.Select(
                ignored, tirx.const(0, dtype), tirx.const(0, dtype) - scores(*i[:dim], last, *i[dim:])
            )

        return te.compute(labels.shape, element, name="loss")

    losses = b.te(loss, softmax_over(b, x, dim, log=True), labels, name="loss")
    if reduction == NONE:
        return losses
    axes = range(b.rank(losses))
    summed = total(b, losses, axes, False, accumulate=inner, result=inner)
    if reduction == SUM:
        return b.cast(summed, dtype)
    counts = lambda label: tirx.Cast(inner, tirx.NE(label, tirx.const(ignore_index, "int64")))
    kept = total(b, target, axes, False, accumulate=inner, result=inner, before=counts, name="count")
    return pointwise(b, lambda s, n: s / n, summed, kept, compute=inner, result=dtype)
