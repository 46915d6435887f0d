"""A failing test with random inputs says by which seed it fails again, and it does: alone, and after other tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

DRAWS = """
import torch
X = torch.randn(2).tolist()

def test_before():
    torch.randn(5)

def test_that_fails():
    raise AssertionError(f"drawn: {X} {torch.randn(2).tolist()}")
"""


def _drawn(seed: int, *tests: str) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-c",
        str(ROOT / "pyproject.toml"),
        *tests,
    ]
    environment = {
        **os.environ,
        "TORCH_TVM_SEED": str(seed),
        "PYTHONHASHSEED": "random",
        "PYTHONPATH": "test",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert f"random inputs were those of TORCH_TVM_SEED={seed}" in done.stdout, done.stdout + done.stderr
    return next(line for line in done.stdout.splitlines() if "AssertionError: drawn" in line)


def test_a_seed_replays(tmp_path: Path) -> None:
    for name in ("test_other.py", "test_draws.py"):
        (tmp_path / name).write_text(DRAWS)
    alone = _drawn(7, f"{tmp_path}/test_draws.py::test_that_fails")
    among_others = _drawn(7, f"{tmp_path}/test_other.py::test_before", f"{tmp_path}/test_draws.py")
    assert alone == among_others
    assert alone != _drawn(8, f"{tmp_path}/test_draws.py::test_that_fails")
