"""Resampling and pixel shuffling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lowering.rows import SPECIAL, Cases, Inputs, Row, Sample, row


def resize(x: torch.Tensor, size: Any, scale: Any, mode: str, corners: bool | None = None) -> torch.Tensor:
    return F.interpolate(x, size, scale, mode, corners)


def resize_aa(x: torch.Tensor, size: Any, scale: Any, mode: str, corners: bool) -> torch.Tensor:
    return F.interpolate(x, size, scale, mode, corners, antialias=True)


def _plain(*shape: int, sizes: tuple[list[int], ...], corners: bool = True, scale: float | None = None) -> Inputs:
    """The overload without lists: sizes, whether corners are aligned (for filters), one scale a dimension."""
    count = len(shape) - 2
    flags = [[False], [True]] if corners else [[]]
    scaled = [int(size * (scale or 1)) for size in shape[2:]]
    return lambda s: [
        *[(s.floats(*shape), size, *flag) for size in sizes for flag in flags],
        (s.floats(*shape), scaled, *flags[0], *[scale] * count),
        (s.floats(*shape, dtype=torch.float64), scaled, *flags[0], *[scale] * count),
    ]


def _nearest(*shape: int, size: tuple[int, ...], mode: str = "nearest") -> Inputs:
    return lambda s: [
        (s.floats(*shape), None, 2.0, mode),
        (s.floats(*shape), None, 1.7, mode),
        (s.floats(*shape), size, None, mode),
        (s.floats(*shape), shape[2:], None, mode),
    ]


def _linear(*shape: int, size: tuple[int, ...], mode: str) -> Inputs:
    one = (1,) * (len(shape) - 2)
    return lambda s: [
        (s.floats(*shape), None, 2.0, mode, False),
        (s.floats(*shape), None, 1.7, mode, False),
        (s.floats(*shape), size, None, mode, True),
        (s.floats(*shape), size, None, mode, False),
        (s.floats(*shape), one, None, mode, True),
        (s.floats(*shape, dtype=torch.float64), size, None, mode, False),
        (s.floats(*shape, dtype=torch.bfloat16), size, None, mode, False),
        (s.floats(*shape), None, 0.6, mode, False),
    ]


def _antialiased(mode: str) -> Inputs:
    return lambda s: [
        (s.floats(2, 3, 23, 18), (9, 7), None, mode, False),
        (s.floats(2, 3, 23, 18), (9, 7), None, mode, True),
        (s.floats(1, 2, 5, 6), (11, 6), None, mode, False),
        (s.floats(1, 2, 5, 6), None, 0.6, mode, False),
        (s.floats(1, 2, 3, 41), (1, 2), None, mode, False),
        (s.floats(1, 2, 23, 18, dtype=torch.float64), (9, 40), None, mode, False),
    ]


def _ranks(name: str) -> Iterator[tuple[str, tuple[int, ...], tuple[list[int], ...], float]]:
    """The op for each number of dimensions that its name leaves open: shape, sizes and a scale to test it with."""
    shapes = {1: (2, 3, 5), 2: (2, 3, 5, 4), 3: (2, 1, 3, 4, 2)}
    for count, shape in shapes.items():
        if "{}" in name or f"{count}d" in name:
            sizes = tuple([size + grow for size in shape[2:]] for grow in (3, -1, 0))
            yield name.format(count), shape, sizes, 1.7


def sampled(x: torch.Tensor, grid: torch.Tensor, mode: str, padding: str, corners: bool) -> torch.Tensor:
    return F.grid_sample(x, grid, mode, padding, corners)


def _grids(*modes: str, volume: bool = False) -> Inputs:
    shape, points = ((2, 2, 3, 4, 5), (2, 3, 2, 9, 3)) if volume else ((2, 3, 5, 4), (2, 7, 9, 2))

    def inputs(s: Sample) -> Cases:
        cases: Cases = []
        for mode in modes:
            for padding in ("zeros", "border", "reflection"):
                for corners in (False, True):
                    if mode == "bicubic" and corners == (padding == "zeros"):
                        continue
                    grid = s.floats(*points, low=-1.8, high=1.8)
                    cases.append((s.floats(*shape), grid, mode, padding, corners))
            far = s.floats(*points)
            far.view(-1)[: len(SPECIAL)] = s.special()
            cases.append((s.floats(*shape), far, mode, "border", False))
            wide = [s.floats(*size, dtype=torch.float64) for size in (shape, points)]
            cases.append((*wide, mode, "zeros", False))
            one = s.floats(2, 3, *[1] * (len(shape) - 2))
            cases.append((one, s.floats(*points), mode, "reflection", True))
        cases.append((s.floats(*shape)[:0], s.floats(*points)[:0], modes[0], "zeros", False))
        return cases

    return inputs


def _direct(shape: tuple[int, ...], points: tuple[int, ...]) -> Inputs:
    """The overloads for one rank take numbers for the modes."""
    return lambda s: [(s.floats(*shape), s.floats(*points), mode, 1 - mode, True) for mode in (0, 1)]


ROWS: list[Row] = [
    row("aten.upsample_nearest1d.vec", resize, _nearest(2, 3, 5, size=(8,))),
    row(
        "aten.upsample_nearest2d.vec",
        resize,
        _nearest(2, 3, 5, 6, size=(7, 3)),
        dynamic=lambda s, n: (s.floats(n, 3, n, 5), None, 2.0, "nearest"),
    ),
    row("aten.upsample_nearest3d.vec", resize, _nearest(1, 2, 3, 4, 2, size=(4, 3, 5))),
    row("aten._upsample_nearest_exact1d.vec", resize, _nearest(2, 3, 5, size=(8,), mode="nearest-exact")),
    row("aten._upsample_nearest_exact2d.vec", resize, _nearest(2, 3, 5, 6, size=(7, 3), mode="nearest-exact")),
    row(
        "aten._upsample_nearest_exact3d.vec",
        resize,
        _nearest(1, 2, 3, 4, 2, size=(4, 3, 5), mode="nearest-exact"),
    ),
    row("aten.upsample_linear1d.vec", resize, _linear(2, 3, 5, size=(8,), mode="linear")),
    row(
        "aten.upsample_bilinear2d.vec",
        resize,
        _linear(2, 3, 5, 6, size=(7, 3), mode="bilinear"),
        dynamic=lambda s, n: (s.floats(n, 3, 4, 5), None, 2.0, "bilinear", False),
    ),
    row("aten.upsample_trilinear3d.vec", resize, _linear(1, 2, 3, 4, 2, size=(4, 3, 5), mode="trilinear")),
    row("aten.pixel_shuffle", F.pixel_shuffle, lambda s: [(s.floats(2, 8, 3, 5), 2), (s.floats(9, 2, 2), 3)]),
    row("aten.pixel_unshuffle", F.pixel_unshuffle, lambda s: [(s.floats(2, 2, 6, 9), 3)]),
    row(
        "aten.upsample_bicubic2d.vec",
        resize,
        _linear(2, 3, 5, 6, size=(7, 3), mode="bicubic"),
        dynamic=lambda s, n: (s.floats(n, 3, n, 5), None, 2.0, "bicubic", False),
    ),
    row("aten._upsample_bilinear2d_aa.vec", resize_aa, _antialiased("bilinear")),
    row("aten._upsample_bicubic2d_aa.vec", resize_aa, _antialiased("bicubic")),
    *[
        row(
            f"aten.{name}",
            getattr(torch.ops.aten, name),
            _plain(*shape, sizes=sizes, corners=corners, scale=scale),
        )
        for name, corners in (
            ("upsample_nearest{}d", False),
            ("_upsample_nearest_exact{}d", False),
            ("upsample_linear1d", True),
            ("upsample_bilinear2d", True),
            ("upsample_trilinear3d", True),
            ("upsample_bicubic2d", True),
            ("_upsample_bilinear2d_aa", True),
            ("_upsample_bicubic2d_aa", True),
        )
        for name, shape, sizes, scale in _ranks(name)
    ],
    row(
        "aten.grid_sampler",
        sampled,
        _grids("bilinear", "nearest"),
        dynamic=lambda s, n: (s.floats(n, 3, 5, n), s.floats(n, 4, n, 2), "bilinear", "zeros", False),
    ),
    row("aten.grid_sampler", sampled, _grids("bicubic"), id="grid_sampler-bicubic"),
    row("aten.grid_sampler", sampled, _grids("bilinear", "nearest", volume=True), id="grid_sampler-volume"),
    row("aten.grid_sampler_2d", torch.ops.aten.grid_sampler_2d, _direct((2, 3, 5, 4), (2, 7, 9, 2))),
    row("aten.grid_sampler_3d", torch.ops.aten.grid_sampler_3d, _direct((1, 2, 3, 5, 4), (1, 3, 4, 5, 3))),
    row(
        "aten.affine_grid_generator",
        F.affine_grid,
        lambda s: [
            (s.floats(2, 2, 3), (2, 3, 5, 7), False),
            (s.floats(2, 2, 3), (2, 3, 1, 7), True),
            (s.floats(1, 3, 4), (1, 3, 2, 5, 4), True),
            (s.floats(1, 3, 4, dtype=torch.float64), (1, 3, 2, 5, 4), False),
        ],
    ),
]
