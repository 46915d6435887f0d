"""What a program demands of values that only it knows: compiled code raises where eager does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_tvm
from torch_tvm import InvalidInput, TensorSpec


def check_value(x: Tensor) -> Tensor:
    n = x.sum().item()
    torch._check(n > 3)
    return torch.ones(2) * n


def check_range(i: Tensor) -> Tensor:
    n = i.item()
    torch._check(n >= 1)
    torch._check(n <= 4)
    return torch.arange(5)[:n] * 2


def constrain_range(i: Tensor) -> Tensor:
    n = i.item()
    torch.sym_constrain_range_for_size(n, min=2, max=5)
    return torch.zeros(n) + 1


def check_count(x: Tensor) -> Tensor:
    y = x[x > 0]
    torch._check(y.shape[0] == 2)
    return y + 1


def assert_async(x: Tensor) -> Tensor:
    torch._assert_async(torch.gt(x, 0).any())
    return x + 1


_NUMBERS = [torch.tensor(n) for n in (2, 0, -1, 1, 4, 5, 6)]
_VECTORS = [torch.tensor(v) for v in ([1.0, 3.0, -1.0], [-1.0, -2.0, -3.0], [1.0, 2.0, 3.0], [1.0, -1.0, 0.0])]


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (check_value, _VECTORS),
        (check_range, _NUMBERS),
        (constrain_range, _NUMBERS),
        (check_count, _VECTORS),
        (assert_async, _VECTORS),
    ],
)
def test_export(function: Callable[[Tensor], Tensor], calls: list[Tensor]) -> None:
    compiled = torch_tvm.compile(function, (calls[0],), frontend="fx")
    assert _compare(compiled, function, calls) >= 1


def item(x: Tensor) -> Tensor:
    return torch.ones(2) * x.item()


def add_chosen(x: Tensor) -> Tensor:
    return x[x > 0] + torch.ones(3)


def raise_value_error(x: Tensor) -> Tensor:
    if x.sum() > 3:
        raise ValueError("too large")
    return x + 1


def too_large(x: Tensor) -> Tensor:
    return torch.zeros(int(x.sum().item())) + 1


@pytest.mark.parametrize("function", [item, add_chosen, raise_value_error, too_large])
def test_torchscript(function: Callable[[Tensor], Tensor]) -> None:
    """An exception of the program, one of its ops, and one that only TVM notices: sizes meet that do not fit."""
    compiled = torch_tvm.compile(torch.jit.script(function), (TensorSpec((None,), torch.float32),))
    calls = [torch.ones(n) for n in (3, 2, 1, 5)] + [torch.tensor([1e15]), torch.tensor([-3.0])]
    assert _compare(compiled, torch.jit.script(function), calls) >= 1


def _compare(compiled: Any, function: Any, calls: list[Tensor]) -> int:
    """How many calls both answered."""
    answers = 0
    for x in calls:
        try:
            want = function(x)
        except (RuntimeError, torch.jit.Error):
            with pytest.raises(InvalidInput) as raised:
                print(x, compiled(x))
            assert isinstance(raised.value, RuntimeError)
            continue
        answers += 1
        torch.testing.assert_close(compiled(x), want, rtol=0, atol=0)
    return answers
