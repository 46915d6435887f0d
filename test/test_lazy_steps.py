"""Steps written for the lazy device, run by compiled code and compared with eager steps."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._lazy.ts_backend

import torch_tvm.lazy
from torch_tvm import ImportFailed, InvalidInput

torch._lazy.ts_backend.init()


def model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def test_inference_is_compiled_once_a_shape() -> None:
    eager = model().eval()
    lazy = copy.deepcopy(eager).to("lazy")
    step = torch_tvm.lazy.compile(lambda x: {"y": lazy(x), "n": 3})
    with torch.no_grad():
        for batch in (2, 2, 5, 2):
            x = torch.randn(batch, 6)
            result = step(x.to("lazy"))
            assert result["n"] == 3 and result["y"].device.type == "lazy"
            torch.testing.assert_close(result["y"].cpu(), eager(x))
    assert (step.report.calls, step.report.graphs, step.report.hits) == (4, 2, 2)
    assert step.report.trace_seconds > 0 and step.report.run_seconds > 0
    assert "2 of them with a graph" in str(step.report)


def train(network: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad()
    loss = (network(x) - y).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_agrees_with_eager(momentum: float) -> None:
    eager = model()
    lazy = copy.deepcopy(eager).to("lazy")
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=momentum, foreach=False) for network in (eager, lazy)
    ]
    step = torch_tvm.lazy.compile(lambda x, y: train(lazy, optimizers[1], x, y), state=[lazy, optimizers[1]])
    for _ in range(5):
        x, y = torch.randn(4, 6), torch.randn(4, 3)
        loss = step(x.to("lazy"), y.to("lazy"))
        torch.testing.assert_close(loss.cpu(), train(eager, optimizers[0], x, y), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(lazy.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.detach().cpu(), theirs.detach(), rtol=1e-4, atol=1e-5)
    assert step.report.graphs <= 2 and step.report.hits >= 3


def test_numbers_that_change_become_inputs() -> None:
    step = torch_tvm.lazy.compile(lambda x, n: x * n)
    for n in (2.0, 3.0, 4.0, 5.0):
        torch.testing.assert_close(step(torch.ones(3).to("lazy"), n).cpu(), torch.full((3,), n))
    assert step.report.graphs == 2 and step.report.hits == 2


def test_equal_shapes_of_other_graphs_are_told_apart() -> None:
    step = torch_tvm.lazy.compile(lambda x, y, same: x * x if same else x * y)
    x, y = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(step(x.to("lazy"), y.to("lazy"), False).cpu(), x * y)
    torch.testing.assert_close(step(x.to("lazy"), y.to("lazy"), True).cpu(), x * x)


def test_written_arguments_are_written() -> None:
    x = torch.zeros(3).to("lazy")
    update = torch_tvm.lazy.compile(_add_one)
    for _ in range(3):
        assert update(x) is None
    torch.testing.assert_close(x.cpu(), torch.full((3,), 3.0))


def _add_one(x: torch.Tensor) -> None:
    x.add_(1)


def test_eager_ops_in_a_step_are_counted() -> None:
    step = torch_tvm.lazy.compile(lambda x: torch.where(x > 0, x, -x) + 1)
    x = torch.randn(4)
    torch.testing.assert_close(step(x.to("lazy")).cpu(), x.abs() + 1)
    assert step.report.eager == {"aten::where.self": 1}


def test_refusals() -> None:
    with pytest.raises(InvalidInput, match="a module, an optimizer or a tensor"):
        torch_tvm.lazy.compile(lambda x: x, state=[3])
    with pytest.raises(InvalidInput, match="expected a function"):
        torch_tvm.lazy.compile(3)  # type: ignore[arg-type]
    with pytest.raises(ImportFailed, match="random"):
        torch_tvm.lazy.compile(lambda x: x + torch.rand(3, device="lazy"))(torch.randn(3).to("lazy"))
