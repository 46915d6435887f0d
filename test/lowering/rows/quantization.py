"""Quantising and dequantising, and the product of int8 that torch-mlir spells as ``mm``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from lowering.rows import Cases, Row, Sample, row

Q = torch.ops.quantized_decomposed


def _real(s: Sample, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Values beyond the range on both sides, and halves, which round to even."""
    x = s.floats(*shape) * 3
    x.flatten()[:4] = torch.tensor([0.5, 1.5, -2.5, 1000.0])[: x.numel()]
    return x.to(dtype)


def _single(op: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``op``, which takes no float64, for the reference in float64: integers are compared exactly anyway."""
    return lambda x, *rest: op(x.float() if x.dtype == torch.float64 else x, *rest)


def _quantize(s: Sample) -> Cases:
    return [
        (_real(s, 5, 7), 1.0, 0, -128, 127, torch.int8),
        (_real(s, 33), 0.37, 3, 0, 255, torch.uint8),
        (_real(s, 0, 3), 0.1, 0, 0, 255, torch.uint8),
        (_real(s, 3, 17, dtype=torch.bfloat16), 0.05, -7, -127, 127, torch.int8),
        (_real(s, 9), 1e-4, 11, -(2**15), 2**15 - 1, torch.int16),
    ]


def _quantize_tensor(s: Sample) -> Cases:
    scale, zero = torch.tensor(0.37), torch.tensor(3)
    return [
        (_real(s, 5, 7), scale, zero, 0, 255, torch.uint8),
        (_real(s, 9), scale[None].double(), zero[None], -128, 127, torch.int8),
    ]


def _integers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    info = torch.iinfo(dtype)
    return torch.randint(info.min, info.max + 1, shape, dtype=dtype)


def _dequantize(s: Sample) -> Cases:
    return [
        (_integers(torch.int8, 5, 7), 0.37, 0, -128, 127, torch.int8),
        (_integers(torch.uint8, 33), 0.1, 128, 0, 255, torch.uint8),
        (_integers(torch.int16, 4), 1e-4, -3, -(2**15), 2**15 - 1, torch.int16),
    ]


def _dequantize_tensor(s: Sample) -> Cases:
    return [(_integers(torch.uint8, 5, 7), torch.tensor(0.37), torch.tensor(3), 0, 255, torch.uint8)]


def _scales(count: int) -> torch.Tensor:
    return torch.rand(count) + 0.05


def _quantize_channels(s: Sample) -> Cases:
    return [
        (_real(s, 5, 7), _scales(5), torch.randint(-9, 9, (5,)), 0, -128, 127, torch.int8),
        (_real(s, 3, 4, 5), _scales(4), torch.randint(0, 9, (4,)), 1, 0, 255, torch.uint8),
    ]


def _dequantize_channels(s: Sample) -> Cases:
    return [
        (_integers(torch.int8, 5, 7), _scales(5), torch.randint(-9, 9, (5,)), 0, -128, 127, torch.int8),
        (_integers(torch.uint8, 3, 4, 5), _scales(4), torch.randint(0, 9, (4,)), 1, 0, 255, torch.uint8),
        (_integers(torch.int8, 3, 4), _scales(4), None, 1, -128, 127, torch.int8),
    ]


ROWS: list[Row] = [
    row("quantized_decomposed.quantize_per_tensor", _single(Q.quantize_per_tensor), _quantize),
    row(
        "quantized_decomposed.quantize_per_tensor.tensor",
        _single(Q.quantize_per_tensor.tensor),
        _quantize_tensor,
    ),
    row("quantized_decomposed.quantize_per_channel", _single(Q.quantize_per_channel), _quantize_channels),
    row("quantized_decomposed.dequantize_per_tensor", Q.dequantize_per_tensor, _dequantize),
    row(
        "quantized_decomposed.dequantize_per_tensor.tensor",
        Q.dequantize_per_tensor.tensor,
        _dequantize_tensor,
    ),
    row("quantized_decomposed.dequantize_per_channel", Q.dequantize_per_channel, _dequantize_channels),
    row(
        "aten._int_mm",
        torch._int_mm,
        lambda s: [(_integers(torch.int8, m, k), _integers(torch.int8, k, n)) for m, k, n in _SIZES],
        folds=True,
    ),
]

_SIZES: list[tuple[int, int, int]] = [(17, 33, 20), (1, 5, 3), (32, 64, 96)]
