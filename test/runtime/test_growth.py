"""Compile time and memory grow no faster than the program."""

from __future__ import annotations

import subprocess
import sys

import pytest
from runtime import chains

QUICK = ("roll", "heat", "sine", "stack")
"""Kinds that once took exponential time, or one kernel that LLVM took minutes for."""


@pytest.mark.parametrize("kind", QUICK)
def test_twice_the_steps_take_twice_the_time(kind: str) -> None:
    chains.compiled(kind, 2)
    before = chains.peak()
    few, many = chains.compiled(kind, 40), chains.compiled(kind, 80)
    assert many < 2.5 * few + 0.5
    assert many < 10
    assert chains.peak() - before < 500


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
