"""Resampling and pixel shuffling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Inputs, Row, row


def resize(
    x: torch.Tensor, size: object, scale: object, mode: str, corners: bool | None = None
) -> torch.Tensor:
    return F.interpolate(x, size, scale, mode, corners)


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
    ]


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
    row(
        "aten._upsample_nearest_exact2d.vec", resize, _nearest(2, 3, 5, 6, size=(7, 3), mode="nearest-exact")
    ),
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
        "aten.upsample_nearest1d",
        torch.ops.aten.upsample_nearest1d,
        lambda s: [(s.floats(2, 3, 5), [8], 1.7)],
    ),
    row(
        "aten.upsample_nearest2d",
        torch.ops.aten.upsample_nearest2d,
        lambda s: [(s.floats(2, 3, 5, 4), [8, 3])],
    ),
    row(
        "aten.upsample_bilinear2d",
        torch.ops.aten.upsample_bilinear2d,
        lambda s: [(s.floats(2, 3, 5, 4), [8, 3], False), (s.floats(2, 3, 5, 4), [10, 8], False, 2.0, 2.0)],
    ),
]
