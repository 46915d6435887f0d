"""Norms that keep statistics of batches, in their rarer forms, and an op whose dtype PyTorch tells wrongly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor as T
from torch import nn

import torch_tvm

aten = torch.ops.aten


class Norms(nn.Module):
    def forward(self, x: T, a: T, b: T, mean: T, var: T) -> list[T]:
        results = [
            *torch.native_batch_norm(x, a, b, mean, var, False, 0.1, 1e-5),
            *aten._batch_norm_with_update(x, a, b, mean, var, 0.25, 1e-5)[:3],
            *aten._native_batch_norm_legit(x, a, b, mean, var, False, 0.1, 1e-5),
        ]
        return [*results, F.instance_norm(x, mean, var, use_input_stats=True, momentum=0.5)]


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_statistics(frontend: str) -> None:
    """Running ones move as eager's do, also towards infinity; outside of training the batch has none."""
    x = torch.randn(4, 3, 5)
    arguments = [x, *torch.rand(4, 3)]
    program: torch.nn.Module = Norms()
    if frontend == "torchscript":
        program = torch.jit.trace(program, tuple(t.clone() for t in arguments), check_trace=False)
    compiled = torch_tvm.compile(program, tuple(t.clone() for t in arguments), frontend=frontend)
    x[1, 2, 3] = float("inf")
    ours, eager = ([t.clone() for t in arguments] for _ in range(2))
    results = [*compiled(*ours), *ours], [*Norms()(*eager), *eager]
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True)


class InTraining(nn.Module):
    def forward(self, x: T, a: T, b: T, mean: T, var: T) -> list[T]:
        inside = aten._native_batch_norm_legit(x, a, b, mean, var, True, 0.1, 1e-5)[0]
        wide = F.instance_norm(x * 300, mean, var) if mean.dtype == x.dtype == torch.float16 else x
        return [inside, F.batch_norm(x, mean, var, a, b, True), wide]


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize("dtypes", [(torch.bfloat16,) * 2, (torch.float16,) * 2, (torch.float16, torch.float32)])
def test_statistics_of_half_precision(dtypes: tuple[torch.dtype, torch.dtype], frontend: str) -> None:
    """PyTorch's fake tensors tell another dtype of the new statistics than its kernel gives."""
    arguments = [torch.randn(4, 3, 5).to(dtypes[0]), *torch.rand(4, 3).to(dtypes[1])]
    program: torch.nn.Module = InTraining()
    if frontend == "torchscript":
        program = torch.jit.trace(program, tuple(t.clone() for t in arguments), check_trace=False)
    examples = tuple(t.clone() for t in arguments)
    compiled = torch_tvm.compile(program, examples, frontend=frontend, fallback=False)
    ours, eager = ([t.clone() for t in arguments] for _ in range(2))
    results = [*compiled(*ours), *ours], [*InTraining()(*eager), *eager]
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)


def test_a_norm_without_channels() -> None:
    nothing = torch.zeros(0)
    with pytest.raises(torch_tvm.ImportFailed, match="the input has no channels"):
        torch_tvm.import_fx(lambda x, m, v: F.batch_norm(x, m, v, training=True), (nothing,) * 3)


def test_a_dtype_that_pytorch_tells_wrongly() -> None:
    """Mended in PyTorch when the first assertion fails."""
    gradient, x = torch.ones(2, dtype=torch.float16), torch.ones(2)
    threshold = aten.threshold_backward.default
    with torch._subclasses.FakeTensorMode() as mode:
        fake = threshold(mode.from_tensor(gradient), mode.from_tensor(x), 0)
    assert (fake.dtype, threshold(gradient, x, 0).dtype) == (torch.float16, torch.float32)
    with pytest.raises(torch_tvm.ImportFailed, match="operands of float16 and float32"):
        torch_tvm.compile(lambda g, x: threshold(g, x, 0), (gradient, x))


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_averages_of_all_batches(frontend: str) -> None:
    """``momentum=None``: each batch moves the statistics by the inverse of the number of batches, which is state."""
    eager = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.ReLU()).train()
    program = copy.deepcopy(eager)
    given = torch.jit.script(program) if frontend == "torchscript" else program
    x = torch.randn(4, 3, 5, 5)
    compiled = torch_tvm.compile(given, (x,), frontend=frontend, fallback=False)
    for scale in (1, 3, 2):
        torch.testing.assert_close(compiled(x * scale), eager(x * scale))
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_statistics_after_batches_of_nothing(frontend: str) -> None:
    """A batch norm keeps its running statistics; an instance norm does where the instances are empty."""

    def program(x: torch.Tensor, y: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> Any:
        return F.batch_norm(x, mean, var, training=True), F.instance_norm(y, mean, var)

    given, kept = [[torch.ones(3), torch.full((3,), 2.0)] for _ in range(2)]
    arguments = torch.randn(0, 3, 4), torch.randn(2, 3, 0)
    traced: Any = torch.jit.trace(program, (*arguments, *kept)) if frontend == "torchscript" else program
    compiled = torch_tvm.compile(traced, (*arguments, *given), frontend=frontend, fallback=False)
    assert [each.shape for each in compiled(*arguments, *given)] == [each.shape for each in arguments]
    assert all(map(torch.equal, given, kept)) and kept[1][0] == 2


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_after_a_batch_that_happens_to_be_empty(momentum: float | None) -> None:
    eager = nn.BatchNorm1d(3, momentum=momentum).train()
    batch = {0: torch.export.Dim("n", min=0)}
    example = (torch.randn(4, 3, 5),)
    compiled = torch_tvm.compile(copy.deepcopy(eager), example, dynamic_shapes=(batch,), fallback=False)
    for size in (2, 0, 7):
        x = torch.randn(size, 3, 5)
        torch.testing.assert_close(compiled(x), eager(x))
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)
