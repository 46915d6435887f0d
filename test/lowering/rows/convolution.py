"""Convolutions and transposed convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row


def _conv1d(s: Sample) -> Cases:
    x, w, c = s.floats(2, 4, 11), s.floats(6, 4, 3), s.floats(6)
    return [
        (x, w, c, 2, 1, 1, 1),
        (x, s.floats(6, 2, 3), None, 1, 0, 2, 2),
        (s.floats(4, 7), s.floats(4, 1, 2), None, 1, 1, 1, 4),
        (x.double(), w.double(), c.double(), 3, 2, 1, 1),
    ]


def _conv2d(s: Sample) -> Cases:
    x, w, c = s.floats(2, 4, 9, 7), s.floats(6, 4, 3, 3), s.floats(6)
    return [
        (x, w, c, 2, 1, 1, 1),
        (x, s.floats(6, 2, 3, 2), c, (1, 2), (2, 1), (2, 1), 2),
        (x, s.floats(8, 1, 3, 3), None, 1, 1, 1, 4),
        (s.floats(4, 5, 5), s.floats(3, 4, 1, 1), s.floats(3), 1, 0, 1, 1),
        (x.bfloat16(), w.bfloat16(), None, 1, 1, 1, 1),
        (s.floats(2, 9, 7, 4).permute(0, 3, 1, 2), w, None, 1, 0, 1, 1),
    ]


def _conv3d(s: Sample) -> Cases:
    return [
        (s.floats(2, 4, 5, 6, 7), s.floats(6, 4, 3, 3, 2), s.floats(6), 2, 1, 1, 1),
        (s.floats(4, 5, 4, 6), s.floats(4, 2, 2, 1, 3), None, (1, 2, 1), (0, 1, 2), (2, 1, 1), 2),
    ]


def _conv_transpose1d(s: Sample) -> Cases:
    return [
        (s.floats(2, 4, 5), s.floats(4, 3, 3), s.floats(3), 2, 1, 1, 1, 1),
        (s.floats(2, 4, 5).bfloat16(), s.floats(4, 3, 3).bfloat16(), None, 2, 1, 1, 1, 1),
        (s.floats(2, 4, 5), s.floats(4, 2, 2), None, 3, 0, 0, 2, 2),
        (s.floats(2, 4, 5), s.floats(4, 2, 2), s.floats(2), 1, 1, 2, 1, 3),
    ]


def _conv_transpose2d(s: Sample) -> Cases:
    return [
        (s.floats(2, 4, 5, 6), s.floats(4, 3, 3, 3), s.floats(3), 2, 1, 1, 1, 1),
        (s.floats(2, 4, 5, 6), s.floats(4, 3, 3, 2), s.floats(6), (3, 2), 1, (1, 0), 2, (1, 2)),
        (s.floats(4, 3, 3), s.floats(4, 2, 2, 2), None, 2, 0, 0, 1, 1),
        (s.floats(2, 4, 5, 6), s.floats(4, 3, 3, 3), s.floats(3), (1, 2), (0, 3), (1, 3), 1, (2, 4)),
    ]


def _conv_transpose3d(s: Sample) -> Cases:
    return [(s.floats(2, 4, 3, 3, 2), s.floats(4, 3, 3, 3, 2), s.floats(6), 2, 1, 0, 2, 1)]


ROWS: list[Row] = [
    row("aten.conv1d", F.conv1d, _conv1d),
    row(
        "aten.conv2d",
        F.conv2d,
        _conv2d,
        dynamic=lambda s, n: (s.floats(n, 4, n, 9), s.floats(5, 4, 3, 3), s.floats(5), 2, 1, 1, 1),
    ),
    row("aten.conv3d", F.conv3d, _conv3d),
    row(
        "aten.conv1d.padding",
        F.conv1d,
        lambda s: [(s.floats(2, 4, 9), s.floats(4, 2, 4), None, 1, p, d, 2) for p, d in (("same", 2), ("valid", 1))],
    ),
    row(
        "aten.conv2d.padding",
        F.conv2d,
        lambda s: [(s.floats(2, 4, 9, 6), s.floats(3, 4, 4, 3), s.floats(3), 1, p, 1, 1) for p in ("same", "valid")],
    ),
    row(
        "aten.conv3d.padding",
        F.conv3d,
        lambda s: [(s.floats(1, 2, 4, 5, 4), s.floats(3, 2, 2, 3, 1), None, 1, "same", 1, 1)],
    ),
    row("aten.conv_transpose1d", F.conv_transpose1d, _conv_transpose1d),
    row(
        "aten.conv_transpose2d.input",
        F.conv_transpose2d,
        _conv_transpose2d,
        dynamic=lambda s, n: (s.floats(n, 4, 5, 3), s.floats(4, 3, 2, 2), s.floats(3), 2),
    ),
    row("aten.conv_transpose3d.input", F.conv_transpose3d, _conv_transpose3d),
]
