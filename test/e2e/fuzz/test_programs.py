"""Random programs against eager PyTorch: a fixed slice here, as many as one likes with ``runner.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("runner.py")


def _run(programs: int, seed: int, jobs: int) -> None:
    command = [
        sys.executable,
        str(RUNNER),
        "--programs",
        str(programs),
        "--seed",
        str(seed),
        "--jobs",
        str(jobs),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-1000:]}"


def test_a_slice_of_random_programs() -> None:
    _run(programs=15, seed=0, jobs=1)


@pytest.mark.e2e
def test_random_programs() -> None:
    _run(programs=5000, seed=100_000, jobs=2)
