"""Padding of the last dimensions: with a constant, by reflection, by repeating the edge, or circular."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.slicing import computed, simplified
from torch_tvm.lowering.pointwise import number
from torch_tvm.lowering.registry import Number, Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, is_float, is_zero

R = relax.op
Expr: TypeAlias = relax.Expr

Source = Callable[[Any, SizeLike], Any]


def _pairs(b: Builder, rank: int, pad: Sequence[SizeLike]) -> list[tuple[SizeLike, SizeLike]]:
    """(before, after) per dimension; ``pad`` lists them from the last dimension."""
    if len(pad) % 2 or len(pad) > 2 * rank:
        b.unsupported("pad does not fit the rank")
    pairs: list[tuple[SizeLike, SizeLike]] = [(0, 0)] * rank
    for i in range(len(pad) // 2):
        pairs[rank - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    return pairs


@lowers("torch.aten.constant_pad_nd")
def constant_pad_nd(b: Builder, x: Tensor, pad: list[Size], value: Number) -> Expr:
    """aten::constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor; a negative pad crops"""
    pairs = _pairs(b, b.rank(x), pad)
    if all(is_zero(p) for pair in pairs for p in pair):
        return x
    dtype, shape = b.dtype(x), b.shape(x)
    result = [simplified(s + low + high) for s, (low, high) in zip(shape, pairs, strict=True)]
    if any(isinstance(s, int) and s < 0 for s in result):
        b.unsupported("padding leaves a negative size")
    for size, pair in zip(shape, pairs, strict=True):
        _check_crop(b, size, sum(min(p, 0) for p in pair if isinstance(p, int)))
    if dtype in ("float32", "float64") and all(isinstance(p, int) and p >= 0 for pair in pairs for p in pair):
        return b.emit(R.nn.pad(x, [p for pair in pairs for p in pair], "constant", float(value)))

    lows = [low for low, _ in pairs]
    active = [not (is_zero(low) and is_zero(high)) for low, high in pairs]

    def padded(data: te.Tensor, sizes: list[Any], before: list[Any]) -> te.Tensor:
        fill = number(value, dtype)

        def element(*i: Any) -> Any:
            places = [p - low for p, low in zip(i, before, strict=True)]
            inside = [
                c
                for place, size, is_padded in zip(places, data.shape, active, strict=True)
                if is_padded
                for c in (place >= 0, place < size)
            ]
            return tirx.if_then_else(tirx.all(*inside), data(*places), fill)

        return te.compute([as_size(s) for s in sizes], element, name="pad")

    return b.te(padded, x, result, lows)


def _check_crop(b: Builder, size: SizeLike, crop: int) -> None:
    """What is cropped has to be there before anything is added."""
    if isinstance(size, int):
        if size + crop < 0:
            b.unsupported("padding crops more than there is")
    elif crop:
        b.require(size + crop >= 0, "padding crops more than there is")


def _reflected(place: Any, size: SizeLike) -> Any:
    mirrored = tirx.Select(place < 0, -place, place)
    return tirx.Select(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)


def _clamped(place: Any, size: SizeLike) -> Any:
    return tirx.max(tirx.min(place, size - 1), 0)


def _wrapped(place: Any, size: SizeLike) -> Any:
    return tirx.floormod(place, size)


def _pad_from(b: Builder, x: Expr, pad: Sequence[SizeLike], source: Source) -> Expr:
    pairs, shape = _pairs(b, b.rank(x), pad), b.shape(x)
    for size, pair in zip(shape, pairs, strict=True):
        if not all(is_zero(p) for p in pair):
            _check_pad(b, size, pair, source)
    result = [simplified(s + low + high) for s, (low, high) in zip(shape, pairs, strict=True)]
    return computed(
        b,
        x,
        result,
        lambda i, own, before: [
            p if all(is_zero(q) for q in pair) else source(p - low, size)
            for p, size, low, pair in zip(i, own, before, pairs, strict=True)
        ],
        [low for low, _ in pairs],
    )


def _check_pad(b: Builder, size: SizeLike, pair: tuple[SizeLike, SizeLike], source: Source) -> None:
    if not isinstance(size, int):
        most = max((p for p in pair if isinstance(p, int)), default=0)
        least: dict[Source, int] = {_reflected: most + 1, _wrapped: most}
        b.expect(size >= max(least.get(source, 1), 1), "the padding does not fit the size")
        return
    if source is _wrapped and any(isinstance(p, int) and p < 0 for p in pair):
        b.unsupported("circular padding that crops")
    limits: dict[Source, int] = {_reflected: size - 1, _wrapped: size}
    limit = limits.get(source)
    if size == 0 or any(isinstance(p, int) and limit is not None and p > limit for p in pair):
        b.unsupported(f"padding {pair} does not fit size {size}")
    if all(isinstance(p, int) for p in pair) and size + pair[0] + pair[1] < 1:
        b.unsupported("padding leaves no element")


def _look_alike(name: str, source: Source) -> None:
    def lowering(b: Builder, x: Tensor, padding: list[Size]) -> Expr:
        return _pad_from(b, x, padding, source)

    lowering.__doc__ = f"aten::{name}(Tensor self, SymInt[] padding) -> Tensor"
    register(f"torch.aten.{name}", lowering)


for _count in (1, 2, 3):
    _look_alike(f"reflection_pad{_count}d", _reflected)
    _look_alike(f"replication_pad{_count}d", _clamped)


@lowers("torch.aten.pad")
def pad(b: Builder, x: Tensor, pad: list[Size], mode: str, value: float | None) -> Expr:
    """aten::pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor"""
    if mode == "constant":
        number = 0.0 if value is None else value
        return constant_pad_nd(b, x, pad, number if is_float(b.dtype(x)) else int(number))
    source = {"reflect": _reflected, "replicate": _clamped, "circular": _wrapped}.get(mode)
    if source is None:
        b.unsupported(f"padding mode '{mode}'")
    return _pad_from(b, x, pad, source)


def circular_pad(b: Builder, x: Tensor, pad: list[Size]) -> Expr:
    """aten::_pad_circular(Tensor self, SymInt[] pad) -> Tensor"""
    return _pad_from(b, x, pad, _wrapped)


register("torch.aten._pad_circular", circular_pad, custom=True)
