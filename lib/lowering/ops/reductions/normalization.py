"""Batch, layer, group, instance and root-mean-square normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.reductions.folds import mean_over
from torch_tvm.lowering.ops.shapes.views import quotient, reshape, squeeze_at
from torch_tvm.lowering.pointwise import pointwise, scaled
from torch_tvm.lowering.registry import Lowering, Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, product

R = relax.op
Expr: TypeAlias = relax.Expr


def _filled(b: Builder, value: float, shape: Sequence[SizeLike], dtype: str) -> Expr:
    sizes = [s for s in shape if isinstance(s, int)]
    if len(sizes) == len(shape) and dtype != "bfloat16":
        return relax.const(np.full(sizes, value, dtype), dtype)
    return b.emit(R.full(relax.ShapeExpr(list(shape)), b.const(value, dtype), dtype))


def _affine(b: Builder, x: Expr | None, value: float, shape: Sequence[SizeLike], dtype: str) -> Expr:
    """The given scale or shift, or its neutral value."""
    if x is not None:
        b.expect_equal(b.shape(x), shape, "a scale or shift does not fit the input")
    return _filled(b, value, shape, dtype) if x is None else b.cast(x, dtype)


def _wide(b: Builder, x: Expr) -> str:
    return compute_dtype(b.dtype(x))


def per_channel(b: Builder, x: Expr, rank: int) -> Expr:
    """A vector of channels as a tensor that broadcasts over ``(N, C, …)``."""
    shape: list[SizeLike] = [1] * rank
    shape[1] = b.shape(x)[0]
    return b.reshape(x, shape)


# -- batch norm ---------------------------------------------------------------------------------------


def normalize_batch(
    b: Builder, x: Expr, weight: Expr | None, bias: Expr | None, mean: Expr, variance: Expr, eps: float
) -> Expr:
    """Inference form: one scale and shift per channel (dimension 1)."""
    if b.rank(x) < 2:
        b.unsupported("batch norm of a tensor without channels")
    dtype, channels = _wide(b, x), [b.shape(x)[1]]
    if any(b.dtype(v) not in (b.dtype(x), dtype) for v in (weight, bias, mean, variance) if v is not None):
        b.unsupported("a batch norm of mixed dtypes, which ATen reports as an error")
    for vector in (mean, variance):
        b.expect_equal(b.shape(vector), channels, "the statistics are not of as many channels as the input")
    parameters = [
        _affine(b, weight, 1.0, channels, dtype),
        _affine(b, bias, 0.0, channels, dtype),
        b.cast(mean, dtype),
        b.cast(variance, dtype),
    ]
    if 0 in b.shape(x):
        return _of_no_elements(b, x)
    call = R.nn.batch_norm(b.cast(x, dtype), *parameters, axis=1, epsilon=eps, training=False)
    result = b.emit(relax.TupleGetItem(b.emit(call), 0))
    return b.cast(result, b.dtype(x))


def batch_statistics(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """Mean and biased variance over every dimension but the channels."""
    value = b.cast(x, _wide(b, x))
    axes = [axis for axis in range(b.rank(x)) if axis != 1]
    mean = _mean(b, value, axes)
    centred = b.emit(R.subtract(value, per_channel(b, mean, b.rank(x))))
    return mean, _mean(b, b.emit(R.multiply(centred, centred)), axes)


def _mean(b: Builder, x: Expr, axes: Sequence[int], *, keepdims: bool = False) -> Expr:
    """Relax's mean, but over nothing, where its kernel divides by the size."""
    if any(b.shape(x)[axis] == 0 for axis in axes if isinstance(b.shape(x)[axis], int)):
        return mean_over(b, x, [axis % b.rank(x) for axis in axes], keepdims, b.dtype(x))
    return b.emit(R.mean(x, axis=list(axes), keepdims=keepdims))


def _inverse_deviation(b: Builder, variance: Expr, eps: float) -> Expr:
    dtype = b.dtype(variance)
    return b.emit(R.rsqrt(b.emit(R.add(variance, b.const(eps, dtype)))))


