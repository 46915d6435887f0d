"""Sampling of images at places that a grid gives, and the grids of affine maps."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder, plain_size
from torch_tvm.lowering.ops.networks.resize import CUBIC
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.pointwise import libm, named
from torch_tvm.lowering.registry import Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, is_float, product

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = Any

BILINEAR, NEAREST, BICUBIC = range(3)
ZEROS, BORDER, REFLECTION = range(3)
Tap: TypeAlias = tuple[Callable[..., Scalar], Callable[..., Scalar]]
"""Of a point of the grid: a place along an axis (-1: outside) and its weight."""

TAPS = {BILINEAR: 2, NEAREST: 1, BICUBIC: 4}


@lowers("torch.aten.grid_sampler")
def grid_sampler(
    b: Builder, x: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Expr:
    """aten::grid_sampler(Tensor input, Tensor grid, int interpolation_mode, int padding_mode,
    bool align_corners) -> Tensor"""
    dims, dtype = b.rank(x) - 2, b.dtype(x)
    if dims not in (2, 3) or b.rank(grid) != dims + 2 or b.dtype(grid) != dtype or not is_float(dtype):
        b.unsupported("an image and a grid that do not go together")
    if interpolation_mode == BICUBIC and dims == 3:
        b.unsupported("bicubic sampling of a volume")
    b.expect_equal(b.shape(grid)[:1], b.shape(x)[:1], "the grid has another batch than the image")
    sizes, shape = b.shape(x)[2:], [*b.shape(x)[:2], *b.shape(grid)[1:-1]]
    if 0 in sizes:
        b.unsupported("an empty image")
    if 0 in shape:
        return b.emit(relax.op.zeros(relax.ShapeExpr([as_size(s) for s in shape]), dtype))
    wide = compute_dtype(dtype)
    flat = reshape(b, x, [*b.shape(x)[:2], product(sizes)])

    def kernel(data: te.Tensor, points: te.Tensor, sizes: list[Any]) -> te.Tensor:
        return _Sampler(interpolation_mode, padding_mode, align_corners, wide, sizes).sample(data, points)

    return b.cast(b.te(kernel, b.cast(flat, wide), b.cast(grid, wide), list(sizes)), dtype)


class _Sampler:
    """The corners around each place of the grid and their weights, each computed once for all channels.

    A corner is a position in the flattened image, or -1 outside of it.
    """

    def __init__(self, mode: int, padding: int, align_corners: bool, dtype: str, sizes: Sequence[SizeLike]) -> None:
        self.mode, self.padding, self.align_corners, self.dtype = mode, padding, align_corners, dtype
        self.sizes = [plain_size(size) for size in sizes]
        pixels = product(self.sizes)
        self.place_dtype = "int32" if isinstance(pixels, int) and pixels < 1 << 31 else "int64"

    def sample(self, data: te.Tensor, grid: te.Tensor) -> te.Tensor:
        shape = [*data.shape[:2], *grid.shape[1:-1]]
        axes = [self._taps(grid, axis) for axis in range(len(self.sizes))]
        corners = [self._corner(combination, grid.shape[:-1]) for combination in itertools.product(*axes)]

        def element(n: Scalar, c: Scalar, *place: Scalar) -> Scalar:
            parts: list[Scalar] = []
            for corner, weight in corners:
                at = corner(n, *place)
                inside, zero = at >= tirx.const(0, self.place_dtype), tirx.const(0, self.dtype)
                value = data(n, c, tirx.Cast("int64", tirx.max(at, tirx.const(0, self.place_dtype))))
                if self.mode == NEAREST:
                    parts.append(tirx.Select(inside, value, zero))
                elif len(place) == 3:
                    parts.append(tirx.Select(inside, value * weight(n, *place), zero))
                else:
                    parts.append(tirx.Select(inside, value, zero) * weight(n, *place))
            return functools.reduce(operator.add, parts)

        return te.compute(shape, element, name="sampled")

    def _taps(self, grid: te.Tensor, axis: int) -> list[Tap]:
        """The taps along ``axis`` for a point of the grid."""
        size, last = self.sizes[axis], len(self.sizes) - 1
        limit = self._number(size) - self._number(1)
        inner = self.mode == BICUBIC

        def source(*i: Scalar) -> Scalar:
            value = self._unnormalized(grid(*i, last - axis), size)
            return value if inner else self._padded(value, size)

        if self.mode != NEAREST:
            source = te.compute(grid.shape[:-1], source, name="source")

        def tap(number: int) -> Tap:
            step = self._number(number - (TAPS[self.mode] - 1) // 2)

            def pixel(value: Scalar) -> Scalar:
                inside = tirx.all(value >= self._number(0), value <= limit)
                number = tirx.Cast(self.place_dtype, tirx.Select(inside, value, self._number(0)))
                return tirx.Select(inside, number, tirx.const(-1, self.place_dtype))

            def place(*i: Scalar) -> Scalar:
                value = source(*i)
                value = tirx.nearbyint(value) if self.mode == NEAREST else tirx.floor(value) + step
                return named(self._padded(value, size) if inner else value, pixel)

            def weight(*i: Scalar) -> Scalar:
                fraction = source(*i) - tirx.floor(source(*i))
                if inner:
                    return named(fraction - step, CUBIC.weight)
                return fraction if number else self._number(1) - fraction

            if inner:
                return tuple(te.compute(grid.shape[:-1], part, name="tap") for part in (place, weight))
            return place, weight

        return [tap(number) for number in range(TAPS[self.mode])]

    def _corner(self, taps: Sequence[Tap], shape: Sequence[Any]) -> Tap:
        """One tap along each axis: the position that they have in common, and the product of their weights."""

        def position(*i: Scalar) -> Scalar:
            def after(axis: int, flat: Scalar, least: Scalar) -> Scalar:
                if axis == len(taps):
                    return tirx.Select(least < tirx.const(0, self.place_dtype), least, flat)
                row = flat * tirx.Cast(self.place_dtype, self.sizes[axis])
                return named(taps[axis][0](*i), lambda at: after(axis + 1, row + at, tirx.min(least, at)))

            zero = tirx.const(0, self.place_dtype)
            return after(0, zero, zero)

        def share(*i: Scalar) -> Scalar:
            return functools.reduce(operator.mul, (weight(*i) for _, weight in taps))

        if self.mode == BICUBIC:
            return position, share
        return tuple(te.compute(shape, part, name="corner") for part in (position, share))

    # -- coordinates -------------------------------------------------------------------------------------

    def _number(self, value: Any) -> Scalar:
        return tirx.const(value, self.dtype) if isinstance(value, (int, float)) else tirx.Cast(self.dtype, value)

    def _unnormalized(self, value: Scalar, size: SizeLike) -> Scalar:
        """From -1 … 1 to pixels, rounded as ATen's vectors do, or as its loop over volumes."""
        if len(self.sizes) == 3:
            if self.align_corners:
                return (value + self._number(1)) * self._number(0.5) * (self._number(size) - self._number(1))
            return ((value + self._number(1)) * self._number(size) - self._number(1)) * self._number(0.5)
        if self.align_corners:
            return (value + self._number(1)) * ((self._number(size) - self._number(1)) * self._number(0.5))
        return (value + self._number(1)) * (self._number(size) * self._number(0.5)) - self._number(0.5)

    def _padded(self, value: Scalar, size: SizeLike) -> Scalar:
        """A coordinate where the image is continued; NaN is the first pixel, in a volume the last, as in ATen."""
        if self.padding == ZEROS:
            return value
        zero, limit = self._number(0), self._number(size) - self._number(1)
        if self.padding == REFLECTION:
            value = self._reflected(value, size)
        upper = lambda inner: tirx.Select(inner < limit, inner, limit)
        if len(self.sizes) == 3:
            return named(value, lambda raw: named(tirx.Select(raw < zero, zero, raw), upper))
        return named(value, lambda raw: named(tirx.Select(raw > zero, raw, zero), upper))

    def _reflected(self, value: Scalar, size: SizeLike) -> Scalar:
        """Mirrored at the outer pixels, or at their outer edges."""
        low = self._number(0 if self.align_corners else -0.5)
        span = self._number(size) - self._number(1 if self.align_corners else 0)
        if len(self.sizes) == 3:
            return self._reflected_in_volume(value, low, span)
        distance, twice = tirx.abs(value - low), tirx.max(span * self._number(2), self._number(1))
        mirrored = lambda rest: tirx.Select(span > self._number(0), tirx.min(rest, twice - rest) + low, self._number(0))
        turned = lambda far: named(far - tirx.trunc(far / twice) * twice, mirrored)
        return named(distance, turned)

    def _reflected_in_volume(self, value: Scalar, low: Scalar, span: Scalar) -> Scalar:
        """ATen counts the mirrors in 32 bits; too many are an even number of them."""
        some = tirx.max(span, self._number(1) if self.align_corners else self._number(0.5))

        def turned(far: Scalar) -> Scalar:
            mirrors = tirx.floor(far / some)
            is_counted = mirrors < self._number(2.0**31)
            count = tirx.Cast("int64", tirx.Select(is_counted, mirrors, self._number(0)))
            is_odd = tirx.NE(tirx.bitwise_and(count, tirx.const(1, "int64")), tirx.const(0, "int64"))
            rest = lambda r: tirx.Select(is_odd, some - r, r) + low
            return named(libm("fmod", far, some), rest)

        return tirx.Select(span > self._number(0), named(tirx.abs(value - low), turned), self._number(0))


