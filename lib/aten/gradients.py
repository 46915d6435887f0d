"""Gradients that PyTorch has one op for, in terms of other ops.

Each function takes what its op takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def replication_pad_backward(grad: Tensor, x: Tensor, padding: Sequence[Any]) -> Tensor:
    """aten::replication_pad2d_backward(Tensor grad_output, Tensor self, SymInt[4] padding) -> Tensor

    What was repeated at an edge is summed into it, what was cut off has a gradient of zero.
    """
    for index in range(len(padding) // 2):
        axis, low, high = -1 - index, padding[2 * index], padding[2 * index + 1]
        if low > 0:
            first = aten.slice(grad, axis, 0, low + 1).sum(axis, keepdim=True)
            grad = torch.cat([first, aten.slice(grad, axis, low + 1)], axis)
        if high > 0:
            last = aten.slice(grad, axis, -high - 1).sum(axis, keepdim=True)
            grad = torch.cat([aten.slice(grad, axis, 0, -high - 1), last], axis)
        if low < 0 or high < 0:
            grad = torch.constant_pad_nd(grad, [0, 0] * index + [max(0, -low), max(0, -high)])
    return grad


def upsample_nearest_backward(
    resize: Callable[..., Tensor],
    grad: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    *scales: float | None,
) -> Tensor:
    """aten::upsample_nearest2d_backward(Tensor grad_output, SymInt[2] output_size, SymInt[4] input_size,
    float? scales_h=None, float? scales_w=None) -> Tensor

    Each element is the sum of what it was repeated to; ``resize`` is the op along one axis.
    """
    for axis, size in enumerate(input_size[2:], 2):
        scale = scales[axis - 2] if scales else None
        source = resize(torch.arange(float(size)).reshape(1, 1, -1), [output_size[axis - 2]], scale).reshape(-1).long()
        shape = [*grad.shape[:axis], size, *grad.shape[axis + 1 :]]
        grad = grad.new_zeros(shape).index_add(axis, source, grad)
    return grad


def log_sigmoid_backward(grad: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    """aten::log_sigmoid_backward(Tensor grad_output, Tensor self, Tensor buffer) -> Tensor

    The buffer has exp(-abs(x)).
    """
    small = buffer / (1 + buffer)
    return grad * torch.where(x < 0, 1 - small, small)


def cdist_backward(grad: Tensor, x: Tensor, y: Tensor, p: float, distance: Tensor) -> Tensor:
    """aten::_cdist_backward(Tensor grad, Tensor x1, Tensor x2, float p, Tensor cdist) -> Tensor

    ``[*, n, k]``, of distances ``[*, n, m]``; zero where a distance is.
    """
    if p == 0:
        return torch.zeros_like(x)
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    grad, distance = grad.unsqueeze(-1), distance.unsqueeze(-1)
    size = difference.abs()
    if p == 1:
        return (grad * difference.sign()).sum(-2)
    if math.isinf(p):
        return torch.where(size == distance, grad * difference.sign(), 0).sum(-2)
    if p == 2:
        return torch.where(distance == 0, 0, grad * difference / distance).sum(-2)
    slope = difference.sign() * size ** (p - 1) / distance ** (p - 1)
    is_flat = (distance == 0) | (size == 0) if p < 1 else distance == 0
    return torch.where(is_flat, 0, grad * slope).sum(-2)


def weight_norm_backward(grad: Tensor, v: Tensor, g: Tensor, norms: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """aten::_weight_norm_interface_backward(Tensor grad_w, Tensor saved_v, Tensor saved_g, Tensor saved_norms, int dim)

    The gradients of ``v`` and ``g``, for ``w = g * v / |v|``.
    """
    others = [axis for axis in range(v.dim()) if axis != dim % v.dim()]
    grad, direction = grad.to(norms.dtype), v.to(norms.dtype) / norms
    along = (grad * direction).sum(others, keepdim=True)
    return (g / norms * (grad - direction * along)).to(v.dtype), along.to(g.dtype)


def softmax_backward(grad: Tensor, result: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """aten::_softmax_backward_data(Tensor grad_output, Tensor output, int dim, ScalarType input_dtype) -> Tensor

    As PyTorch's kernel has it, which tells infinite gradients apart where ``result * grad - result * sum`` is NaN.
    """
    wide = torch.promote_types(grad.dtype, torch.float32)
    grad, result = grad.to(wide), result.to(wide)
    return ((grad - (grad * result).sum(dim, keepdim=True)) * result).to(dtype)


def fractional_max_pool_backward(
    grad: Tensor, x: Tensor, kernel_size: Sequence[int], output_size: Sequence[int], indices: Tensor
) -> Tensor:
    """aten::fractional_max_pool2d_backward(Tensor grad_output, Tensor self, int[2] kernel_size, int[2] output_size,
    Tensor indices) -> Tensor

    ``indices`` are positions in an image, and windows overlap.
    """
    outer = x.shape[: x.dim() - len(output_size)]
    zeros = torch.zeros_like(x).reshape(*outer, -1)
    return zeros.scatter_add(-1, indices.reshape(*outer, -1), grad.reshape(*outer, -1)).reshape(x.shape)


GRADIENTS: dict[torch._ops.OpOverload, Callable[..., Any]] = {
    **{getattr(aten, f"replication_pad{n}d_backward").default: replication_pad_backward for n in (1, 2, 3)},
    **{getattr(aten, f"fractional_max_pool{n}d_backward").default: fractional_max_pool_backward for n in (2, 3)},
    **{
        getattr(aten, f"{kind}{n}d_backward").default: partial(
            upsample_nearest_backward, getattr(aten, f"{kind}1d").default
        )
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for n in (1, 2, 3)
    },
    aten.log_sigmoid_backward.default: log_sigmoid_backward,
    aten._cdist_backward.default: cdist_backward,
    aten._weight_norm_interface_backward.default: weight_norm_backward,
    aten._softmax_backward_data.default: softmax_backward,
}
"""The function for each op."""

__all__ = ["GRADIENTS"]
