"""Products and rows on a GPU: which rule takes what, tiles from the model of the GPU, numbers on
what device there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_tvm
from torch_tvm.runtime.opencl.devices import why_no_device
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.gpu.product import choose_tiles
from torch_tvm.targets import resolve_target

R = torch.randn
needs_device = pytest.mark.skipif(bool(why_no_device()), reason=why_no_device() or "there is a device")

PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], str]] = {
    "odd sizes, bias and gelu": (lambda x, w: F.gelu(x @ w + 1), (R(33, 45), R(45, 77)), "product"),
    "transposed": (lambda x, w: (x.t() @ w.t()).tanh(), (R(30, 65), R(9, 30)), "product"),
    "batched": (lambda x, w: x @ w, (R(2, 3, 17, 16), R(3, 16, 33)), "product"),
    "whole numbers": (
        lambda x, w: x @ w,
        (torch.arange(90).view(9, 10), torch.arange(100).view(10, 10)),
        "product",
    ),
    "cut sums": (lambda x, w: torch.relu(x @ w) + 1, (R(16, 4096), R(4096, 24)), "product"),
    "convolution": (
        lambda x, w: torch.relu(F.conv2d(x, w, stride=2, padding=1, dilation=2)),
        (R(2, 5, 15, 14), R(9, 5, 3, 2)),
        "product",
    ),
    "convolution, cut sums": (
        lambda x, w: F.conv2d(x, w, padding=1),
        (R(1, 128, 7, 7), R(32, 128, 3, 3)),
        "product",
    ),
    "convolution in 3 dimensions": (
        lambda x, w: F.conv3d(x, w),
        (R(1, 2, 5, 6, 7), R(8, 2, 3, 3, 3)),
        "product",
    ),
    "convolution with groups": (
        lambda x, w: F.gelu(F.conv2d(x, w, padding=1, groups=4)),
        (R(2, 12, 11, 9), R(36, 3, 3, 3)),
        "product",
    ),
    "convolution by channel": (
        lambda x, w: F.relu(F.conv2d(x, w, padding=1, stride=2, groups=6)),
        (R(2, 6, 11, 9), R(12, 1, 3, 3)),
        "windows",
    ),
    "pool": (lambda x, w: F.max_pool2d(x, 3, 2, 1) + w, (R(2, 5, 21, 20), R(10)), "windows"),
    "sums of one term": (lambda x, w: x.sum(1) * w, (R(50, 1, 3), R(3)), "windows"),
    "names in several places": (
        lambda x, w: F.grid_sample(x, w.tanh(), mode="bicubic", align_corners=False),
        (R(1, 2, 5, 6), R(1, 4, 3, 2)),
        "spatial loops",
    ),
    "vector": (lambda x, w: F.linear(x, w), (R(1, 300), R(70, 300)), "rows"),
    "softmax": (lambda x, w: (x * w).softmax(-1) * 2, (R(2, 5, 77), R(77)), "rows"),
    "normalisation": (lambda x, w: F.layer_norm(x, (6, 20), w), (R(3, 6, 20), R(6, 20)), "rows"),
    "groups of channels": (lambda x, w: F.group_norm(x, 4, w), (R(2, 16, 5, 5), R(16)), "rows"),
    "positions": (lambda x, w: (x + w).argmax(-1), (R(9, 300), R(300)), "rows"),
}


def compiled(name: str, target: Any) -> torch_tvm.CompiledModule:
    function, args, _ = PROGRAMS[name]

    class Program(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return function(x, w)

    return torch_tvm.compile(Program(), args, target=target, fallback=False)


def fresh(args: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [torch.randn_like(x) if x.is_floating_point() else torch.randint_like(x, -9, 9) for x in args]


@pytest.mark.opencl
@needs_device
@pytest.mark.parametrize("name", PROGRAMS)
def test_numbers_with_blocks_of_two_sizes(name: str) -> None:
    """Fewer threads mean other tiles and other orders: a race would show."""
    function, args, rule = PROGRAMS[name]
    results = []
    inputs = fresh(args)
    for threads in (256, 64):
        module = compiled(name, {"kind": "opencl", "max_num_threads": threads})
        assert rule in {kernel.rule for kernel in module.report.kernels}
        results.append(module(*inputs))
        torch.testing.assert_close(results[-1], function(*inputs), rtol=1e-4, atol=1e-3)
        again = fresh(args)
        torch.testing.assert_close(module(*again), function(*again), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)


@pytest.mark.opencl
@needs_device
def test_sizes_that_vary() -> None:
    class Program(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> Any:
            return F.gelu(x @ w), F.layer_norm(x, (40,)), x.softmax(-1)

    rows = torch.export.Dim("rows", min=1, max=500)
    module = torch_tvm.compile(
        Program(), (R(9, 40), R(40, 24)), target="opencl", fallback=False, dynamic_shapes=({0: rows}, None)
    )
    assert {kernel.rule for kernel in module.report.kernels} == {"product", "rows"}
    for n in (1, 2, 9, 100, 300):
        x, w = R(n, 40), R(40, 24)
        torch.testing.assert_close(module(x, w), Program()(x, w), rtol=1e-4, atol=1e-3)


def test_tiles_follow_the_gpu() -> None:
    target = resolve_target({"kind": "cuda", "arch": "sm_80"})
    gpu = GpuModel.from_target(target)
    large = choose_tiles(1, 4096, 4096, 4096, 4, gpu)
    assert (large.rows, large.columns) == (128, 128)
    small = choose_tiles(1, 64, 512, 512, 4, gpu)
    assert small.rows * small.columns < large.rows * large.columns  # blocks for the whole GPU come first
    narrow = choose_tiles(1, 100_000, 16, 64, 4, gpu)
    assert narrow.columns == 16 and narrow.rows > 64
    tight = GpuModel(target, shared=4 << 10)
    tiles = choose_tiles(1, 4096, 4096, 4096, 4, tight)
    assert (tiles.rows + tiles.columns) * tiles.depth * 4 <= tight.shared
