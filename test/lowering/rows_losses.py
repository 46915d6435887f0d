"""Losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row


def labelled(s: Sample) -> Cases:
    cases: Cases = []
    for reduction in ("none", "mean", "sum"):
        cases += [
            (s.floats(6, 5), s.ints(6, low=0, high=5), None, None, -100, None, reduction),
            (s.floats(2, 5, 3, 4), s.ints(2, 3, 4, low=0, high=5), None, None, 2, None, reduction),
        ]
    return [
        *cases,
        (s.floats(5), s.ints(low=0, high=5)),
        (s.floats(6, 5, dtype=torch.float64), s.ints(6, low=0, high=5)),
        (s.floats(6, 5), torch.full((6,), -100)),
    ]


ROWS: list[Row] = [
    row(
        "aten.cross_entropy_loss",
        F.cross_entropy,
        labelled,
        dynamic=lambda s, n: (s.floats(n, 7), s.ints(n, low=0, high=7)),
    ),
]
