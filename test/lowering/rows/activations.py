"""Activations, limits and small fused combinations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Inputs, Row, Sample, row
from torch import Tensor as T


def values(*options: Any) -> Inputs:
    """A vector wide enough for the tails, non-contiguous, rank 0, half and special values."""

    def inputs(s: Sample) -> Cases:
        shown: list[T] = [
            s.floats(5, 37, low=-12, high=12).t(),
            s.floats(),
            s.floats(19, dtype=torch.bfloat16),
            s.special(),
        ]
        return [(x, *options) for x in shown]

    return inputs


def numbers(*options: Any) -> Inputs:
    floats = values(*options)
    return lambda s: [*floats(s), (s.ints(3, 4), *options), (s.floats(0, 3), *options)]


def vector(*options: Any) -> Any:
    return lambda s, n: (s.floats(n, 3), *options)


def thirds(s: Sample) -> Cases:
    return [
        (s.floats(3, 5), s.floats(5), s.floats(3, 1)),
        (
            s.floats(7, dtype=torch.float16),
            s.floats(7, dtype=torch.float16),
            s.floats(1, dtype=torch.float16),
        ),
        (s.floats(), s.floats(4), s.floats()),
    ]


def bounds(s: Sample) -> Cases:
    return [
        (s.floats(3, 5), s.floats(5, low=-2, high=0), s.floats(3, 1, low=0, high=2)),
        (s.special(), s.floats(16), s.special()),
        (s.ints(9), s.ints(1, low=-3, high=0), s.ints(9, low=0, high=5)),
    ]


ROWS: list[Row] = [
    row("aten.relu", torch.relu, numbers(), dynamic=vector()),
    row("aten.relu6", F.relu6, values()),
    row("aten.hardtanh", F.hardtanh, values(-0.7, 1.3)),
    row("aten.leaky_relu", F.leaky_relu, values(0.2), dynamic=vector(0.1)),
    row("aten.elu", F.elu, values(1.3)),
    row("aten.selu", F.selu, values()),
    row("aten.celu", F.celu, values(0.7)),
    row("aten.gelu", F.gelu, values(), dynamic=vector()),
    row("aten.gelu", lambda x: F.gelu(x, approximate="tanh"), values(), id="gelu-tanh"),
    row("aten.silu", F.silu, values(), dynamic=vector()),
    row("aten.mish", F.mish, values()),
    row("aten.hardswish", F.hardswish, values()),
    row("aten.hardsigmoid", F.hardsigmoid, values()),
    row("aten.softplus", F.softplus, values(2.0, 15.0)),
    row("aten.log_sigmoid", F.logsigmoid, values()),
    row("aten.threshold", F.threshold, values(0.3, -7.0)),
    row("aten.hardshrink", F.hardshrink, values(0.7)),
    row("aten.softshrink", F.softshrink, values(0.7)),
    row("aten.glu", F.glu, lambda s: [(s.floats(3, 8), 1), (s.floats(4, 5, dtype=torch.bfloat16), 0)]),
    row(
        "aten.prelu",
        F.prelu,
        lambda s: [
            (s.floats(3, 4, 5), s.floats(4)),
            (s.floats(3, 4), s.floats(1)),
            (s.special(), s.floats(1)),
            (s.floats(2, 4), s.floats(4)),
        ],
    ),
    row(
        "aten.clamp",
        torch.clamp,
        lambda s: [
            *numbers(-0.5, 2.0)(s),
            (s.floats(9), None, 0.5),
            (s.floats(9), 1.0, None),
            (s.floats(9), 1.0, -1.0),
            (s.ints(9), -2, 3),
        ],
    ),
    row("aten.clamp.Tensor", torch.clamp, bounds),
    row("aten.clamp_min", torch.clamp_min, numbers(0.25)),
    row("aten.clamp_max", torch.clamp_max, numbers(0.25)),
    row("aten.clamp_min.Tensor", torch.clamp_min, lambda s: [(x, low) for x, low, _ in bounds(s)]),
    row("aten.clamp_max.Tensor", torch.clamp_max, lambda s: [(x, high) for x, _, high in bounds(s)]),
    row("aten.lerp.Tensor", torch.lerp, thirds),
    row("aten.lerp.Scalar", torch.lerp, lambda s: [(s.floats(3, 5), s.floats(5), w) for w in (0.2, 0.9)]),
    row(
        "aten.addcmul",
        lambda x, y, z: torch.addcmul(x, y, z, value=0.5),
        thirds,
        dynamic=lambda s, n: (s.floats(n, 3), s.floats(3), s.floats(n, 1)),
    ),
    row("prims.fma", torch.ops.prims.fma.default, thirds, refused={"lazy": "no lazy kernel"}),
    row("aten.addcdiv", lambda x, y, z: torch.addcdiv(x, y, z.abs() + 0.5, value=2), thirds),
]
