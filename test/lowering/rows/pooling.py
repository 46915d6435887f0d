"""Pooling with fixed and adaptive windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Inputs, Row, Sample, row

NAN, INF = float("nan"), float("inf")


def _windows(*shape: int, integers: bool = False) -> Inputs:
    """Kernel, stride, padding, dilation, ceil_mode over one image, batched or not."""

    def inputs(s: Sample) -> Cases:
        x = s.floats(*shape)
        cases: Cases = [
            (x, 3, 2, 1, 1, False),
            (x, 2, 2, 0, 1, True),
            (x, 3, 2, 1, 1, True),
            (x, 2, 3, 1, 2, True),
            (x[0], 2, None, 0, 1, False),
        ]
        return [*cases, (s.ints(*shape), 2, 1, 0, 1, False)] if integers else cases

    return inputs


def _special(s: Sample) -> Cases:
    x = s.floats(1, 1, 4, 6)
    x[0, 0, 0, 0], x[0, 0, 2, 2:4] = NAN, INF
    x[0, 0, :2, 4:] = -INF
    return [(x, 2, 2, 0, 1, False)]


def _averages(*shape: int) -> Inputs:
    def inputs(s: Sample) -> Cases:
        x = s.floats(*shape)
        return [
            (x, 3, 2, 1, False, True),
            (x, 3, 2, 1, False, False),
            (x, 3, 2, 1, True, True),
            (x, 2, 3, 1, True, False),
            (x[0], 2, None, 0, False, True),
            (x.bfloat16(), 2, 2, 0, False, True),
        ]

    return inputs


def _adaptive(*sizes: int, counts: tuple[object, ...]) -> Inputs:
    return lambda s: [(s.floats(2, 3, *sizes), count) for count in counts] + [(s.floats(3, *sizes), counts[0])]


def _with_indices(function):
    return lambda *arguments: function(*arguments, return_indices=True)


ROWS: list[Row] = [
    row(
        "aten.max_pool1d",
        torch.max_pool1d,
        lambda s: [(s.floats(2, 3, 9), 3, 2, 1), (s.floats(3, 8), 2, 2, 0, 1, True)],
    ),
    row(
        "aten.max_pool2d",
        F.max_pool2d,
        _windows(2, 3, 8, 9),
        dynamic=lambda s, n: (s.floats(n, 3, n, 7), 3, 2, 1),
    ),
    row("aten.max_pool2d", F.max_pool2d, lambda s: [(s.ints(2, 3, 6, 5), 2)], id="max_pool2d-integers"),
    row("aten.max_pool2d", F.max_pool2d, _special, id="max_pool2d-special"),
    row("aten.max_pool3d", F.max_pool3d, _windows(2, 2, 5, 6, 7)),
    row("aten.max_pool2d_with_indices", _with_indices(F.max_pool2d), lambda s: _windows(2, 3, 8, 9)(s)[2:4]),
    row(
        "aten.max_pool3d_with_indices",
        _with_indices(F.max_pool3d),
        lambda s: [(s.floats(1, 2, 4, 5, 4), 2, 1)],
    ),
    row("aten.avg_pool1d", F.avg_pool1d, _averages(2, 3, 9)),
    row(
        "aten.avg_pool2d",
        F.avg_pool2d,
        lambda s: [*_averages(2, 3, 8, 9)(s), (s.floats(2, 3, 8, 9), (2, 3), (1, 2), 0, False, True, 5)],
        dynamic=lambda s, n: (s.floats(n, 3, 7, n), 2),
    ),
    row("aten.avg_pool3d", F.avg_pool3d, lambda s: _averages(2, 2, 5, 6, 7)(s)[:-1]),
    row("aten.adaptive_avg_pool1d", F.adaptive_avg_pool1d, _adaptive(8, counts=(3, 11))),
    row(
        "aten.adaptive_avg_pool2d",
        F.adaptive_avg_pool2d,
        _adaptive(8, 9, counts=(1, (3, 5), (11, None))),
        dynamic=lambda s, n: (s.floats(n, 3, 7, n), (1, 1)),
    ),
    row("aten.adaptive_avg_pool3d", F.adaptive_avg_pool3d, _adaptive(4, 5, 3, counts=(2, (1, 3, 2)))),
    row("aten.adaptive_max_pool1d", _with_indices(F.adaptive_max_pool1d), _adaptive(8, counts=(3,))),
    row("aten.adaptive_max_pool2d", _with_indices(F.adaptive_max_pool2d), _adaptive(8, 9, counts=(1, (3, 5)))),
    row("aten.adaptive_max_pool3d", _with_indices(F.adaptive_max_pool3d), _adaptive(4, 5, 3, counts=(2,))),
    row("aten.max_pool1d_with_indices", _with_indices(F.max_pool1d), lambda s: [(s.floats(2, 3, 9), 3, 2, 1)]),
]
