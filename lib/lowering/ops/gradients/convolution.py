"""Gradients of convolutions: by a convolution the other way for the data, by one product for the weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.networks.convolution import convolve
from torch_tvm.lowering.ops.networks.matmul import product_of
from torch_tvm.lowering.ops.reductions.folds import sum_dtype, total
from torch_tvm.lowering.ops.shapes.padding import constant_pad_nd
from torch_tvm.lowering.ops.shapes.slicing import simplified, strided_slice
from torch_tvm.lowering.ops.shapes.views import permute, reshape, same_size
from torch_tvm.lowering.registry import Size, Tensor, lowers
from torch_tvm.tir import SizeLike, as_size, product, static_sizes

Expr: TypeAlias = relax.Expr


@lowers("torch.aten.convolution_backward")
def convolution_backward(
    b: Builder,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[Size] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> list[Expr]:
    """aten::convolution_backward(Tensor grad_output, Tensor input, Tensor weight, SymInt[]? bias_sizes, SymInt[]
    stride, SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups,
    bool[3] output_mask) -> (Tensor, Tensor, Tensor)"""
    spatial = b.rank(weight) - 2
    if spatial not in (1, 2, 3) or b.rank(x) != spatial + 2:
        b.unsupported(f"gradients of a convolution of rank {b.rank(x)} by a weight of rank {b.rank(weight)}")
    if any(isinstance(size, int) and size == 0 for size in (*b.shape(grad), *b.shape(x))):
        b.unsupported("gradients of a convolution of nothing")
    each = lambda values: list(values) * spatial if len(values) == 1 else list(values)
    stride, padding, dilation = each(stride), each(padding), each(dilation)
    nothing, outer, inner = b.const(0, b.dtype(x)), *((x, grad) if transposed else (grad, x))
    how = stride, padding, dilation, groups
    return [
        _of_data(b, grad, x, weight, transposed, *how) if output_mask[0] else nothing,
        _of_weight(b, outer, inner, b.shape(weight), *how) if output_mask[1] else nothing,
        _of_bias(b, grad) if output_mask[2] else nothing,
    ]


def _of_data(
    b: Builder,
    grad: Expr,
    x: Expr,
    weight: Expr,
    transposed: bool,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Expr:
    """``grad`` through the transposed convolution, or through the convolution that a transposed one is transposed of.

    A transposed one can be a stride larger than what was convolved, by which the input is longer than windows reach.
    """
    pads = [(pad, pad) for pad in padding]
    sizes, windows = b.shape(x)[2:], b.shape(weight)[2:]
    known = static_sizes(b.shape(weight))
    if not transposed and known is not None and all(step == 1 for step in stride):
        around = [gap * (k - 1) - pad for k, gap, pad in zip(known[2:], dilation, padding, strict=True)]
        if min(around) >= 0:
            return convolve(
                b, grad, _turned(b, weight, known, groups), None, stride, [(n, n) for n in around], dilation, groups
            )
    extra = None
    if not transposed:
        extra = [
            _missing(size, out, step, pad, gap * (k - 1) + 1)
            for size, out, step, pad, gap, k in zip(
                sizes, b.shape(grad)[2:], stride, padding, dilation, windows, strict=True
            )
        ]
    result = convolve(b, grad, weight, None, stride, pads, dilation, groups, extra)
    for axis, size in enumerate(sizes, start=2):
        if not same_size(b.shape(result)[axis], size):
            result = strided_slice(b, result, axis, 0, size)
    return result


def _turned(b: Builder, weight: Expr, shape: Sequence[int], groups: int) -> Expr:
    """The weight, of ``shape``, with channels the other way and windows back to front.

    The convolution of stride 1 by it is the transposed one by the weight, and has kernels that those have not.
    """
    outputs, inputs, *window = shape
    outputs //= groups

    def turned(data: te.Tensor) -> te.Tensor:
        def element(channel: Any, output: Any, *k: Any) -> Any:
            of_group = tirx.floordiv(channel, inputs) * outputs + output if groups > 1 else output
            back = [size - 1 - place for size, place in zip(window, k, strict=True)]
            return data(of_group, tirx.floormod(channel, inputs) if groups > 1 else channel, *back)

        return te.compute([inputs * groups, outputs, *window], element, name="turned_weight")

    return b.te(turned, weight, name="turned_weight")


def _missing(size: SizeLike, out: SizeLike, step: int, pad: int, reach: int) -> int:
    """How much longer an input is than the transposed convolution makes it; the most that it can be where unknown."""
    if isinstance(size, int) and isinstance(out, int):
        return size - ((out - 1) * step - 2 * pad + reach)
    return step - 1


def _of_weight(
    b: Builder,
    outer: Expr,
    inner: Expr,
    shape: Sequence[SizeLike],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Expr:
    """Of a weight of ``shape``, products of ``outer``, at whose places windows lie, with the windows of ``inner``.

    ``outer`` is the gradient and ``inner`` the input; of a transposed convolution it is the other way round.
    """
    count = product([b.shape(outer)[0], *b.shape(outer)[2:]])
    rows, columns = as_size(shape[0]) // groups, product(shape[1:])
    windows = _windows(b, inner, b.shape(outer)[2:], shape[2:], stride, padding, dilation)
    places = permute(b, outer, [0, *range(2, b.rank(outer)), 1])
    if groups == 1:
        wide = product_of(b, reshape(b, windows, [columns, count]), reshape(b, places, [count, rows]))
        return reshape(b, permute(b, wide, [1, 0]), shape)
    left = reshape(b, windows, [groups, columns, count])
    right = permute(b, reshape(b, places, [count, groups, rows]), [1, 0, 2])
    return reshape(b, permute(b, product_of(b, left, right), [0, 2, 1]), shape)


def _windows(
    b: Builder,
    x: Expr,
    places: Sequence[SizeLike],
    kernel: Sequence[SizeLike],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Expr:
    """(C, *kernel, N, *places): what the windows at all places hold, zeros outside of ``x``."""
    if all(same_size(k, 1) for k in kernel) and not any(padding) and all(step == 1 for step in stride):
        cut = x
        for axis, size in enumerate(places, start=2):
            if not same_size(b.shape(x)[axis], size):
                cut = strided_slice(b, cut, axis, 0, size)
        return permute(b, cut, [1, 0, *range(2, b.rank(x))])
    count = len(stride)
    needed = [
        (as_size(o) - 1) * step + (as_size(k) - 1) * gap + 1
        for o, k, step, gap in zip(places, kernel, stride, dilation, strict=True)
    ]
    after = [simplified(n - size - pad) for n, size, pad in zip(needed, b.shape(x)[2:], padding, strict=True)]
    pads = [edge for pad, end in zip(reversed(padding), reversed(after), strict=True) for edge in (pad, end)]
    x = constant_pad_nd(b, x, pads, 0)  # a window of what is padded is a plain copy

    def body(data: te.Tensor, places: list[Any], kernel: list[Any]) -> te.Tensor:
        def element(channel: Any, *i: Any) -> Any:
            within, image, at = i[:count], i[count], i[count + 1 :]
            points = [o * step + k * gap for o, k, step, gap in zip(at, within, stride, dilation, strict=True)]
            return data(image, channel, *points)

        shape = [data.shape[1], *map(as_size, kernel), data.shape[0], *map(as_size, places)]
        return te.compute(shape, element, name="windows")

    return b.te(body, x, list(places), list(kernel), name="windows")


def _of_bias(b: Builder, grad: Expr) -> Expr:
    axes = [0, *range(2, b.rank(grad))]
    dtype = b.dtype(grad)
    return total(b, grad, axes, False, accumulate=sum_dtype(b, grad, axes, dtype), result=dtype)
