"""Scaled dot-product attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row
from torch import Tensor as T


def attention(q: T, k: T, v: T, mask: T | None, causal: bool, scale: float | None, gqa: bool) -> T:
    return F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale=scale, enable_gqa=gqa)


def _attention(s: Sample) -> Cases:
    q, k, v = s.floats(2, 4, 3, 8), s.floats(2, 4, 7, 8), s.floats(2, 4, 7, 6)
    mask = s.bools(2, 1, 3, 7)
    mask[0, 0, 1] = False
    bias = s.floats(2, 4, 3, 7)
    bias[0, 0, 0, 2], bias[1, 1, 2] = -float("inf"), -float("inf")
    return [
        (q, k, v, None, False, None, False),
        (q, k, v, mask, False, None, False),
        (q, k, v, s.bools(1, 7) | True, False, 0.7, False),
        (q, k, v, bias, False, 0.3, False),
        (q, k, v, s.floats(3, 1), False, None, False),
        (s.floats(4, 5, 8), s.floats(4, 7, 8), s.floats(4, 7, 6), None, True, None, False),
        (s.floats(5, 8), s.floats(3, 8), s.floats(3, 6), None, True, None, False),
        (q, s.floats(2, 2, 7, 8), s.floats(2, 2, 7, 8), None, False, None, True),
        (s.floats(1, 2, 3, 8, dtype=torch.bfloat16), s.floats(1, 2, 4, 8, dtype=torch.bfloat16),
         s.floats(1, 2, 4, 8, dtype=torch.bfloat16), None, False, None, False),
    ]  # fmt: skip


ROWS: list[Row] = [
    row(
        "aten.scaled_dot_product_attention",
        attention,
        _attention,
        dynamic=lambda s, n: (
            s.floats(n, 2, n, 8),
            s.floats(n, 2, n, 8),
            s.floats(n, 2, n, 8),
            None,
            True,
            None,
            False,
        ),
    ),
    row(
        "aten._scaled_dot_product_flash_attention_for_cpu",
        lambda q, k, v, *rest: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, *rest),
        lambda s: [
            (s.floats(1, 2, 3, 8), s.floats(1, 2, 5, 8), s.floats(1, 2, 5, 8)),
            (s.floats(1, 2, 3, 8), s.floats(1, 2, 3, 8), s.floats(1, 2, 3, 8), 0.0, True),
        ],
    ),
]
