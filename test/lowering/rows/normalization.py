"""Normalisation layers and softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T

INF = float("inf")


def batch_norm(x: T, mean: T | None, var: T | None, weight: T | None, bias: T | None, training: bool) -> T:
    return torch.batch_norm(x, weight, bias, mean, var, training, 0.1, 1e-5, False)


def _batch_norm(s: Sample) -> Cases:
    v = s.floats(3, low=0.1)
    return [
        (s.floats(2, 3, 4, 5), s.floats(3), v, s.floats(3), s.floats(3), False),
        (s.floats(4, 3), s.floats(3), v, None, None, False),
        (s.floats(2, 3, 7), s.floats(3), v, s.floats(3), s.floats(3), False),
        (s.floats(2, 3, 4, 5), None, None, s.floats(3), s.floats(3), True),
    ]


def _layer_norm(s: Sample) -> Cases:
    return [
        (s.floats(2, 3, 5), (5,), s.floats(5), s.floats(5)),
        (s.floats(2, 3, 5), (3, 5), None, None),
        (s.floats(2, 3, 5), (5,), s.floats(5), None),
        (
            s.floats(4, 9, dtype=torch.bfloat16),
            (9,),
            s.floats(9, dtype=torch.bfloat16),
            s.floats(9, dtype=torch.bfloat16),
        ),
        (s.floats(2, 3, 0, 5), (5,), s.floats(5), s.floats(5)),
    ]


def _group_norm(s: Sample) -> Cases:
    return [
        (s.floats(2, 4, 3, 5), 2, s.floats(4), s.floats(4)),
        (s.floats(2, 4), 2, None, None),
        (s.floats(2, 6, 7), 3, None, s.floats(6)),
    ]


def native_layer_norm(x: T, shape: tuple[int, ...], weight: T, bias: T) -> tuple[T, ...]:
    return torch.native_layer_norm(x, shape, weight, bias, 1e-5)


def native_group_norm(x: T, weight: T, bias: T) -> tuple[T, ...]:
    return torch.native_group_norm(x, weight, bias, 2, 4, 15, 2, 1e-5)


def _rows(s: Sample) -> Cases:
    masked = torch.tensor([[1.0, float("nan"), 2.0], [-INF, -INF, -INF], [INF, 1.0, 2.0], [-INF, 1.0, 2.0]])
    return [
        (s.floats(2, 3, 5), -1),
        (s.floats(2, 3, 5), 1),
        (s.floats(7), 0),
        (s.floats(), 0),
        (s.floats(0, 3), 1),
        (masked, 1),
        (s.floats(4, 9, dtype=torch.bfloat16), 1),
        (s.floats(4, 9, low=-90, high=90, dtype=torch.float64), 0),
        (s.floats(3, 4) * 1e4, 1),
    ]


def _in_training(s: Sample, dtype: torch.dtype) -> tuple[T | bool, ...]:
    return (
        s.floats(2, 3, 4, dtype=dtype),
        *(s.floats(3, dtype=dtype, low=0.1) for _ in range(4)),
        True,
    )


ROWS: list[Row] = [
    row(
        "aten.batch_norm",
        batch_norm,
        _batch_norm,
        dynamic=lambda s, n: (s.floats(n, 3, 4), s.floats(3), s.floats(3, low=0.1), s.floats(3), None, False),
    ),
    row(
        "aten.layer_norm",
        F.layer_norm,
        _layer_norm,
        dynamic=lambda s, n: (s.floats(n, n, 5), (5,), s.floats(5), s.floats(5)),
    ),
    row(
        "aten.native_layer_norm",
        native_layer_norm,
        lambda s: [
            (s.floats(2, 3, 5), (5,), s.floats(5), s.floats(5)),
            (torch.tensor([[1.0, torch.inf, 2.0], [0.0, 1.0, -torch.inf]]), (3,), s.floats(3), s.floats(3)),
        ],
    ),
    row(
        "aten.group_norm",
        F.group_norm,
        _group_norm,
        dynamic=lambda s, n: (s.floats(n, 4, 3), 2, s.floats(4), s.floats(4)),
    ),
    row(
        "aten.native_group_norm",
        native_group_norm,
        lambda s: [(s.floats(2, 4, 3, 5), s.floats(4), s.floats(4))],
    ),
    row(
        "aten.instance_norm",
        lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias),
        lambda s: [(s.floats(2, 4, 3, 5), s.floats(4), s.floats(4)), (s.floats(2, 3, 7), None, None)],
    ),
    row(
        "aten.rms_norm",
        F.rms_norm,
        lambda s: [
            (s.floats(2, 3, 5), (5,), s.floats(5), 1e-5),
            (s.floats(2, 3, 5), (3, 5), None, None),
            (s.floats(2, 8, dtype=torch.bfloat16), (8,), s.floats(8, dtype=torch.bfloat16), None),
        ],
    ),
    row("aten.softmax.int", torch.softmax, _rows, dynamic=lambda s, n: (s.floats(3, n), 1)),
    row("aten.log_softmax.int", torch.log_softmax, _rows),
    row(
        ("aten.softmax.int", "aten.log_softmax.int"),
        lambda x: (x.softmax(-1, dtype=torch.float32), x.log_softmax(0, dtype=torch.float64)),
        lambda s: [(s.ints(3, 4),), (s.floats(3, 4, dtype=torch.bfloat16),)],
        id="softmax-dtype",
    ),
    row(
        "aten._native_batch_norm_legit_functional",
        lambda x, w, b, m, v, training: torch.ops.aten._native_batch_norm_legit_functional(
            x, w, b, m, v, training, 0.1, 1e-5
        ),
        lambda s: [
            (s.floats(2, 3, 4), s.floats(3), s.floats(3), s.floats(3), s.floats(3, low=0.1), True),
            (s.floats(2, 3, 4), None, None, s.floats(3), s.floats(3, low=0.1), False),
            *(_in_training(s, dtype) for dtype in (torch.bfloat16, torch.float16)),
        ],
    ),
    row(
        "aten._native_batch_norm_legit.no_stats",
        lambda x, w: torch.ops.aten._native_batch_norm_legit.no_stats(x, w, None, True, 0.1, 1e-5),
        lambda s: [(s.floats(2, 3, 4), s.floats(3))],
    ),
    row(
        "aten._native_batch_norm_legit_functional",
        lambda x, w: torch.ops.aten._native_batch_norm_legit_functional(x, w, w, w, w.abs(), True, 0.1, 1e-5),
        lambda s: [(s.floats(8, 3, dtype=torch.float16), s.floats(3, dtype=torch.float16))],
        id="batch-norm-of-half-statistics",
        slack=2e-3,
    ),
]
