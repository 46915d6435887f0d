"""Exporting, scripting, tracing a model and capturing it on the lazy device give the same canonical program."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.structure import difference
from torch_tvm.importers.fx import import_fx
from torch_tvm.importers.lazy import import_lazy
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.tools.zoo import MODELS, build

NAMES = [name for name, model in MODELS.items() if model.small or name in ("bert", "gpt2")]


def _traced(module: torch.nn.Module, args: tuple[Any, ...]) -> TorchModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_torchscript(torch.jit.trace(module, args, check_trace=False), args)


CAPTURES: dict[str, Callable[[torch.nn.Module, tuple[Any, ...]], TorchModule]] = {
    "scripted": import_torchscript,
    "traced": _traced,
    "lazy": import_lazy,
}
# TorchScript compiles none of the transformers package's models: their configuration has no source to compile.
CASES = [
    pytest.param(name, capture, id=f"{name}-{capture}")
    for name in NAMES
    for capture in CAPTURES
    if capture != "scripted" or MODELS[name].scriptable
]


@lru_cache(maxsize=1)
def _exported(name: str) -> tuple[torch.nn.Module, tuple[Any, ...], TorchModule]:
    module, args = build(name, 2)
    return module, args, canonicalize(import_fx(module, args))


@pytest.mark.parametrize(("name", "capture"), CASES)
def test_every_capture_gives_one_program(name: str, capture: str) -> None:
    module, args, exported = _exported(name)
    captured = canonicalize(CAPTURES[capture](module, args))
    assert difference(exported, captured) == []
    with torch.no_grad():
        torch.testing.assert_close(captured(*args), module(*args))


def _both(name: str, batch: int) -> tuple[TorchModule, TorchModule]:
    module, args = build(name, batch)
    return canonicalize(import_fx(module, args)), canonicalize(import_torchscript(module, args))


def _swap(module: TorchModule) -> None:
    """Exchange the operands' producers of two elementwise ops: ``tanh`` becomes ``relu``."""
    for operation in view.walk(module.mlir):
        if operation.name == "torch.aten.tanh":
            swapped = ir.Operation.create(
                "torch.aten.relu",
                results=[operation.results[0].type],
                operands=list(operation.operands),
                loc=operation.location,
                ip=ir.InsertionPoint(operation),
            )
            operation.results[0].replace_all_uses_with(swapped.result)
            operation.erase()
            return
    raise AssertionError("no op to change")


def _change_constant(module: TorchModule) -> None:
    for operation in view.walk(module.mlir):
        if operation.name == "torch.constant.int" and view.constant_of_op(operation) == 2:
            i64 = ir.IntegerType.get_signless(64, module.mlir.context)
            operation.attributes["value"] = ir.IntegerAttr.get(i64, 3)
            return
    raise AssertionError("no constant to change")


def _reorder(module: TorchModule) -> None:
    """Swap two ops of a chain: ``f(g(x))`` becomes ``g(f(x))`` for two ops of the same type."""
    for operation in view.walk(module.mlir):
        if operation.name != "torch.aten.tanh":
            continue
        user = next(iter(operation.results[0].uses)).owner
        if user.name == "torch.aten.linear":
            weight = user.operands[1]
            other = next(
                op.operands[1]
                for op in view.walk(module.mlir)
                if op.name == "torch.aten.linear" and op != user.operation
            )
            user.operands[1] = other
            assert weight != other
            return
    raise AssertionError("no chain to reorder")


@pytest.mark.parametrize("mutate", [_swap, _change_constant, _reorder])
def test_a_mutation_is_seen(mutate) -> None:
    exported, scripted = _both("lenet", 1)
    mutate(scripted)
    assert difference(exported, scripted) != []


def test_a_changed_weight_is_seen() -> None:
    module, args = build("mlp")
    exported = canonicalize(import_fx(module, args))
    other, _ = build("mlp", seed=1)
    assert difference(exported, canonicalize(import_torchscript(other, args))) != []


class _Difference(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - 2 * b


@pytest.mark.parametrize("capture", [import_fx, *CAPTURES.values()], ids=["fx", *CAPTURES])
def test_one_tensor_given_twice_is_two_arguments(capture: Any) -> None:
    example, a, b = torch.randn(3), torch.randn(3), torch.randn(3)
    module = _Difference().eval()
    with torch.no_grad():
        torch.testing.assert_close(
            canonicalize(capture(module, (example, example)))(a, b), module(a, b), rtol=0, atol=0
        )


def test_memory_that_nobody_filled_is_zeros() -> None:
    def forward(x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.empty(2, 3) * x, torch.empty_like(x), x.new_empty(4).int()]

    args = (torch.randn(2, 3),)
    module = _Function(forward)
    exported = canonicalize(import_fx(module, args))
    assert all(not result.any() for result in exported(*args))
    for capture in (_traced, import_lazy):
        assert difference(exported, canonicalize(capture(module, args))) == []


class _Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)
