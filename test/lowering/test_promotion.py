"""The dtype of what is computed from tensors of different dtypes, from tensors without dimensions and from numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_tvm

DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64,
)  # fmt: skip
NUMBERS = (True, 3, 2.5)

BINARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "maximum": torch.maximum,
    "eq": torch.eq,
    "lt": torch.lt,
    "where": lambda x, y: torch.where(x > 0, x, y),
    "cat": lambda x, y: torch.cat([x.reshape(-1), y.reshape(-1)]),
    "fmod": torch.fmod,
    "pow": torch.pow,
    "atan2": torch.atan2,
    "clamp": lambda x, y: torch.clamp(x, max=y),
}
OF_NUMBERS = ("add", "mul", "div", "eq", "lt", "where", "fmod", "pow", "clamp")

Call = tuple[str, Tensor, Any]


def _calls() -> list[Call]:
    """Every pair of dtypes, with dimensions on both sides or on one, and every dtype with a number."""
    x = lambda dtype: torch.tensor([3.0, 1.0, 2.0, 1.0]).to(dtype)
    y = lambda dtype: torch.tensor([2.0, 1.0, 1.0, 3.0]).to(dtype)
    pairs = [(x(first), y(second)) for first, second in product(DTYPES, DTYPES)]
    pairs += [(x(first), y(second)[0]) for first, second in product(DTYPES, DTYPES)]
    pairs += [(x(first)[0], y(second)) for first, second in product(DTYPES, DTYPES)]
    calls: list[Call] = [(name, *pair) for name, pair in product(BINARY, pairs)]
    return calls + [(name, x(dtype), number) for name, dtype, number in product(OF_NUMBERS, DTYPES, NUMBERS)]


def _eager(call: Call) -> Tensor | None:
    """What PyTorch gives; ``None`` where it has no such op."""
    try:
        return BINARY[call[0]](*call[1:])
    except (RuntimeError, NotImplementedError):
        return None


class _Program(torch.nn.Module):
    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        take = lambda given: next(remaining) if isinstance(given, Tensor) else given
        return tuple(BINARY[name](take(x), take(y)) for name, x, y in self.calls)


def _check(calls: list[Call], frontend: str) -> None:
    calls = [call for call in calls if _eager(call) is not None]
    if frontend == "torchscript":  # a trace finds no ``eq`` of a tensor and a bool
        calls = [call for call in calls if not isinstance(call[2], bool)]
    given = tuple(item for call in calls for item in call[1:] if isinstance(item, Tensor))
    program: Any = _Program(calls)
    if frontend == "torchscript":
        program = torch.jit.trace(program, given, check_trace=False)
    compiled = torch_tvm.compile(program, given, frontend=frontend)
    assert not [op for op in compiled.report.fallbacks if "a bug of torch_tvm" in op.reason]
    for call, ours in zip(calls, compiled(*given), strict=True):
        eager = _eager(call)
        assert eager is not None and (ours.dtype, ours.shape) == (eager.dtype, eager.shape), call
        torch.testing.assert_close(ours, eager, equal_nan=True, msg=str(call))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_some_pairs(frontend: str) -> None:
    chance = random.Random(f"{os.environ['TORCH_TVM_SEED']} {frontend}")
    _check(chance.sample(_calls(), 60), frontend)


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(32))
def test_all_pairs(part: int) -> None:
    _check(_calls()[part::32], ("fx", "torchscript", "lazy")[part % 3])
