"""Finding wrong numbers: the first op that leaves tolerance, and a failing program made small."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.debug.compare import error_of
from torch_tvm.lowering import ops
from torch_tvm.lowering.registry import LOWERINGS
from torch_tvm.support.errors import InvalidInput


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y = torch.relu(self.first(x))
        y = torch.tanh(y) + self.calls
        return torch.softmax(self.second(y), -1)


def lowered_as(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    """Let ``tanh`` be lowered by another function."""
    ops.load()
    entry = LOWERINGS["torch.aten.tanh"]
    monkeypatch.setitem(LOWERINGS, "torch.aten.tanh", replace(entry, function=function))


def test_a_right_program_is_within_tolerance() -> None:
    found = torch_tvm.debug.lockstep(Net().eval(), (torch.randn(3, 8),))
    assert found.first is None and "all within tolerance" in str(found)
    assert [step.op for step in found.steps][-2:] == ["torch.aten.linear", "torch.aten.softmax.int"]
    assert all(step.is_within and step.error < 1e-5 for step in found.steps)


def test_random_numbers_are_the_same_on_both_sides() -> None:
    found = torch_tvm.debug.lockstep(lambda x: torch.rand_like(x).sum(0) + torch.randn(3), (torch.ones(2, 3),))
    assert found.first is None and len(found.steps) == 4, str(found)


def test_the_first_wrong_op_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered_as(monkeypatch, lambda b, x: b.emit(b.const(1.01, b.dtype(x)) * x))
    found = torch_tvm.debug.lockstep(Net().eval(), (torch.randn(3, 8),))
    assert found.first is not None and found.first.op == "torch.aten.tanh"
    assert found.first.location.startswith(f"{__file__}:") and "error" in str(found)


def test_a_wrong_program_becomes_one_op(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lowered_as(monkeypatch, lambda b, x: b.emit(b.const(1.01, b.dtype(x)) * x))
    path = tmp_path / "bug.py"
    small = torch_tvm.debug.minimize(Net().eval(), (torch.randn(3, 8),), output=path)
    assert small.ops == ["torch.aten.tanh"] and "has an error of" in small.failure
    assert small.arguments[0].shape == (3, 16) and small.command == f"python {path}"
    monkeypatch.undo()  # the file runs in a process whose tanh is right
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "compiled code and the interpreter agree\n"), done.stderr


def test_the_end_of_the_process_is_a_failure_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lowered_as(monkeypatch, lambda b, x: os._exit(9))
    small = torch_tvm.debug.minimize(Net().eval(), (torch.randn(3, 8),), output=tmp_path / "bug.py")
    assert small.ops == ["torch.aten.tanh"] and small.failure == "exit 9"


def test_what_does_not_fail_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the program does not fail"):
        torch_tvm.debug.minimize(nn.ReLU(), (torch.ones(3),), output=tmp_path / "bug.py")
    assert not (tmp_path / "bug.py").exists()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), 0.2),
        (torch.tensor([float("nan")]), torch.tensor([1.0]), float("inf")),
        (torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 1.0]), 0.0),
        (torch.tensor([1]), torch.tensor([2]), float("inf")),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), float("inf")),
        (torch.empty(0), torch.empty(0), 0.0),
    ],
)
def test_errors_of_results(ours: torch.Tensor, theirs: torch.Tensor, expected: float) -> None:
    assert error_of(ours, theirs) == pytest.approx(expected)


def test_where_the_program_is_written_is_asked_before_it_is_made_small(tmp_path: Path) -> None:
    def never(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("imported")

    with pytest.raises(InvalidInput, match="there is no such folder"):
        torch_tvm.debug.minimize(never, (torch.ones(2),), output=tmp_path / "none" / "bug.py")
