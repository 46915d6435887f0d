"""Scripting a module and exporting it give the same canonical program."""

from __future__ import annotations

import warnings

import pytest
import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.structure import difference
from torch_tvm.importers.fx import import_fx
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.tools.zoo import MODELS, build

SCRIPTABLE = [
    "mlp", "lenet", "resnet18_small", "resnet50_small", "mobilenet_v2_small", "vgg11_small", "unet", "lstm",
    "gru", "encoder_layer", "vit", "mobilenet_v3_small", "efficientnet_small", "shufflenet_small", "densenet_small",
    "inception_small", "convnext_small", "gpt2_decode_small", "elementwise_chain_small", "reduction_chain_small",
]  # fmt: skip

# Models that can only be traced: their traces agree with eager in results, not in text, because tracing
# bakes shapes into the graph as tensors and calls other overloads than export does.
TRACED = ["bert", "gpt2"]


def _both(name: str, batch: int) -> tuple[TorchModule, TorchModule]:
    module, args = build(name, batch)
    return canonicalize(import_fx(module, args)), canonicalize(import_torchscript(module, args))


@pytest.mark.parametrize("name", SCRIPTABLE)
def test_scripting_and_exporting_give_one_program(name: str) -> None:
    exported, scripted = _both(name, 2)
    assert difference(exported, scripted) == []


@pytest.mark.parametrize("name", TRACED)
def test_traced_models_agree_in_results(name: str) -> None:
    module, args = build(name, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, args)
    with torch.no_grad():
        torch.testing.assert_close(canonicalize(import_torchscript(traced, args))(*args), module(*args))


def test_every_model_is_compared() -> None:
    large = {name for name, model in MODELS.items() if not model.small} - set(TRACED)
    assert set(MODELS) == set(SCRIPTABLE) | set(TRACED) | large


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
