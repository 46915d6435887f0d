"""Kernels in the traces of ``torch.profiler``."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import torch_tvm
from torch_tvm.codegen import build
from torch_tvm.runtime.kernel_events import CALL

_CPU = [ProfilerActivity.CPU]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).relu()
        z = y.cumsum(0)
        return z[i].softmax(-1)


_CUMSUM = inspect.getsourcelines(Net.forward)[1] + 2


def _profiled(call: Any, *args: Any) -> tuple[Any, list[str]]:
    with profile(activities=_CPU) as found:
        result = call(*args)
    return result, [event.name for event in found.events() if event.name.startswith("torch_tvm::")]


@pytest.mark.parametrize("by_dynamo", [False, True])
def test_kernels_have_their_names_and_lines(by_dynamo: bool) -> None:
    net = Net().requires_grad_(False)
    x, i = torch.randn(3, 4), torch.tensor([2, 0])
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="torch_tvm") if by_dynamo else torch_tvm.compile(net, (x, i))
    expected = compiled(x, i)
    result, names = _profiled(compiled, x, i)
    assert torch.equal(result, expected)
    assert any("cumsum" in name and f"test_kernel_events.py:{_CUMSUM}" in name for name in names), names
    assert CALL in names and len(names) > 3


def test_nothing_else_changes_while_no_profiler_is_on() -> None:
    net = Net().requires_grad_(False)
    x, i = torch.randn(3, 4), torch.tensor([2, 0])
    compiled = torch_tvm.compile(net, (x, i))
    with profile(activities=_CPU), pytest.raises(torch_tvm.InvalidIndex):
        compiled(x, torch.tensor([3, 0]))
    torch.testing.assert_close(_profiled(compiled, x, i)[0], net(x, i))  # no event was left open


def test_gradients_loops_and_threads() -> None:
    torch._dynamo.reset()
    net = Net()
    compiled = torch.compile(net, backend="torch_tvm")
    x, i = torch.randn(3, 4, requires_grad=True), torch.tensor([2, 0])
    step = lambda: compiled(x, i).pow(2).sum().backward()
    step()
    _, names = _profiled(step)
    assert names.count(CALL) == 2 and sum("matmul" in name for name in names) >= 2
    expected, x.grad = x.grad, None
    assert expected is not None
    step()
    assert x.grad is not None
    torch.testing.assert_close(expected, 2 * x.grad)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() < 100):
            x = x * 2 + 1
        return x

    looped = torch_tvm.compile(torch.jit.script(doubled), (torch.ones(3),))
    result, names = _profiled(looped, torch.ones(3))
    assert torch.equal(result, doubled(torch.ones(3))) and len(names) > 5

    results: list[Any] = []
    with profile(activities=_CPU):
        thread = threading.Thread(target=lambda: results.append(looped(torch.ones(3))))
        thread.start()
        looped(torch.ones(3))
        thread.join()
    assert torch.equal(results[0], doubled(torch.ones(3)))


def test_a_loaded_module_has_the_same_events(tmp_path: Path) -> None:
    net = Net().requires_grad_(False)
    x, i = torch.randn(3, 4), torch.tensor([2, 0])
    compiled = torch_tvm.compile(net, (x, i))
    compiled.save(tmp_path / "net.ttvm")
    loaded = torch_tvm.load(tmp_path / "net.ttvm")
    result, names = _profiled(loaded, x, i)
    torch.testing.assert_close(result, net(x, i))
    assert names == _profiled(compiled, x, i)[1] and len(names) > 3


def test_nothing_is_compiled_for_a_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net().requires_grad_(False)
    x, i = torch.randn(3, 4), torch.tensor([2, 0])
    compiled = torch_tvm.compile(net, (x, i))
    monkeypatch.setattr(build, "compile_cpu", None)
    assert len(_profiled(compiled, x, i)[1]) > 3
