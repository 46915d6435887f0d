"""Bugs of ours: the program runs in PyTorch with one warning, or the error says how to see it again."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tvm
from torch_tvm import pipeline
from torch_tvm.lowering.module import ModuleLowering
from torch_tvm.lowering.registry import LOWERINGS
from torch_tvm.support.errors import InternalError


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.linear(x).relu()
        return y.sinh(), y.view(-1)[::2]


def _broken(*_: Any, **__: Any) -> Any:
    raise KeyError("lost")


@pytest.fixture
def broken_lowering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOWERINGS, "torch.aten.sinh", replace(LOWERINGS["torch.aten.sinh"], function=_broken))


def _check(compiled: Any, net: Net) -> None:
    for _ in range(2):
        x = torch.randn(3, 4)
        for ours, eager in zip(compiled(x), net(x), strict=True):
            torch.testing.assert_close(ours, eager)


def test_one_op_runs_in_pytorch(broken_lowering: None) -> None:
    net = Net().requires_grad_(False)
    with pytest.warns(torch_tvm.FallbackWarning) as caught:
        compiled = torch_tvm.compile(net, (torch.randn(3, 4),))
    assert len(caught) == 1
    assert re.search(
        r"test_bugs.py:30: torch.aten.sinh: a bug of torch_tvm: KeyError: 'lost'", str(caught[0].message)
    )
    assert [item.op for item in compiled.report.fallbacks] == ["torch.aten.sinh"]
    _check(compiled, net)


def test_one_op_without_fallback(broken_lowering: None) -> None:
    with pytest.raises(InternalError) as caught:
        torch_tvm.compile(Net(), (torch.randn(3, 4),), fallback=False)
    head, where, advice = str(caught.value).split("\n")
    assert re.search(r"test_bugs.py:30: torch.aten.sinh: a bug of torch_tvm: KeyError: 'lost'$", head)
    assert where.endswith("(lowering)") or where == "  in lowering"
    path = re.search(r"torch-tvm compile --no-fallback (\S+)$", advice)
    assert path is not None
    done = subprocess.run(
        [sys.executable, "-m", "torch_tvm.tools.cli", "compile", path.group(1)], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    Path(path.group(1)).unlink()


@pytest.mark.parametrize("stage", ["optimize", "schedule", "build"])
@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_a_stage_that_fails(stage: str, frontend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = getattr(pipeline, stage), []

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("min() arg is an empty sequence")
        return original(*args, **kwargs)

    monkeypatch.setattr(pipeline, stage, fails_once)
    net = Net().requires_grad_(False)
    with pytest.warns(torch_tvm.FallbackWarning, match="a bug of torch_tvm: ValueError: min"):
        compiled = torch_tvm.compile(net, (torch.randn(3, 4),), frontend=frontend)
    _check(compiled, net)
    calls.clear()
    with pytest.raises(InternalError, match=r"a bug of torch_tvm: ValueError: min.*\n.*\n  report it with"):
        torch_tvm.compile(net, (torch.randn(3, 4),), frontend=frontend, fallback=False)


def test_errors_of_the_users_own_passes_stay_what_they_are() -> None:
    with pytest.raises(KeyError, match="lost"):
        torch_tvm.compile(Net(), (torch.randn(3, 4),), options={"passes": {"after-lowering": [_broken]}})


@pytest.mark.parametrize("raises", ["lowering", "stage"])
def test_nothing_is_written_to_stderr(
    raises: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """TVM warns there of a block that an exception left open."""
    original, calls = ModuleLowering._define, []

    def fails_late(self: ModuleLowering, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("lost")
        original(self, *args)

    if raises == "lowering":
        monkeypatch.setattr(ModuleLowering, "_define", fails_late)
    else:
        monkeypatch.setattr(pipeline, "optimize", _broken)
    with pytest.raises(InternalError):
        torch_tvm.compile(Net(), (torch.randn(3, 4),), fallback=False)
    monkeypatch.undo()
    torch_tvm.compile(torch.jit.script(_raises_and_loops), (torch.randn(3), 2))
    torch_tvm.compile(lambda x, i: x.scatter(0, i, 1.0).sort(), (torch.randn(9), torch.arange(9)))
    gc.collect()
    assert capfd.readouterr().err == ""


class Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Misfit(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x


@pytest.mark.parametrize("program", [Branch(), Misfit()], ids=["branch", "misfit"])
def test_pytorch_writes_nothing_about_what_it_refuses(
    program: torch.nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    """It prints the graph up to a branch, and logs with a traceback what fake tensors reject."""
    with pytest.raises(torch_tvm.ImportFailed, match=r"test_bugs.py:1\d\d: "):
        torch_tvm.compile(program, (torch.ones(2, 4),), frontend="fx")
    assert capfd.readouterr() == ("", "")


def _raises_and_loops(x: torch.Tensor, n: int) -> torch.Tensor:
    if n > 3:
        raise RuntimeError("too many")
    for _ in range(n):
        x = x * 2 if bool(x.sum() > 0) else x[torch.tensor([0, 1, 2])]
    return x