for _name in ("grid_sampler_2d", "grid_sampler_3d"):
    register(f"torch.aten.{_name}", grid_sampler, custom=True)


def affine_grid_generator(b: Builder, theta: Tensor, size: list[Size], align_corners: bool) -> Expr:
    """aten::affine_grid_generator(Tensor theta, SymInt[] size, bool align_corners) -> Tensor"""
    dims, dtype = len(size) - 2, b.dtype(theta)
    if dims not in (2, 3) or not is_float(dtype):
        b.unsupported("an affine map of other than two or three dimensions")
    wide = compute_dtype(dtype)

    def kernel(matrix: te.Tensor, sizes: list[Any]) -> te.Tensor:
        sizes = [as_size(s) for s in sizes]

        def coordinate(place: Scalar, count: Scalar) -> Scalar:
            """From pixels to -1 … 1."""
            one, number = tirx.const(1, wide), tirx.Cast(wide, count)
            if not align_corners:
                return (tirx.Cast(wide, place) * tirx.const(2, wide) + one) / number - one
            step = tirx.const(2, wide) / tirx.max(number - one, one)
            return tirx.Select(number > one, tirx.Cast(wide, place) * step - one, tirx.const(0, wide))

        def element(n: Scalar, *i: Scalar) -> Scalar:
            *place, row = i
            total = matrix(n, row, dims)
            for axis in range(dims):
                total = total + matrix(n, row, dims - 1 - axis) * coordinate(place[axis], sizes[axis])
            return total

        return te.compute([matrix.shape[0], *sizes, dims], element, name="grid")

    return b.cast(b.te(kernel, b.cast(theta, wide), list(size[2:])), dtype)


register("torch.aten.affine_grid_generator", affine_grid_generator, custom=True)
