"""``TORCH_TVM_DUMP``: what a compile writes after each phase."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import torch_tvm
from torch_tvm.backends.stages import pipeline
from torch_tvm.passes.pipeline import CANONICALIZATION
from torch_tvm.schedules.target import host_target
from torch_tvm.support.errors import InvalidInput

MODEL = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
ARGUMENTS = (torch.randn(2, 4),)


def test_each_phase_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_TVM_DUMP", str(tmp_path / "new"))
    for _ in range(2):
        torch_tvm.compile(MODEL, ARGUMENTS)
    first, second = (tmp_path / "new" / f"compile_{number}" for number in range(2))
    names = ["0_imported.mlir", "1_canonical.mlir", "2_lowered.py", "3_optimised.py", "4_scheduled.py"]
    assert (
        sorted(path.name for path in first.iterdir() if path.is_file())
        == sorted(path.name for path in second.iterdir() if path.is_file())
        == names
    )
    words = ("aten.linear", "aten.linear", "R.matmul", "T.prim_func", "tirx.is_scheduled")
    for name, word in zip(names, words, strict=True):
        assert word in (first / name).read_text(), name
    steps = [[path.stem[3:] for path in sorted((first / each).iterdir())] for each in ("1_canonical", "3_optimised")]
    assert steps[0] == [each.name.strip("_-") for each in CANONICALIZATION]
    assert steps[1] == [each.name for each in pipeline(host_target())]
    last = max((first / "3_optimised").iterdir())
    assert last.read_text() == (first / "3_optimised.py").read_text()


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_TVM_DUMP", str(tmp_path / "file"))
    with pytest.raises(InvalidInput, match=r"TORCH_TVM_DUMP: cannot make a folder"):
        torch_tvm.compile(MODEL, ARGUMENTS)
