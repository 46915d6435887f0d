"""Resampling of images, and moving blocks of pixels between channels and space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder, SizeLike, as_size
from torch_tvm.lowering.ops.shape import permute, reshape
from torch_tvm.lowering.registry import Size, Tensor, lowers, register

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
    if b.rank(x) != len(sizes) + 2:
        b.unsupported(f"an input of rank {b.rank(x)} for {len(sizes)} sizes")
    if any(isinstance(s, int) and s < 1 for s in (*sizes, *b.shape(x)[2:])):
        b.unsupported("an empty image")

    def body(data: te.Tensor, counts: list[Any]) -> te.Tensor:
        counts = [as_size(c) for c in counts]
        return te.compute([*data.shape[:2], *counts], lambda *i: sample(data, i, counts), name="resample")

    return b.te(body, x, list(sizes))


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


# -- linear -------------------------------------------------------------------------------------------


def linear(
    b: Builder, x: Expr, sizes: Sequence[SizeLike], align_corners: bool, scales: Sequence[float | None]
) -> Expr:
    """Linear interpolation in every spatial dimension; half precisions and integers compute in float32."""
    dtype = b.dtype(x)
    wide = "float64" if dtype == "float64" else "float32"

    def neighbours(o: Any, size: Any, count: Any, scale: float | None) -> list[tuple[Any, Any]]:
        zero, half = tirx.const(0, wide), tirx.const(0.5, wide)
        place = tirx.Cast(wide, o)
        if align_corners:
            step = tirx.Cast(wide, size - 1) / tirx.Cast(wide, tirx.max(count - 1, 1))
            source = place * tirx.Select(count > 1, step, zero)
        else:
            ratio = _ratio(size, count, scale, wide)
            source = tirx.max(ratio * (place + half) - half, zero)
        low = tirx.min(tirx.Cast("int64", source), size - 1)
        high = tirx.min(low + 1, size - 1)
        weight = tirx.max(tirx.min(source - tirx.Cast(wide, low), tirx.const(1, wide)), zero)
        return [(low, tirx.const(1, wide) - weight), (high, weight)]

    def sample(data: te.Tensor, i: Sequence[Any], counts: list[Any]) -> Any:
        parts = zip(i[2:], data.shape[2:], counts, scales, strict=True)
        choices = [neighbours(*part) for part in parts]

        def blend(axis: int, places: list[Any]) -> Any:
            if axis == len(choices):
                return tirx.Cast(wide, data(*i[:2], *places))
            (low, left), (high, right) = choices[axis]
            return blend(axis + 1, [*places, low]) * left + blend(axis + 1, [*places, high]) * right

        return tirx.Cast(dtype, blend(0, []))

    if not dtype.startswith(("float", "bfloat")):
        b.unsupported(f"linear interpolation of {dtype}")
    return _resample(b, x, sizes, sample)


# -- the ops ------------------------------------------------------------------------------------------


def _nearest_vec(name: str, *, exact: bool, custom: bool) -> None:
    def lowering(
        b: Builder, x: Tensor, output_size: list[Size] | None, scale_factors: list[float] | None
    ) -> Expr:
        sizes = _output_sizes(b, x, output_size, scale_factors)
        return nearest(b, x, sizes, scale_factors or [None] * len(sizes), exact=exact)

    lowering.__doc__ = f"aten::{name}(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor"
    register(f"torch.aten.{name}", lowering, custom=custom)


def _linear_vec(name: str, *, custom: bool) -> None:
    def lowering(
        b: Builder,
        x: Tensor,
        output_size: list[Size] | None,
        align_corners: bool,
        scale_factors: list[float] | None,
    ) -> Expr:
        sizes = _output_sizes(b, x, output_size, scale_factors)
        return linear(b, x, sizes, align_corners, scale_factors or [None] * len(sizes))

    tail = "SymInt[]? output_size, bool align_corners, float[]? scale_factors"
    lowering.__doc__ = f"aten::{name}(Tensor input, {tail}) -> Tensor"
    register(f"torch.aten.{name}", lowering, custom=custom)


for _count in (1, 2, 3):
    _nearest_vec(f"upsample_nearest{_count}d.vec", exact=False, custom=_count == 3)
    _nearest_vec(f"_upsample_nearest_exact{_count}d.vec", exact=True, custom=True)
_linear_vec("upsample_linear1d.vec", custom=True)
_linear_vec("upsample_bilinear2d.vec", custom=False)
_linear_vec("upsample_trilinear3d.vec", custom=True)


@lowers("torch.aten.upsample_nearest1d")
def upsample_nearest1d(b: Builder, x: Tensor, output_size: list[Size], scales: float | None) -> Expr:
    """aten::upsample_nearest1d(Tensor self, SymInt[1] output_size, float? scales=None) -> Tensor"""
    return nearest(b, x, output_size, [scales])


@lowers("torch.aten.upsample_nearest2d")
def upsample_nearest2d(
    b: Builder, x: Tensor, output_size: list[Size], scales_h: float | None, scales_w: float | None
) -> Expr:
    """aten::upsample_nearest2d(Tensor self, SymInt[2] output_size, float? scales_h=None,
    float? scales_w=None) -> Tensor"""
    return nearest(b, x, output_size, [scales_h, scales_w])


@lowers("torch.aten.upsample_bilinear2d")
def upsample_bilinear2d(
    b: Builder,
    x: Tensor,
    output_size: list[Size],
    align_corners: bool,
    scales_h: float | None,
    scales_w: float | None,
) -> Expr:
    """aten::upsample_bilinear2d(Tensor self, SymInt[2] output_size, bool align_corners,
    float? scales_h=None, float? scales_w=None) -> Tensor"""
    return linear(b, x, output_size, align_corners, [scales_h, scales_w])


@lowers("torch.aten.pixel_shuffle")
def pixel_shuffle(b: Builder, x: Tensor, upscale_factor: int) -> Expr:
    """aten::pixel_shuffle(Tensor self, int upscale_factor) -> Tensor"""
    *batch, channels, height, width = b.shape(x)
    r, n = upscale_factor, len(batch)
    if not isinstance(channels, int) or channels % (r * r):
        b.unsupported("the channels do not divide by the square of the factor")
    split = reshape(b, x, [*batch, channels // (r * r), r, r, height, width])
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reshape(b, permute(b, split, order), [*batch, channels // (r * r), height * r, width * r])


@lowers("torch.aten.pixel_unshuffle")
def pixel_unshuffle(b: Builder, x: Tensor, downscale_factor: int) -> Expr:
    """aten::pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor"""
    *batch, channels, height, width = b.shape(x)
    r, n = downscale_factor, len(batch)
    if not isinstance(height, int) or not isinstance(width, int) or height % r or width % r:
        b.unsupported("the image does not divide by the factor")
    split = reshape(b, x, [*batch, channels, height // r, r, width // r, r])
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return reshape(b, permute(b, split, order), [*batch, channels * r * r, height // r, width // r])
