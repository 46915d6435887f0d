"""Compile time and memory grow no faster than the program."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from runtime import chains

import torch_tvm

QUICK = ("roll", "heat", "sine", "stack")
"""Kinds that once took exponential time, or one kernel that LLVM took minutes for."""


@pytest.mark.parametrize("kind", QUICK)
def test_twice_the_steps_take_twice_the_time(kind: str) -> None:
    chains.compiled(kind, 2)
    before = chains.peak()
    few = chains.compiled(kind, 40)
    many = min(chains.compiled(kind, 80) for _ in range(2))  # other work on the core slows one of them
    assert many < 2.5 * few + 0.5
    assert many < 10
    assert chains.peak() - before < 500


def test_steps_that_are_alike_are_one_kernel() -> None:
    program, args = chains.KINDS["pool"](6)
    compiled = torch_tvm.compile(program, args)
    assert len(compiled.report.kernels) <= 3
    torch.testing.assert_close(compiled(*args), program(*args))


@pytest.mark.e2e
@pytest.mark.parametrize("kind", chains.KINDS)
def test_long_programs(kind: str) -> None:
    (few, _), (many, memory) = (_alone(kind, steps) for steps in (150, 300))
    assert many < 2.5 * few + 0.5
    assert memory < 1000


def _alone(kind: str, steps: int) -> tuple[float, float]:
    """The seconds and MiB of one compilation in a process of its own."""
    command = [sys.executable, chains.__file__, kind, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


class _Windows(torch.nn.Module):
    """Padded to whole windows and cut to size again, as the encoder of SAM does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, height, width, _ = x.shape
        y = F.pad(x, (0, 0, 0, (14 - width % 14) % 14, 0, (14 - height % 14) % 14))
        return x + torch.sin(y)[:, :height, :width, :]


def test_sizes_that_are_long_expressions() -> None:
    """Each index of such a kernel holds copies of the sizes, and TVM's passes took minutes for them."""
    chains.compiled("roll", 2)  # what a first compile imports is not counted
    auto = torch.export.Dim.AUTO
    module = torch_tvm.import_fx(
        _Windows(), (torch.randn(1, 20, 17, 8),), dynamic_shapes={"x": {1: auto, 2: auto}}
    )
    started = time.process_time()
    result = torch_tvm.compile(module)
    assert time.process_time() - started < 8
    assert not result.report.fallbacks
    for size in ((20, 17), (23, 30), (15, 29), (3, 2)):  # torch.export takes it that there is some padding
        x = torch.randn(1, *size, 8)
        torch.testing.assert_close(result(x), _Windows()(x))
