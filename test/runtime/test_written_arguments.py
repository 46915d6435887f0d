"""Ops of a user's library that write their arguments: they run in PyTorch, the ops around them in compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.support.errors import ImportFailed

pytestmark = pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")


@torch.library.custom_op("torch_tvm_written::scale_", mutates_args={"x"})
def scale_(x: torch.Tensor, factor: float) -> None:
    x.mul_(factor)


@torch.library.custom_op("torch_tvm_written::add_to", mutates_args={"x"})
def add_to(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(y)
    return x * y


@torch.library.custom_op("torch_tvm_written::add_to_all", mutates_args={"xs", "z"})
def add_to_all(xs: list[torch.Tensor], y: torch.Tensor, z: torch.Tensor | None = None) -> list[torch.Tensor]:
    for x in xs if z is None else [*xs, z]:
        x.add_(y)
    return [y * 2, y[0] + 1]


add_to.register_fake(lambda x, y: torch.empty_like(x))
add_to_all.register_fake(lambda xs, y, z=None: [torch.empty_like(y), torch.empty_like(y[0])])

_library = torch.library.Library("torch_tvm_written", "FRAGMENT")
_library.define("put_(Tensor(a!) x, Tensor y, *, int times=1) -> Tensor(a!)")
_library.impl("put_", lambda x, y, times=1: x.copy_(y * times), "CompositeExplicitAutograd")


def _argument(x: torch.Tensor) -> Any:
    scale_(x, 3.0)
    return x * 2


def _views(x: torch.Tensor) -> Any:
    y = (x + 1).t()
    scale_(y[1], 3.0)
    scale_(y[0], 2.0)
    row = y[2]
    scale_(row, 2.0)
    return y * 2, row


def _result(x: torch.Tensor) -> Any:
    y = x * 2
    z = add_to(y, x)
    return y, z, y + z


def _lists(x: torch.Tensor) -> Any:
    a, b, c = x + 1, x + 2, x + 3
    first, second = add_to_all([a, b], x)
    third, _ = add_to_all([a], x, c)
    return a * b, c, first * second, third


def _returned(x: torch.Tensor) -> Any:
    y = x * 2
    z = torch.ops.torch_tvm_written.put_(y, x, times=3)
    z.add_(1)
    return y + z


PROGRAMS = [_argument, _views, _result, _lists, _returned]


class Whole(nn.Module):
    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: torch.Tensor) -> Any:
        return self.program(x)


@pytest.mark.parametrize("program", PROGRAMS)
def test_exported(program: Callable[..., Any]) -> None:
    compiled = torch_tvm.compile(Whole(program), (torch.randn(4, 3),))
    assert compiled.report.fallbacks
    _check(compiled, program, torch.randn(4, 3))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_by_torch_compile(program: Callable[..., Any], dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(program, backend="torch_tvm", dynamic=dynamic)
    for rows in (4, 5):
        _check(compiled, program, torch.randn(rows, 3))


@pytest.mark.filterwarnings("error::torch_tvm.dynamo.GraphNotCompiled")
def test_gradients_around_them() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        statistics = x.detach().sum(0)
        scale_(statistics, 0.5)
        return (x.sin() * statistics).sum()

    torch._dynamo.reset()
    x = torch.randn(4, 3, requires_grad=True)
    ours, eager = (torch.autograd.grad(f(x), x) for f in (torch.compile(program, backend="torch_tvm"), program))
    torch.testing.assert_close(ours, eager)


def test_memory_that_two_arguments_share() -> None:
    def program(x: torch.Tensor) -> Any:
        y = x + 1
        return add_to(y, y.view(-1, 3)), y

    with pytest.raises(ImportFailed, match="the op writes memory that two of its arguments share"):
        torch_tvm.compile(Whole(program), (torch.randn(4, 3),))
    torch._dynamo.reset()
    with pytest.warns(GraphNotCompiled, match="two of its arguments share"):
        _check(torch.compile(program, backend="torch_tvm"), program, torch.randn(4, 3))


def _check(compiled: Any, program: Callable[..., Any], x: torch.Tensor) -> None:
    own, theirs = x.clone(), x.clone()
    with torch.no_grad():
        torch.testing.assert_close((compiled(own), own), (program(theirs), theirs))