def _statistic(b: Builder, body: Callable[..., tvm.ir.Expr], old: Expr, *operands: Any) -> Expr:
    """``body`` of a running statistic and operands, in the statistic's dtype, whatever that of the op's first result
    is.
    """
    dtype = b.dtype(old)
    return pointwise(b, body, old, *operands, compute=compute_dtype(dtype), result=dtype)


def _blend(b: Builder, old: Expr, new: Expr, momentum: Any) -> Expr:
    """A running statistic; ``momentum`` is a number, of the running program where it is the inverse of a count of
    batches.
    """
    if not isinstance(momentum, float):
        return _statistic(b, lambda o, n, m: o * (1 - m) + n * m, old, new, momentum)
    kept, moved = scaled(b, old, 1 - momentum), scaled(b, b.cast(new, b.dtype(old)), momentum)
    return b.emit(R.add(kept, moved))


@lowers("torch.aten.batch_norm")
def batch_norm(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Expr:
    """aten::batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean,
    Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor"""
    if training and running_mean is not None:
        b.unsupported("batch norm that updates its statistics in place")
    if training or running_mean is None or running_var is None:
        return normalize_batch(b, x, weight, bias, *batch_statistics(b, x), eps)
    return normalize_batch(b, x, weight, bias, running_mean, running_var, eps)


def native_batch_norm_functional(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: Any,
    eps: float,
) -> list[Expr]:
    """aten::_native_batch_norm_legit_functional(Tensor input, Tensor? weight, Tensor? bias,
    Tensor running_mean, Tensor running_var, bool training, float momentum, float eps)
    -> (Tensor, Tensor, Tensor, Tensor running_mean_out, Tensor running_var_out)"""
    if not training:
        result = normalize_batch(b, x, weight, bias, running_mean, running_var, eps)
        empty = [_as_result(b, _filled(b, 0.0, [0], _wide(b, x)), index) for index in (1, 2)]
        return [result, *empty, running_mean, running_var]
    count = product([s for axis, s in enumerate(b.shape(x)) if axis != 1])
    if isinstance(count, int) and count < 2:
        b.unsupported("statistics of fewer than two values")
    mean, variance = batch_statistics(b, x)
    result = normalize_batch(b, x, weight, bias, mean, variance, eps)
    dtype = b.dtype(variance)
    less = b.tensor(count - 1, dtype)
    unbiased = b.emit(R.divide(b.emit(R.multiply(variance, b.tensor(count, dtype))), less))
    deviation = _inverse_deviation(b, variance, eps)
    kept = ((running_mean, mean), (running_var, unbiased))
    moved = [_unless_empty(b, count, old, _blend(b, old, new, momentum)) for old, new in kept]
    return [result, *(_as_result(b, v, i) for i, v in enumerate((mean, deviation, *moved), 1))]


def _unless_empty(b: Builder, count: Any, old: Expr, new: Expr) -> Expr:
    """A running statistic after a batch: a batch of nothing, where ``count`` may be 0, leaves the old one."""
    if isinstance(count, int):
        return new
    size = b.tensor(count, b.dtype(old))
    return _statistic(b, lambda o, m, n: tirx.Select(n > 0, m, o), old, new, size)


def native_batch_norm_no_stats(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[Expr]:
    """aten::_native_batch_norm_legit.no_stats(Tensor input, Tensor? weight, Tensor? bias, bool training,
    float momentum, float eps) -> (Tensor, Tensor, Tensor)"""
    mean, variance = batch_statistics(b, x)
    result = normalize_batch(b, x, weight, bias, mean, variance, eps)
    deviation = _inverse_deviation(b, variance, eps)
    return [result, *(_as_result(b, v, i) for i, v in enumerate((mean, deviation), 1))]


# -- layer and root-mean-square norm --------------------------------------------------------------------


def normalize_layer(
    b: Builder, x: Expr, sizes: Sequence[SizeLike], weight: Expr | None, bias: Expr | None, eps: float
) -> Expr:
    """Layer norm over the last ``len(sizes)`` dimensions."""
    dtype = _wide(b, x)
    axes = _normalized(b, x, sizes)
    if 0 in b.shape(x):
        return _of_no_elements(b, x)
    if dtype == "float64":  # Relax's own is for float16 and float32
        mean, variance = _moments(b, x, axes)
        normal = b.emit(R.multiply(b.emit(R.subtract(x, mean)), _inverse_deviation(b, variance, eps)))
        return _scaled(b, normal, weight, bias)
    scale, shift = _affine(b, weight, 1.0, sizes, dtype), _affine(b, bias, 0.0, sizes, dtype)
    call = R.nn.layer_norm(b.cast(x, dtype), scale, shift, axes=axes, epsilon=eps)
    return b.cast(b.emit(call), b.dtype(x))


def _of_no_elements(b: Builder, x: Expr) -> Expr:
    """A norm of ``x``, of which a size is known to be 0: Relax's own kernels would divide by it."""
    return b.emit(R.zeros(relax.ShapeExpr([as_size(size) for size in b.shape(x)]), b.dtype(x)))


def _normalized(b: Builder, x: Expr, sizes: Sequence[SizeLike]) -> list[int]:
    """The last dimensions, which are to have these sizes."""
    if not 0 < len(sizes) <= b.rank(x):
        b.unsupported("normalized_shape does not fit the input")
    b.expect_equal(b.shape(x)[-len(sizes) :], sizes, "normalized_shape does not fit the input")
    return list(range(-len(sizes), 0))


def _scaled(b: Builder, x: Expr, weight: Expr | None, bias: Expr | None = None) -> Expr:
    """A normalised tensor with its scale and shift, where it has them."""
    for vector in (weight, bias):
        if vector is not None:
            b.expect_within(b.shape(vector), b.shape(x)[-b.rank(vector) :], "a scale or shift does not fit the input")
    if weight is not None:
        x = b.emit(R.multiply(x, b.cast(weight, b.dtype(x))))
    return x if bias is None else b.emit(R.add(x, b.cast(bias, b.dtype(x))))


@lowers("torch.aten.layer_norm")
def layer_norm(
    b: Builder,
    x: Tensor,
    normalized_shape: list[Size],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    cudnn_enable: bool,
) -> Expr:
    """aten::layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None,
    float eps=1e-05, bool cudnn_enable=True) -> Tensor"""
    return normalize_layer(b, x, normalized_shape, weight, bias, eps)


@lowers("torch.aten.native_layer_norm")
def native_layer_norm(
    b: Builder,
    x: Tensor,
    normalized_shape: list[Size],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> list[Expr]:
    """aten::native_layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight, Tensor? bias,
    float eps) -> (Tensor, Tensor, Tensor)"""
    result = normalize_layer(b, x, normalized_shape, weight, bias, eps)
    axes = list(range(-len(normalized_shape), 0))
    mean, variance = _moments(b, x, axes)
    deviation = _inverse_deviation(b, variance, eps)
    return [result, *(_as_result(b, v, i) for i, v in enumerate((_finite(b, mean), deviation), 1))]


def _finite(b: Builder, mean: Expr) -> Expr:
    """A mean as PyTorch's running sums have it: NaN where it is infinite."""
    return b.emit(R.add(mean, b.emit(R.subtract(mean, mean))))


def _moments(b: Builder, x: Expr, axes: Sequence[int]) -> tuple[Expr, Expr]:
    value = b.cast(x, _wide(b, x))
    mean = _mean(b, value, axes, keepdims=True)
    centred = b.emit(R.subtract(value, mean))
    return mean, _mean(b, b.emit(R.multiply(centred, centred)), axes, keepdims=True)


def _as_result(b: Builder, x: Expr, index: int) -> Expr:
    dtype = b.results[index].dtype
    return x if dtype is None else b.cast(x, dtype)


@cache
def _smallest_eps(dtype: torch.dtype) -> float:
    """What this PyTorch adds where no eps is given: the spacing at 1 of half precision, or of what
    it computes that in.
    """
    wide = torch.float32 if dtype.itemsize < 4 else dtype
    small = torch.full((1,), 2**-10, dtype=dtype)  # its square is far below the one, and above the other
    return float(torch.finfo(wide if torch.rms_norm(small, [1]).item() > 0.5 else dtype).eps)


@lowers("torch.aten.rms_norm")
def rms_norm(b: Builder, x: Tensor, normalized_shape: list[Size], weight: Tensor | None, eps: float | None) -> Expr:
    """aten::rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None,
    float? eps=None) -> Tensor"""
    dtype, count = _wide(b, x), len(normalized_shape)
    axes = _normalized(b, x, normalized_shape)
    if eps is None:
        eps = _smallest_eps(getattr(torch, b.dtype(x)))
    if 0 in b.shape(x):
        return _of_no_elements(b, x)
    if dtype == "float64" or count == b.rank(x):  # Relax's own computes in float32, over some dimensions
        value = b.cast(x, dtype)
        square = _mean(b, b.emit(R.multiply(value, value)), axes, keepdims=True)
        normal = b.emit(R.multiply(value, _inverse_deviation(b, square, eps)))
        return b.cast(_scaled(b, normal, weight), b.dtype(x))
    scale = _affine(b, weight, 1.0, normalized_shape, dtype)
    call = R.nn.rms_norm(b.cast(x, dtype), scale, axes=axes, epsilon=eps)
    return b.cast(b.emit(call), b.dtype(x))


# -- group and instance norm ----------------------------------------------------------------------------


def normalize_groups(b: Builder, x: Expr, groups: SizeLike, weight: Expr | None, bias: Expr | None, eps: float) -> Expr:
    """Group norm of ``(N, C, …)``."""
    shape, dtype = b.shape(x), _wide(b, x)
    problem = "the number of channels does not divide into the groups"
    if len(shape) < 2 or (isinstance(shape[1], int) and shape[1] % groups):
        b.unsupported(problem)
    if not isinstance(shape[1], int) and groups is not shape[1]:
        b.require(tirx.floormod(shape[1], as_size(groups)) == 0, problem)
    # Relax's own group norm takes E[x²] - E[x]², which cancels where the mean is large.
    size = product([quotient([shape[1]], [groups]), *shape[2:]])
    rows = reshape(b, b.cast(x, dtype), [shape[0], groups, size])
    normal = reshape(b, normalize_layer(b, rows, [size], None, None, eps), shape)
    vectors = [v if v is None else per_channel(b, v, len(shape)) for v in (weight, bias)]
    return b.cast(_scaled(b, normal, *vectors), b.dtype(x))


@lowers("torch.aten.group_norm")
def group_norm(
    b: Builder,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    cudnn_enabled: bool,
) -> Expr:
    """aten::group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None,
    float eps=1e-05, bool cudnn_enabled=True) -> Tensor"""
    return normalize_groups(b, x, num_groups, weight, bias, eps)


@lowers("torch.aten.native_group_norm")
def native_group_norm(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: Any,
    C: Any,
    HxW: Any,
    group: int,
    eps: float,
) -> list[Expr]:
    """aten::native_group_norm(Tensor input, Tensor? weight, Tensor? bias, SymInt N, SymInt C, SymInt HxW,
    int group, float eps) -> (Tensor, Tensor, Tensor)"""
    result = normalize_groups(b, x, group, weight, bias, eps)
    shape = b.shape(x)
    rows = reshape(b, x, [shape[0], group, product([shape[1] // group, *shape[2:]])])
    mean, variance = _moments(b, rows, [2])
    deviation = _inverse_deviation(b, variance, eps)
    flat = [squeeze_at(b, v, 2) for v in (_finite(b, mean), deviation)]
    return [result, *(_as_result(b, v, i) for i, v in enumerate(flat, 1))]


@lowers("torch.aten.instance_norm")
def instance_norm(
    b: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Expr:
    """aten::instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean,
    Tensor? running_var, bool use_input_stats, float momentum, float eps, bool cudnn_enabled) -> Tensor"""
    if not use_input_stats and running_mean is not None and running_var is not None:
        return normalize_batch(b, x, weight, bias, running_mean, running_var, eps)
    if running_mean is not None:
        b.unsupported("instance norm that updates its statistics in place")
    return normalize_groups(b, x, b.shape(x)[1], weight, bias, eps)


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten._native_batch_norm_legit_functional": native_batch_norm_functional,
    "torch.aten._native_batch_norm_legit.no_stats": native_batch_norm_no_stats,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
