"""Losses."""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.positions import checked, in_range
from torch_tvm.lowering.ops.reductions.folds import total
from torch_tvm.lowering.ops.reductions.softmax import softmax_over
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Number, Tensor, lowers, register
from torch_tvm.tir import as_size, compute_dtype

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
            return tirx.Select(ignored, tirx.const(0, dtype), tirx.const(0, dtype) - scores(*i[:dim], last, *i[dim:]))

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


# -- scores of classes -----------------------------------------------------------------------------------


def nll_loss_forward(
    b: Builder, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> list[Expr]:
    """aten::nll_loss_forward(Tensor self, Tensor target, Tensor? weight, int reduction, SymInt ignore_index)
    -> (Tensor output, Tensor total_weight)"""
    dtype = b.dtype(x)
    inner = compute_dtype(dtype)
    dim, labels = _labels(b, x, target, ignore_index)

    def loss(scores: te.Tensor, labels: te.Tensor, *weights: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            label = in_range(labels(*i), scores.shape[dim])
            worth = _worth(labels(*i), label, weights, ignore_index, inner)
            score = tirx.Cast(inner, scores(*i[:dim], label, *i[dim:]))
            return tirx.Select(worth[0], tirx.const(0, inner) - worth[1] * score, tirx.const(0, inner))

        return te.compute(labels.shape, element, name="loss")

    given = [] if weight is None else [weight]
    losses = b.te(loss, x, labels, *given, name="loss")
    if reduction == NONE:
        return [b.cast(losses, dtype), b.const(0, dtype)]
    axes = range(b.rank(losses))
    summed = total(b, losses, axes, False, accumulate=inner, result=inner)

    def worths(labels: te.Tensor, scores: te.Tensor, *weights: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            label = in_range(labels(*i), scores.shape[dim])
            counts, worth = _worth(labels(*i), label, weights, ignore_index, inner)
            return tirx.Select(counts, worth, tirx.const(0, inner))

        return te.compute(labels.shape, element, name="worth")

    kept = total(b, b.te(worths, labels, x, *given, name="worth"), axes, False, accumulate=inner, result=inner)
    if reduction == MEAN:
        summed = pointwise(b, lambda s, n: s / n, summed, kept, compute=inner, result=inner)
    return [b.cast(summed, dtype), b.cast(kept, dtype)]


def nll_loss_backward(
    b: Builder,
    grad: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    total_weight: Tensor,
) -> Expr:
    """aten::nll_loss_backward(Tensor grad_output, Tensor self, Tensor target, Tensor? weight, int reduction,
    SymInt ignore_index, Tensor total_weight) -> Tensor"""
    dtype = b.dtype(x)
    inner = compute_dtype(dtype)
    dim, labels = _labels(b, x, target, ignore_index)
    if reduction != NONE or b.rank(x) == 1:
        grad = b.reshape(grad, [])
    if reduction == MEAN:
        parts = grad, b.reshape(total_weight, [])
        grad = pointwise(b, lambda g, n: g / n, *parts, compute=inner, result=inner)

    def gradient(shape: list[Any], grad: te.Tensor, labels: te.Tensor, *weights: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            place = [*i[:dim], *i[dim + 1 :]]
            counts, worth = _worth(labels(*place), i[dim], weights, ignore_index, inner)
            here = tirx.all(counts, tirx.EQ(labels(*place), tirx.Cast("int64", i[dim])))
            slope = tirx.Cast(inner, grad(*place) if reduction == NONE else grad())
            return tirx.Cast(dtype, tirx.Select(here, -worth * slope, tirx.const(0, inner)))

        return te.compute([as_size(size) for size in shape], element, name="loss_gradient")

    given = [] if weight is None else [weight]
    return b.te(gradient, b.shape(x), grad, labels, *given, name="loss_gradient")


def _labels(b: Builder, x: Expr, target: Expr, ignore_index: int) -> tuple[int, Expr]:
    """The dimension of the classes, and the labels, one for each place beside it."""
    dim, sizes = min(b.rank(x) - 1, 1), b.shape(x)
    shape = [*sizes[:dim], *sizes[dim + 1 :]]
    if b.rank(x) == 1 and b.rank(target) == 1:  # ATen reads the first
        target = b.te(lambda labels: te.compute([], lambda: labels(0), name="label"), target, name="label")
    b.expect_equal(b.shape(target), shape, "the target does not fit the scores")
    return dim, checked(b, target, sizes[dim], ignored=ignore_index, nearest=False)


def _worth(label: Any, place: Any, weights: tuple[te.Tensor, ...], ignore_index: int, dtype: str) -> tuple[Any, Any]:
    """Whether a label counts, and the weight of the class at ``place``."""
    weight = tirx.Cast(dtype, weights[0](place)) if weights else tirx.const(1, dtype)
    return tirx.NE(label, tirx.const(ignore_index, "int64")), weight


for _count in ("", "2d"):
    register(f"torch.aten.nll_loss{_count}_forward", nll_loss_forward)
    register(f"torch.aten.nll_loss{_count}_backward", nll_loss_backward)
