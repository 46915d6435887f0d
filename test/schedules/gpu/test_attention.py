"""Attention in one kernel: masks, grouped heads, odd sizes and few rows, with blocks of two sizes; what nvcc makes of
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_matches

import torch_tvm
from torch_tvm.runtime.opencl import devices
from torch_tvm.schedules.gpu.attention import choose_tiles
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.targets import resolve_target
from torch_tvm.tir import const

from .cuda import resources

OBSTACLE = devices.why_no_device()
needs_device = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "there is a device")

R = torch.randn
attention = F.scaled_dot_product_attention


def operands(*batch: int, rows: int, keys: int, depth: int, dtype: torch.dtype = torch.float32) -> list[Any]:
    return [R(*batch, size, depth, dtype=dtype) for size in (rows, keys, keys)]


def hidden_row(rows: int, keys: int) -> torch.Tensor:
    """A mask that hides every key from one row."""
    mask = torch.rand(2, 1, rows, keys) > 0.3
    mask[0, 0, 5] = False
    return mask


def split_heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    heads = [x.view(2, 30, 3, 16).transpose(1, 2) for x in (q, k, v)]
    return attention(*heads).transpose(1, 2).reshape(2, 30, 48)


PROGRAMS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "causal": (
        lambda q, k, v: attention(q, k, v, is_causal=True),
        operands(1, 2, rows=70, keys=70, depth=32),
    ),
    "odd sizes": (
        attention,
        [*operands(1, 2, rows=37, keys=50, depth=19)[:2], R(1, 2, 50, 33)],
    ),
    "mask": (attention, [*operands(2, 2, rows=37, keys=50, depth=16), hidden_row(37, 50)]),
    "bias": (attention, [*operands(2, 2, rows=37, keys=50, depth=16), R(2, 2, 37, 50)]),
    "grouped heads": (
        lambda q, k, v: attention(q, k, v, is_causal=True, enable_gqa=True),
        [R(1, 4, 33, 24), R(1, 2, 33, 24), R(1, 2, 33, 24)],
    ),
    "one row": (attention, operands(2, 2, rows=1, keys=150, depth=64)),
    "large heads": (attention, operands(1, 1, rows=20, keys=40, depth=128)),
    "large scores": (
        lambda q, k, v: attention(q * 30, k * 30, v),
        operands(1, 1, rows=20, keys=80, depth=16),
    ),
    "bfloat16": (attention, operands(1, 2, rows=20, keys=20, depth=32, dtype=torch.bfloat16)),
    "products and softmax": (
        lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) * 0.3, -1) @ v,
        [R(5, 20, 64), R(5, 33, 64), R(5, 33, 7)],
    ),
    "heads of one tensor": (split_heads, [R(2, 30, 48) for _ in range(3)]),
}


def together(*args: Any) -> list[torch.Tensor]:
    return [function(*own) for (function, _), own in zip(PROGRAMS.values(), args, strict=True)]


@pytest.mark.opencl
@needs_device
@pytest.mark.parametrize("threads", [256, 64])
def test_numbers(threads: int) -> None:
    args = [own for _, own in PROGRAMS.values()]
    target = {"kind": "opencl", "max_num_threads": threads, "max_threads_per_block": threads}
    compiled = torch_tvm.compile(together, args, target=target, fallback=False)
    rules = [kernel.rule for kernel in compiled.report.kernels if "attention" in kernel.name]
    assert len(rules) == len(PROGRAMS) and set(rules) == {"attention"}
    for name, ours, own in zip(PROGRAMS, compiled(*args), args, strict=True):
        function = PROGRAMS[name][0]
        try:
            assert_matches(ours, function, own)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.opencl
@needs_device
def test_sizes_that_vary_and_special_values() -> None:
    class Program(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return attention(q, k, v)

    rows, keys = torch.export.Dim("rows", min=1, max=300), torch.export.Dim("keys", min=1, max=300)
    sizes = ({2: rows}, {2: keys}, {2: keys})
    example = operands(1, 2, rows=9, keys=11, depth=16)
    compiled = torch_tvm.compile(Program(), tuple(example), target="opencl", fallback=False, dynamic_shapes=sizes)
    assert "attention" in {kernel.rule for kernel in compiled.report.kernels}
    for count, length in ((9, 11), (1, 1), (40, 130)):
        args = operands(1, 2, rows=count, keys=length, depth=16)
        assert_matches(compiled(*args), attention, args)
    args[0][0, 0, 3, 0], args[0][0, 1, 4, 2] = float("nan"), float("inf")
    assert_matches(compiled(*args), attention, args)


@pytest.mark.parametrize("depth", [16, 64, 80, 128])
def test_tiles_fit(depth: int) -> None:
    for target in ({"kind": "opencl"}, {"kind": "cuda", "arch": "sm_80"}):
        gpu = GpuModel.from_target(resolve_target(target))
        for rows in (1, 7, 512):
            tiles = choose_tiles(const(rows), const(2048), depth, depth, gpu)
            assert tiles.shared(depth, depth) <= gpu.shared
            assert tiles.registers(depth) <= gpu.registers
            assert tiles.rows < 2 * max(rows, tiles.down) and tiles.down * tiles.across <= gpu.threads


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("depth", [64, 128])
def test_nvcc_spills_nothing(depth: int, tmp_path: Path) -> None:
    args = tuple(operands(2, 4, rows=256, keys=256, depth=depth))
    program = lambda q, k, v: attention(q, k, v, is_causal=True)
    compiled = torch_tvm.compile(program, args, target={"kind": "cuda", "arch": "sm_80"}, fallback=False)
    found = resources(compiled, "sm_80", tmp_path)
    origin: Any = compiled.origin
    tiles = choose_tiles(const(256), const(256), depth, depth, GpuModel.from_target(origin.target))
    assert not found.spilled
    assert found.registers <= 128 and 0 <= tiles.shared(depth, depth) - found.shared < 16
