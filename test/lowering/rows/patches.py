"""Patches of images as columns and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row


def images(s: Sample) -> Cases:
    return [
        (s.floats(2, 3, 7, 9), 3, 1, 0, 1),
        (s.floats(2, 3, 7, 9), (3, 2), (1, 2), (2, 1), (2, 3)),
        (s.floats(3, 8, 6), 2, 1, 0, 2),
        (s.floats(1, 2, 9, 8, dtype=torch.float64), 3, 2, 2, 2),
        (s.floats(2, 3, 20, 33), 3, 1, 1, 1),
        (s.floats(2, 2, 5, 4, dtype=torch.bfloat16), 2, 1, 1, 1),
    ]


def columns(s: Sample) -> Cases:
    cases: Cases = []
    for image, *window in images(s):
        folded = F.unfold(image, *window)
        cases.append((s.floats(*folded.shape, dtype=image.dtype), image.shape[-2:], *window))
    return cases


ROWS: list[Row] = [
    row("aten.im2col", F.unfold, images, dynamic=lambda s, n: (s.floats(n, 3, n, 8), 3, 1, 1, 2)),
    row("aten.col2im", F.fold, columns, dynamic=lambda s, n: (s.floats(n, 12, 20), (5, 6), 2, 1, 0, 1)),
]
