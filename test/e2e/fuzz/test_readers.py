"""Files with random edits: an error of ours or a module, no dead process, no file made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

READERS = Path(__file__).with_name("readers.py")


def _read_edited(kind: str, count: int, seed: int, folder: Path) -> None:
    command = [sys.executable, str(READERS), kind, str(count), str(seed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "done\n", (
        f"seed {seed}: exit code {done.returncode}\n{done.stdout}{done.stderr[-500:]}"
    )


@pytest.mark.parametrize("kind", ["mlir", "mlirbc", "ts", "ltc", "pt"])
def test_edited_files(kind: str, tmp_path: Path) -> None:
    _read_edited(kind, 300, 77, tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["mlir", "mlirbc", "ts", "ltc", "pt"])
def test_many_edited_files(kind: str, tmp_path: Path) -> None:
    _read_edited(kind, 10_000, int(os.environ["TORCH_TVM_SEED"]), tmp_path)
