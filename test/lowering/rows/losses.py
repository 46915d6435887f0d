"""Losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def scored(s: Sample) -> Cases:
    weights = s.floats(5, low=0.1, high=2)
    return [
        (s.floats(6, 5), torch.tensor([0, 4, 2, -100, 2, 1]), None, 1, -100),
        (s.floats(6, 5), s.ints(6, low=0, high=5), weights, 1, 2),
        (s.floats(6, 5), s.ints(6, low=0, high=5), weights, 2, -100),
        (s.floats(6, 5), s.ints(6, low=0, high=5), weights, 0, 3),
        (s.floats(5), s.ints(low=0, high=5), None, 1, -100),
        (s.floats(6, 5, dtype=torch.bfloat16), s.ints(6, low=0, high=5), None, 1, -100),
        (s.floats(3, 5), torch.full((3,), -100), None, 1, -100),
    ]


def scored_images(s: Sample) -> Cases:
    images, labels, weights = (
        s.floats(2, 5, 3, 4),
        s.ints(2, 3, 4, low=0, high=5),
        s.floats(5, low=0.1, high=2),
    )
    return [(images, labels, weights, reduction, 2) for reduction in range(3)]


def aligned(s: Sample) -> Cases:
    """Rows of labels, and labels one after the other; a sequence shorter than its labels."""
    times, counts = torch.tensor([7, 5, 2]), torch.tensor([4, 0, 3])
    rows, flat = torch.tensor([[1, 1, 3, 4], [0, 0, 0, 0], [3, 1, 3, 1]]), torch.tensor([1, 1, 3, 4, 3, 1, 3])
    return [(s.floats(7, 3, 5), labels, times, counts) for labels in (rows, flat)]


def nll(count: str) -> Callable[..., Any]:
    return getattr(torch.ops.aten, f"nll_loss{count}_forward").default


def nll_backward(count: str) -> Callable[..., Any]:
    backward = getattr(torch.ops.aten, f"nll_loss{count}_backward").default

    def gradient(x: Any, target: Any, weight: Any, reduction: int, ignored: int) -> torch.Tensor:
        grad = target * 0.1 + 0.3 if reduction == 0 else target.flatten()[0] * 0.1 + 0.3
        divisor = x.flatten()[0].abs() + 1
        return backward(grad.to(x.dtype), x, target, weight, reduction, ignored, divisor)

    return gradient


ROWS: list[Row] = [
    row(
        "aten.nll_loss_forward",
        nll(""),
        scored,
        dynamic=lambda s, n: (s.floats(n, 7), s.ints(n, low=0, high=7), None, 1, -100),
    ),
    row("aten.nll_loss2d_forward", nll("2d"), scored_images),
    row(
        "aten.nll_loss_backward",
        nll_backward(""),
        scored,
        dynamic=lambda s, n: (s.floats(n, 7), s.ints(n, low=0, high=7), None, 1, -100),
    ),
    row("aten.nll_loss2d_backward", nll_backward("2d"), scored_images),
    row(
        "aten.cross_entropy_loss",
        F.cross_entropy,
        labelled,
        dynamic=lambda s, n: (s.floats(n, 7), s.ints(n, low=0, high=7)),
    ),
    row(
        "aten._ctc_loss.Tensor",
        lambda *args: torch.ops.aten._ctc_loss.Tensor(*args)[0],
        aligned,
    ),
    row(
        "aten._ctc_loss",
        lambda x, labels: torch.ops.aten._ctc_loss.default(x, labels, [7, 6, 2], [4, 0, 3], 2)[0],
        lambda s: [case[:2] for case in aligned(s)],
    ),
]
