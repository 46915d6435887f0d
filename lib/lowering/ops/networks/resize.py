"""Resampling of images, and moving blocks of pixels between channels and space."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.views import permute, quotient, reshape
from torch_tvm.lowering.registry import Lowering, Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, is_float, product

Expr: TypeAlias = relax.Expr

Sample = Callable[[te.Tensor, Sequence[Any], list[Any]], Any]


def _output_sizes(
    b: Builder, x: Expr, output_size: Sequence[SizeLike] | None, scales: Sequence[float] | None
) -> list[SizeLike]:
    sizes = b.shape(x)[2:]
    if output_size is not None:
        return list(output_size)
    if scales is None or len(scales) != len(sizes):
        b.unsupported("neither an output size nor scale factors")
    return [_scaled(size, scale) for size, scale in zip(sizes, scales, strict=True)]


def _scaled(size: SizeLike, scale: float) -> SizeLike:
    if isinstance(size, int):
        return int(size * scale)
    if float(scale).is_integer():
        return size * int(scale)
    return tirx.Cast("int64", tirx.Cast("float64", size) * tirx.const(scale, "float64"))


def _ratio(size: Any, count: Any, scale: float | None, dtype: str) -> Any:
    """Input pixels per output pixel."""
    if scale is not None and scale > 0:
        return tirx.const(1.0 / scale, dtype)
    return tirx.Cast(dtype, size) / tirx.Cast(dtype, count)


def _resample(b: Builder, x: Expr, sizes: Sequence[SizeLike], sample: Sample) -> Expr:
    _check_sizes(b, x, sizes)

    def body(data: te.Tensor, counts: list[Any]) -> te.Tensor:
        counts = [as_size(c) for c in counts]
        return te.compute([*data.shape[:2], *counts], lambda *i: sample(data, i, counts), name="resample")

    return b.te(body, x, list(sizes))


def _check_sizes(b: Builder, x: Expr, sizes: Sequence[SizeLike]) -> list[SizeLike]:
    """The spatial sizes of ``x``, which has two more dimensions; none of them, nor of the new ones, is empty."""
    if b.rank(x) != len(sizes) + 2:
        b.unsupported(f"an input of rank {b.rank(x)} for {len(sizes)} sizes")
    before = b.shape(x)[2:]
    if any(isinstance(s, int) and s < 1 for s in (*sizes, *before)):
        b.unsupported("an empty image")
    b.expect_within([1] * len(before), before, "the image is empty")
    return before


# -- nearest ------------------------------------------------------------------------------------------


def nearest(
    b: Builder, x: Expr, sizes: Sequence[SizeLike], scales: Sequence[float | None], *, exact: bool = False
) -> Expr:
    """The pixel at ``floor(place · ratio)``, in float32 as ATen computes it; ``exact`` adds half a pixel."""

    def place(o: Any, size: Any, count: Any, scale: float | None) -> Any:
        ratio = _ratio(size, count, scale, "float32")
        shifted = tirx.Cast("float32", o) + (0.5 if exact else 0.0)
        return tirx.max(tirx.min(tirx.Cast("int64", tirx.floor(shifted * ratio)), size - 1), 0)

    def sample(data: te.Tensor, i: Sequence[Any], counts: list[Any]) -> Any:
        parts = zip(i[2:], data.shape[2:], counts, scales, strict=True)
        return data(*i[:2], *(place(*part) for part in parts))

    return _resample(b, x, sizes, sample)


# -- by filters ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """The share of a pixel at a distance of up to ``reach``; ``clamped``: no place is before the first pixel."""

    weight: Callable[[Any], Any]
    reach: int
    clamped: bool = False


def _triangle(distance: Any) -> Any:
    one = tirx.const(1, str(distance.ty.dtype))
    return tirx.max(one - tirx.abs(distance), tirx.const(0, str(distance.ty.dtype)))


def _cubic(a: float) -> Callable[[Any], Any]:
    """Keys, Cubic convolution interpolation for digital image processing, 1981."""

    def weight(distance: Any) -> Any:
        d, constant = tirx.abs(distance), lambda value: tirx.const(value, str(distance.ty.dtype))
        near = ((constant(a + 2) * d - constant(a + 3)) * d) * d + constant(1)
        far = ((constant(a) * d - constant(5 * a)) * d + constant(8 * a)) * d - constant(4 * a)
        return tirx.Select(d >= constant(2), constant(0), tirx.Select(d <= constant(1), near, far))

    return weight


LINEAR = Filter(_triangle, 1, clamped=True)
CUBIC = Filter(_cubic(-0.75), 2)
LINEAR_AA, CUBIC_AA = Filter(_triangle, 1), Filter(_cubic(-0.5), 2)


def filtered(
    b: Builder,
    x: Expr,
    sizes: Sequence[SizeLike],
    kind: Filter,
    align_corners: bool,
    scales: Sequence[float | None],
    antialias: bool = False,
) -> Expr:
    """Weighted sums of the pixels around each place, one dimension after the other, weights from small tables.

    The last dimension, whose pixels are gathered, is taken while the image is smallest.
    """
    dtype = b.dtype(x)
    if not is_float(dtype):
        b.unsupported(f"interpolation of {dtype}")
    before = _check_sizes(b, x, sizes)
    wide = "float64" if dtype == "float64" else "float32"
    tables = []
    for size, count, scale in zip(before, sizes, scales, strict=True):
        if not antialias:
            tables.append(_interpolated(size, count, scale, kind, align_corners, wide))
        elif isinstance(size, int) and isinstance(count, int):
            tables.append(_antialiased(size, count, scale, kind, align_corners, wide))
        else:
            b.unsupported("an antialiased image of unknown size")
    order = list(range(len(sizes)))
    if all(isinstance(s, int) for s in (*before, *sizes)) and product(sizes[:-1]) > product(before[:-1]):
        order.reverse()
    value = b.cast(x, wide)
    for axis in order:
        table = functools.partial(_tables, *tables[axis])
        made = b.te(table, [before[axis], sizes[axis]], name="resize_table")
        places, weights = (b.emit(relax.TupleGetItem(made, i)) for i in range(2))
        value = b.te(functools.partial(_weighted, axis + 2, antialias), value, places, weights)
    return b.cast(value, dtype)


def _tables(taps: int, entry: Callable[..., tuple[Any, Any]], sizes: list[Any]) -> list[te.Tensor]:
    """Place and weight of each tap for each output place; a place of -1 is none."""
    size, count = (as_size(s) for s in sizes)
    part = lambda i: te.compute([taps, count], lambda k, o: entry(k, o, size, count)[i], name="table")
    return [part(0), part(1)]


def _weighted(axis: int, some: bool, data: te.Tensor, places: te.Tensor, weights: te.Tensor) -> te.Tensor:
    tap = te.reduce_axis((0, places.shape[0]), name="tap")
    shape = [places.shape[1] if a == axis else size for a, size in enumerate(data.shape)]

    def element(*i: Any) -> Any:
        at = places(tap, i[axis])
        part = data(*i[:axis], tirx.max(at, 0) if some else at, *i[axis + 1 :]) * weights(tap, i[axis])
        return te.sum(tirx.Select(at >= 0, part, tirx.const(0, data.dtype)) if some else part, axis=tap)

    return te.compute(shape, element, name="resample")


Table = tuple[int, Callable[..., tuple[Any, Any]]]


def _interpolated(
    size: SizeLike, count: SizeLike, scale: float | None, kind: Filter, align_corners: bool, wide: str
) -> Table:
    """The pixels on both sides of the place; those outside repeat the border."""

    def entry(k: Any, o: Any, size: Any, count: Any) -> tuple[Any, Any]:
        place, half = tirx.Cast(wide, o), tirx.const(0.5, wide)
        if align_corners:
            source = place * _corner_ratio(size, count, wide)
        else:
            source = _ratio(size, count, scale, wide) * (place + half) - half
        if kind.clamped:
            source = tirx.max(source, tirx.const(0, wide))
        low = tirx.floor(source)
        step = tirx.Cast("int64", k) - (kind.reach - 1)
        pixel = tirx.max(tirx.min(tirx.Cast("int64", low) + step, size - 1), 0)
        return pixel, kind.weight(source - low - tirx.Cast(wide, step))

    return 2 * kind.reach, entry


def _corner_ratio(size: Any, count: Any, wide: str) -> Any:
    step = tirx.Cast(wide, size - 1) / tirx.Cast(wide, tirx.max(count - 1, 1))
    return tirx.Select(count > 1, step, tirx.const(0, wide))


def _antialiased(size: int, count: int, scale: float | None, kind: Filter, align_corners: bool, wide: str) -> Table:
    """The pixels under the filter, which is as wide as an output pixel; their weights add up to one."""
    if align_corners:
        ratio = (size - 1) / (count - 1) if count > 1 else 0.0
    else:
        ratio = 1 / scale if scale else size / count
    stretch = max(ratio, 1.0)
    support = kind.reach * stretch
    taps = min(2 * math.ceil(support) + 1, size)
    constant = lambda value: tirx.const(value, wide)

    def entry(k: Any, o: Any, size: Any, count: Any) -> tuple[Any, Any]:
        center = constant(ratio) * (tirx.Cast(wide, o) + constant(0.5))
        edge = lambda place: tirx.Cast("int64", place + constant(0.5))
        first = tirx.max(edge(center - constant(support)), 0)
        last = tirx.min(edge(center + constant(support)), size)

        def share(k: Any) -> Any:
            pixel = first + k
            distance = (tirx.Cast(wide, pixel) - center + constant(0.5)) * constant(1 / stretch)
            return tirx.Select(pixel < last, kind.weight(distance), constant(0))

        total = functools.reduce(operator.add, (share(tirx.const(j, "int64")) for j in range(taps)))
        pixel = first + tirx.Cast("int64", k)
        return tirx.Select(pixel < last, pixel, tirx.const(-1, "int64")), share(tirx.Cast("int64", k)) / total

    return taps, entry


# -- the ops ------------------------------------------------------------------------------------------


def _nearest_vec(name: str, *, exact: bool, custom: bool) -> None:
    def lowering(b: Builder, x: Tensor, output_size: list[Size] | None, scale_factors: list[float] | None) -> Expr:
        sizes = _output_sizes(b, x, output_size, scale_factors)
        return nearest(b, x, sizes, scale_factors or [None] * len(sizes), exact=exact)

    lowering.__doc__ = f"aten::{name}(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor"
    register(f"torch.aten.{name}", lowering, custom=custom)


def _filtered_vec(name: str, kind: Filter, *, custom: bool = True, antialias: bool = False) -> None:
    def lowering(
        b: Builder,
        x: Tensor,
        output_size: list[Size] | None,
        align_corners: bool,
        scale_factors: list[float] | None,
    ) -> Expr:
        sizes = _output_sizes(b, x, output_size, scale_factors)
        return filtered(b, x, sizes, kind, align_corners, scale_factors or [None] * len(sizes), antialias)

    tail = "SymInt[]? output_size, bool align_corners, float[]? scale_factors"
    lowering.__doc__ = f"aten::{name}(Tensor input, {tail}) -> Tensor"
    register(f"torch.aten.{name}", lowering, custom=custom)


for _count in (1, 2, 3):
    _nearest_vec(f"upsample_nearest{_count}d.vec", exact=False, custom=_count == 3)
    _nearest_vec(f"_upsample_nearest_exact{_count}d.vec", exact=True, custom=True)
_filtered_vec("upsample_linear1d.vec", LINEAR)
_filtered_vec("upsample_bilinear2d.vec", LINEAR, custom=False)
_filtered_vec("upsample_trilinear3d.vec", LINEAR)
_filtered_vec("upsample_bicubic2d.vec", CUBIC)
_filtered_vec("_upsample_bilinear2d_aa.vec", LINEAR_AA, antialias=True)
_filtered_vec("_upsample_bicubic2d_aa.vec", CUBIC_AA, antialias=True)


# The overloads with one scale for each dimension; a function's parameters are the op's operands, hence one for each
# rank.


def _nearest_plain(name: str, count: int, *, exact: bool = False, custom: bool = True) -> None:
    def one(b: Builder, x: Tensor, output_size: list[Size], scale: float | None) -> Expr:
        return nearest(b, x, output_size, [scale], exact=exact)

    def two(b: Builder, x: Tensor, output_size: list[Size], scales_h: float | None, scales_w: float | None) -> Expr:
        return nearest(b, x, output_size, [scales_h, scales_w], exact=exact)

    def three(
        b: Builder,
        x: Tensor,
        output_size: list[Size],
        scales_d: float | None,
        scales_h: float | None,
        scales_w: float | None,
    ) -> Expr:
        return nearest(b, x, output_size, [scales_d, scales_h, scales_w], exact=exact)

    lowering: Lowering = (one, two, three)[count - 1]
    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt[{count}] output_size, float? scales…) -> Tensor"
    register(f"torch.aten.{name}", lowering, custom=custom)


def _filtered_plain(name: str, count: int, kind: Filter, *, custom: bool = True, antialias: bool = False) -> None:
    def one(b: Builder, x: Tensor, output_size: list[Size], align_corners: bool, scales: float | None) -> Expr:
        return filtered(b, x, output_size, kind, align_corners, [scales], antialias)

    def two(
        b: Builder,
        x: Tensor,
        output_size: list[Size],
        align_corners: bool,
        scales_h: float | None,
        scales_w: float | None,
    ) -> Expr:
        return filtered(b, x, output_size, kind, align_corners, [scales_h, scales_w], antialias)

    def three(
        b: Builder,
        x: Tensor,
        output_size: list[Size],
        align_corners: bool,
        scales_d: float | None,
        scales_h: float | None,
        scales_w: float | None,
    ) -> Expr:
        return filtered(b, x, output_size, kind, align_corners, [scales_d, scales_h, scales_w], antialias)

    lowering: Lowering = (one, two, three)[count - 1]
    tail = f"SymInt[{count}] output_size, bool align_corners, float? scales…"
    lowering.__doc__ = f"aten::{name}(Tensor self, {tail}) -> Tensor"
    register(f"torch.aten.{name}", lowering, custom=custom)


_nearest_plain("upsample_nearest1d", 1, custom=False)
_nearest_plain("upsample_nearest2d", 2, custom=False)
_nearest_plain("upsample_nearest3d", 3)
for _count in (1, 2, 3):
    _nearest_plain(f"_upsample_nearest_exact{_count}d", _count, exact=True)
_filtered_plain("upsample_linear1d", 1, LINEAR)
_filtered_plain("upsample_bilinear2d", 2, LINEAR, custom=False)
_filtered_plain("upsample_trilinear3d", 3, LINEAR)
_filtered_plain("upsample_bicubic2d", 2, CUBIC)
_filtered_plain("_upsample_bilinear2d_aa", 2, LINEAR_AA, antialias=True)
_filtered_plain("_upsample_bicubic2d_aa", 2, CUBIC_AA, antialias=True)


@lowers("torch.aten.pixel_shuffle")
def pixel_shuffle(b: Builder, x: Tensor, upscale_factor: int) -> Expr:
    """aten::pixel_shuffle(Tensor self, int upscale_factor) -> Tensor"""
    *batch, channels, height, width = b.shape(x)
    r, n = upscale_factor, len(batch)
    if isinstance(channels, int) and channels % (r * r):
        b.unsupported("the channels do not divide by the square of the factor")
    if not isinstance(channels, int):
        problem = "the channels do not divide by the square of the factor"
        b.require(tirx.floormod(channels, as_size(r * r)) == 0, problem)
    planes = quotient([channels], [r * r])
    split = reshape(b, x, [*batch, planes, r, r, height, width])
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reshape(b, permute(b, split, order), [*batch, planes, height * r, width * r])


@lowers("torch.aten.pixel_unshuffle")
def pixel_unshuffle(b: Builder, x: Tensor, downscale_factor: int) -> Expr:
    """aten::pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor"""
    *batch, channels, height, width = b.shape(x)
    r, n = downscale_factor, len(batch)
    for size in (height, width):
        if isinstance(size, int) and size % r:
            b.unsupported("the image does not divide by the factor")
        if not isinstance(size, int):
            b.require(tirx.floormod(size, as_size(r)) == 0, "the image does not divide by the factor")
    rows, columns = quotient([height], [r]), quotient([width], [r])
    split = reshape(b, x, [*batch, channels, rows, r, columns, r])
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return reshape(b, permute(b, split, order), [*batch, channels * r * r, rows, columns])
