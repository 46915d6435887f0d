"""Gradients of pooling: to the largest element of each window, or to all alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.scatter import write_at
from torch_tvm.lowering.ops.networks.pooling import Window, bounds_of, covered
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import SizeLike, as_size, ceil_div, compute_dtype, product

Expr: TypeAlias = relax.Expr


def to_largest(b: Builder, grad: Expr, x: Expr, indices: Expr, spatial: int) -> Expr:
    """The elements of ``grad`` added at the flat positions in their channels that ``indices`` gives."""
    sizes = b.shape(x)
    channels, room = product(sizes[:-spatial]), product(sizes[-spatial:])
    if any(isinstance(size, int) and size == 0 for size in sizes):
        b.unsupported("a gradient of nothing")
    wide = compute_dtype(b.dtype(x))

    def places(indices: te.Tensor, room: list[Any]) -> te.Tensor:
        place = lambda c, i: tirx.Cast("int64", c) * as_size(room[0]) + indices(c, i)
        return te.compute(indices.shape, place, name="place")

    each = product(b.shape(indices)[-spatial:])
    where = b.te(places, reshape(b, indices, [channels, each]), [room], name="places")
    zeros = b.broadcast(b.const(0, wide), [product([channels, room])])
    return b.cast(reshape(b, write_at(b, zeros, where, grad, "sum", groups=channels), sizes), b.dtype(x))


def spread(
    b: Builder,
    grad: Expr,
    x: Expr,
    spatial: int,
    candidates: Sequence[SizeLike],
    share: Any,
) -> Expr:
    """Sums over the windows that hold each place of ``x``.

    ``share(axis, place, number, size, count)`` gives the window ``number`` of the ``candidates`` at a place along an
    axis, whether it holds the place, and how many places it has.
    """
    sizes, counts = b.shape(x), b.shape(grad)[-spatial:]
    channels = product(sizes[:-spatial])
    if any(isinstance(size, int) and size == 0 for size in (*sizes, *counts)):
        b.unsupported("a gradient of nothing")
    dtype = b.dtype(x)
    wide = compute_dtype(dtype)

    def body(grad: te.Tensor, sizes: list[Any], candidates: list[Any]) -> te.Tensor:
        axes = [te.reduce_axis((0, as_size(c)), name=f"k{j}") for j, c in enumerate(candidates)]
        sizes = [as_size(size) for size in sizes]

        def total(channel: Any, *i: Any) -> Any:
            windows, inside, places = [], [], tirx.const(1, "int64")
            for axis, (place, number) in enumerate(zip(i, axes, strict=True)):
                window, holds, many = share(axis, place, number, sizes[axis], grad.shape[axis + 1])
                windows.append(window)
                inside += [window >= 0, window < grad.shape[axis + 1], holds]
                places = places * many
            part = tirx.Cast(wide, grad(channel, *windows)) / tirx.Cast(wide, places)
            return te.sum(tirx.if_then_else(tirx.all(*inside), part, tirx.const(0, wide)), axis=axes)

        return te.compute([grad.shape[0], *sizes], total, name="spread")

    flat = reshape(b, grad, [channels, *counts])
    result = b.te(body, flat, list(sizes[-spatial:]), list(candidates), name="spread")
    return b.cast(reshape(b, result, sizes), dtype)


def _max_pool(spatial: int) -> None:
    def to_windows(
        b: Builder,
        grad: Tensor,
        x: Tensor,
        kernel_size: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        ceil_mode: bool,
        indices: Tensor,
    ) -> Expr:
        return to_largest(b, grad, x, indices, spatial)

    def adaptive(b: Builder, grad: Tensor, x: Tensor, indices: Tensor) -> Expr:
        return to_largest(b, grad, x, indices, spatial)

    name = f"max_pool{spatial}d_with_indices_backward"
    to_windows.__doc__ = (
        f"aten::{name}(Tensor grad_output, Tensor self, int[] kernel_size, int[] stride, int[] padding, "
        "int[] dilation, bool ceil_mode, Tensor indices) -> Tensor"
    )
    register(f"torch.aten.{name}", to_windows)
    name = f"adaptive_max_pool{spatial}d_backward"
    adaptive.__doc__ = f"aten::{name}(Tensor grad_output, Tensor self, Tensor indices) -> Tensor"
    register(f"torch.aten.{name}", adaptive, custom=True)


def _avg_pool(spatial: int) -> None:
    def of_windows(
        b: Builder,
        grad: Tensor,
        x: Tensor,
        kernel_size: list[int],
        stride: list[int],
        padding: list[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Expr:
        window = Window(b, x, spatial, kernel_size, stride, padding, [1], ceil_mode)

        def share(axis: int, place: Any, number: Any, size: Any, count: Any) -> tuple[Any, Any, Any]:
            step, pad, k = window.stride[axis], window.padding[axis], window.kernel[axis]
            at = tirx.floordiv(place + pad, step) - number
            many = covered(at, step, pad, k, size, count_include_pad)
            if divisor_override is not None:
                many = tirx.const(divisor_override if axis == 0 else 1, "int64")
            return at, place + pad - at * step < k, many

        pairs = zip(window.kernel, window.stride, strict=True)
        return spread(b, grad, x, spatial, [ceil_div(k, step) for k, step in pairs], share)

    def adaptive(b: Builder, grad: Tensor, x: Tensor) -> Expr:
        counts, sizes = b.shape(grad)[-spatial:], b.shape(x)[-spatial:]

        def share(axis: int, place: Any, number: Any, size: Any, count: Any) -> tuple[Any, Any, Any]:
            at = tirx.floordiv(place * count, size) + number
            start, end = bounds_of(at, size, count)
            return at, tirx.all(start <= place, place < end), end - start

        pairs = zip(counts, sizes, strict=True)
        return spread(b, grad, x, spatial, [_quotient(count, size) + 2 for count, size in pairs], share)

    name = f"avg_pool{spatial}d_backward"
    of_windows.__doc__ = (
        f"aten::{name}(Tensor grad_output, Tensor self, int[] kernel_size, int[] stride, int[] padding, "
        "bool ceil_mode, bool count_include_pad, int? divisor_override) -> Tensor"
    )
    register(f"torch.aten.{name}", of_windows, custom=True)
    name = f"_adaptive_avg_pool{spatial}d_backward"
    adaptive.__doc__ = f"aten::{name}(Tensor grad_output, Tensor self) -> Tensor"
    register(f"torch.aten.{name}", adaptive, custom=True)


def _quotient(count: SizeLike, size: SizeLike) -> SizeLike:
    known = isinstance(count, int) and isinstance(size, int)
    return count // size if known else tirx.floordiv(as_size(count), as_size(size))


for _spatial in (2, 3):
    _max_pool(_spatial)
    _avg_pool(_spatial)
