"""Backward ops that autograd leaves whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lowering.rows import Cases, Row, Sample, row

aten = torch.ops.aten


def convolutions(s: Sample) -> Cases:
    """x, weight, stride, padding, dilation, transposed, output padding, groups, which results."""
    every, two = [True] * 3, s.floats(2, 4, 7, 9)
    return [
        (two, s.floats(6, 4, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 1, every),
        (two, s.floats(6, 4, 3, 2), [2, 3], [1, 0], [1, 2], False, [0, 0], 1, every),
        (two, s.floats(6, 2, 3, 3), [1, 2], [0, 2], [2, 1], False, [0, 0], 2, every),
        (two, s.floats(4, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4, every),
        (two, s.floats(6, 2, 3, 2), [1, 1], [1, 0], [2, 3], False, [0, 0], 2, every),
        (two, s.floats(6, 4, 2, 2), [1, 1], [2, 0], [1, 1], False, [0, 0], 1, every),
        (two, s.floats(6, 4, 1, 1), [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]),
        (two, s.floats(6, 4, 1, 1), [2, 2], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]),
        (two, s.floats(4, 3, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 0], 1, every),
        (two, s.floats(4, 3, 2, 2), [2, 2], [0, 0], [1, 1], True, [0, 0], 2, every),
        (s.floats(2, 4, 9), s.floats(6, 4, 3), [2], [1], [1], False, [0], 1, every),
        (
            s.floats(1, 2, 4, 4, 4),
            s.floats(3, 2, 3, 3, 3),
            [1] * 3,
            [1] * 3,
            [1] * 3,
            False,
            [0] * 3,
            1,
            every,
        ),
    ]


def convolution_backward(x: Any, weight: Any, *how: Any) -> list[torch.Tensor]:
    stride, padding, dilation, transposed, output_padding, groups, mask = how
    out = aten.convolution.default(x, weight, None, stride, padding, dilation, transposed, output_padding, groups)
    channels = [weight.shape[1] * groups if transposed else weight.shape[0]]
    results = aten.convolution_backward.default(out * 0.5, x, weight, channels, *how)
    return [result for result, wanted in zip(results, mask, strict=True) if wanted]


def varying(s: Sample, n: int) -> tuple[Any, ...]:
    x, weight = s.floats(2, 3, n, 9), s.floats(4, 3, 3, 3)
    return (x, weight, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3)


def attended(s: Sample) -> Cases:
    """query, key, value, mask, causal, scale."""
    qkv = lambda length=6, keys=6: (
        s.floats(2, 3, length, 8),
        s.floats(2, 3, keys, 8),
        s.floats(2, 3, keys, 8),
    )
    return [
        (*qkv(), None, False, None),
        (*qkv(), None, True, None),
        (*qkv(5, 7), s.floats(2, 1, 5, 7), False, 0.3),
    ]


def attention_backward(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float | None) -> Any:
    named = {"attn_mask": mask, "scale": scale}
    out, sums = aten._scaled_dot_product_flash_attention_for_cpu.default(q, k, v, 0.0, causal, **named)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    return backward(out * 0.5 + 0.1, q, k, v, out, sums, 0.0, causal, **named)


def looked_up(s: Sample) -> Cases:
    return [
        (s.floats(2, 5, 4), s.ints(2, 5, low=0, high=7), 7, padding, scaled)
        for padding, scaled in ((-1, False), (3, False), (2, True))
    ]


def pooled(spatial: int) -> Callable[[Sample], Cases]:
    """x, kernel, stride, padding, ceil mode."""
    sizes = (7, 8, 5)[:spatial]

    def cases(s: Sample) -> Cases:
        x = s.distinct(2, 3, *sizes)
        return [(x, 2, 2, 0, False), (x, 3, 2, 1, True), (x, 3, 1, 1, False), (x[0], 2, 3, 1, False)]

    return cases


def max_pool_backward(spatial: int) -> Callable[..., torch.Tensor]:
    forward = getattr(aten, f"max_pool{spatial}d_with_indices").default
    backward = getattr(aten, f"max_pool{spatial}d_with_indices_backward").default

    def gradient(x: Any, kernel: int, stride: int, padding: int, ceil: bool) -> torch.Tensor:
        how = [[number] * spatial for number in (kernel, stride, padding, 1)]
        out, indices = forward(x, *how, ceil)
        return backward(out * 0.5, x, *how, ceil, indices)

    return gradient


def avg_pool_backward(spatial: int) -> Callable[..., Any]:
    forward = getattr(F, f"avg_pool{spatial}d")
    backward = getattr(aten, f"avg_pool{spatial}d_backward").default

    def gradient(x: Any, kernel: int, stride: int, padding: int, ceil: bool) -> Any:
        how = [[number] * spatial for number in (kernel, stride, padding)]
        out = forward(x, kernel, stride, padding, ceil)
        return [backward(out, x, *how, ceil, pads, by) for pads, by in ((True, None), (False, None), (True, 3))]

    return gradient


def adaptive(spatial: int) -> Callable[[Sample], Cases]:
    sizes = (7, 8, 5)[:spatial]
    return lambda s: (
        [(s.distinct(2, 3, *sizes), [n] * spatial) for n in (1, 3, 5)] + [(s.distinct(3, *sizes), [9] * spatial)]
    )


def adaptive_max_backward(spatial: int) -> Callable[..., torch.Tensor]:
    forward = getattr(aten, f"adaptive_max_pool{spatial}d").default
    backward = getattr(aten, f"adaptive_max_pool{spatial}d_backward").default

    def gradient(x: Any, counts: list[int]) -> torch.Tensor:
        out, indices = forward(x, counts)
        return backward(out * 0.5, x, indices)

    return gradient


def adaptive_avg_backward(spatial: int) -> Callable[..., torch.Tensor]:
    backward = getattr(aten, f"_adaptive_avg_pool{spatial}d_backward").default
    forward = getattr(F, f"adaptive_avg_pool{spatial}d")
    return lambda x, counts: backward(forward(x, counts) * 0.5, x)


def resized(exact: bool) -> Callable[..., torch.Tensor]:
    name = "_upsample_nearest_exact2d_backward" if exact else "upsample_nearest2d_backward"
    return getattr(aten, name).default


ROWS: list[Row] = [
    *[
        row(
            "aten.index_add",
            resized(exact),
            lambda s: [
                (s.floats(1, 2, 7, 9), [7, 9], [1, 2, 3, 4], None, 1.7),
                (s.floats(1, 2, 4, 8), [4, 8], [1, 2, 2, 9], None, None),
            ],
            folds=True,
            id="upsample-nearest-exact-backward" if exact else "upsample-nearest-backward",
        )
        for exact in (False, True)
    ],
    row(
        "aten.convolution_backward",
        convolution_backward,
        convolutions,
        dynamic=varying,
        slack=1e-4,
        refused={"torchscript": "PyTorch's tracer knows no lists of bools"},
    ),
    row("aten._scaled_dot_product_flash_attention_for_cpu_backward", attention_backward, attended),
    row(
        "aten.embedding_dense_backward",
        aten.embedding_dense_backward.default,
        looked_up,
        dynamic=lambda s, n: (s.floats(n, 4), s.ints(n, low=0, high=7), 7, 1, False),
    ),
    row("aten.max_pool2d_with_indices_backward", max_pool_backward(2), pooled(2), slack=1e-4),
    row(
        "aten.max_pool3d_with_indices_backward",
        max_pool_backward(3),
        pooled(3),
        slack=1e-4,
    ),
    *[row(f"aten.avg_pool{n}d_backward", avg_pool_backward(n), pooled(n), slack=1e-4) for n in (2, 3)],
    *[row(f"aten.adaptive_max_pool{n}d_backward", adaptive_max_backward(n), adaptive(n)) for n in (2, 3)],
    *[row(f"aten._adaptive_avg_pool{n}d_backward", adaptive_avg_backward(n), adaptive(n)) for n in (2, 3)],
]
