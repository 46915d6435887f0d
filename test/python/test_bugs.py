"""Bugs of ours: the program runs in PyTorch with one warning, or the error says how to see it again."""

from __future__ import annotations

import gc
import inspect
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tvm import relax

import torch_tvm
from torch_tvm.driver import pipeline
from torch_tvm.driver.narrowing import narrowed
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


_LINE = inspect.getsourcelines(Net.forward)[1] + 2


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
        rf"test_bugs.py:{_LINE}: torch.aten.sinh: a bug of torch_tvm: KeyError: 'lost'",
        str(caught[0].message),
    )
    assert [item.op for item in compiled.report.fallbacks] == ["torch.aten.sinh"]
    _check(compiled, net)


def test_one_op_without_fallback(broken_lowering: None) -> None:
    with pytest.raises(InternalError) as caught:
        torch_tvm.compile(Net(), (torch.randn(3, 4),), fallback=False)
    head, where, advice = str(caught.value).split("\n")
    assert re.search(rf"test_bugs.py:{_LINE}: torch.aten.sinh: a bug of torch_tvm: KeyError: 'lost'$", head)
    assert where.endswith("(lowering)") or where == "  in lowering"
    path = re.search(r"torch-tvm compile --no-fallback (\S+)$", advice)
    assert path is not None
    done = subprocess.run([sys.executable, "-m", "torch_tvm.tools.cli", "compile", path.group(1)], capture_output=True)
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


class Chain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()
        z = y.cumsum(0) * 2
        return self.second(z).softmax(-1)


@pytest.mark.parametrize("stage", ["optimize", "schedule", "build"])
@pytest.mark.parametrize(("kernel", "left"), [("cumsum", ["cumsum"]), ("matmul", ["linear", "linear"])])
@pytest.mark.parametrize("by_dynamo", [False, True])
def test_only_what_a_stage_fails_for_runs_in_pytorch(
    stage: str, kernel: str, left: list[str], by_dynamo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(pipeline, stage)

    def fails_for_one_kernel(mod: Any, *args: Any, **kwargs: Any) -> Any:
        if kernel in _kernels(mod):
            raise ValueError("no such loop")
        return original(mod, *args, **kwargs)

    monkeypatch.setattr(pipeline, stage, fails_for_one_kernel)
    net = Chain().requires_grad_(False)
    with pytest.warns(torch_tvm.FallbackWarning) as caught:
        if by_dynamo:
            torch._dynamo.reset()
            compiled = torch.compile(net, backend="torch_tvm", options={"cache": False})
            compiled(torch.randn(3, 4))
        else:
            compiled = torch_tvm.compile(net, (torch.randn(3, 4),), options={"cache": False})
    (ours,) = [warned for warned in caught if warned.category is torch_tvm.FallbackWarning]
    lines = str(ours.message).splitlines()[1:]
    places = re.findall(
        r"test_bugs.py:(\d+): torch.aten.(\w+): a bug of torch_tvm: ValueError: no such loop", str(lines)
    )
    first = inspect.getsourcelines(Chain.forward)[1] + 1
    expected = {"cumsum": {str(first + 1)}, "matmul": {str(first), str(first + 2)}}
    assert {line for line, _ in places} == expected[kernel] and [op for _, op in places] == left
    for _ in range(2):
        x = torch.randn(3, 4)
        torch.testing.assert_close(compiled(x), net(x))


def _kernels(mod: Any) -> str:
    """The names of kernels, and of Relax ops that are to become some."""
    names = []
    for gvar, function in mod.functions_items():
        if not isinstance(function, relax.Function):
            names.append(gvar.name_hint)
            continue
        bindings = [binding for block in function.body.blocks for binding in block.bindings]
        names += [str(binding.value.op) for binding in bindings if isinstance(binding.value, relax.Call)]
    return " ".join(names)


def test_halving_finds_what_is_at_fault() -> None:
    def attempt(items: Sequence[int]) -> list[int]:
        tried.append(len(items))
        if wrong - set(items):
            raise ValueError
        return sorted(items)

    for wrong in ({77}, {0}, {99}, {3, 50}, {1, 2, 3, 4}):
        tried: list[int] = []
        assert narrowed(range(100), attempt) == sorted(wrong)
        assert len(tried) <= 8 * len(wrong)
    wrong = {1, 2, 3, 4, 5}
    assert narrowed(range(100), attempt) == list(range(100))
    wrong = {7}
    assert narrowed(range(100), attempt, seconds=0) == list(range(100))
    wrong = {200}
    with pytest.raises(ValueError):
        narrowed(range(100), attempt)
    with pytest.raises(ValueError):
        narrowed([], attempt)


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
        return x if x.sum() > 0 else eval("-x")  # nor does this script


class Misfit(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x


@pytest.mark.parametrize("program", [Branch(), Misfit()], ids=["branch", "misfit"])
def test_pytorch_writes_nothing_about_what_it_refuses(
    program: torch.nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    """It prints the graph up to a branch, and logs with a traceback what fake tensors reject."""
    with pytest.raises(torch_tvm.ImportFailed, match=r"test_bugs.py:\d+: "):
        torch_tvm.compile(program, (torch.ones(2, 4),), frontend="fx")
    assert capfd.readouterr() == ("", "")


def _raises_and_loops(x: torch.Tensor, n: int) -> torch.Tensor:
    if n > 3:
        raise RuntimeError("too many")
    for _ in range(n):
        x = x * 2 if bool(x.sum() > 0) else x[torch.tensor([0, 1, 2])]
    return x
