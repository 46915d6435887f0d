"""Distances between rows."""

from __future__ import annotations

import torch
from lowering.rows import Cases, Row, Sample, row

MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def pairs(s: Sample) -> Cases:
    cases: Cases = [(s.floats(5, 7), s.floats(3, 7), p, MODES[0]) for p in (0.0, 0.5, 1.0, 2.0, 3.0, float("inf"))]
    cases += [(s.floats(2, 30, 6), s.floats(2, 41, 6), 2.0, mode) for mode in MODES]
    cases += [
        (s.floats(2, 1, 4, 3), s.floats(3, 5, 3), 1.0, MODES[0]),
        (s.floats(2, 1, 4, 3), s.floats(3, 50, 3), 2.0, MODES[0]),
        (s.floats(4, 19, dtype=torch.float64), s.floats(6, 19, dtype=torch.float64), 2.0, MODES[0]),
        (s.floats(4, 19, dtype=torch.float64), s.floats(6, 19, dtype=torch.float64), 1.5, MODES[0]),
        (s.floats(1, 70), s.floats(1, 70), float("inf"), MODES[0]),
        (s.floats(0, 3), s.floats(4, 3), 2.0, MODES[0]),
        (s.floats(2, 0), s.floats(4, 0), 2.0, MODES[0]),
    ]
    column, _ = s.special_pairs()
    cases += [(column, column.flip(0), p, MODES[2]) for p in (0.0, 1.0, 2.0, float("inf"))]
    return cases


ROWS: list[Row] = [
    row("aten.cdist", torch.cdist, pairs, dynamic=lambda s, n: (s.floats(n, 7), s.floats(n, 7), 1.0)),
    row(
        "aten._cdist_forward",
        torch.ops.aten._cdist_forward,
        lambda s: [(s.floats(5, 7), s.floats(3, 7), p, None) for p in (1.0, 2.0)],
    ),
    row(
        "aten._euclidean_dist",
        torch.ops.aten._euclidean_dist,
        lambda s: [(s.floats(30, 7), s.floats(41, 7)), (s.floats(5, 7), s.floats(3, 7))],
    ),
]
