"""Modules with state, submodules, methods and interfaces, scripted and traced, each against eager."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from torch import nn

from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.torchscript import import_torchscript

zoo: Any = sys.modules["torchscript_module_zoo"]

STATELESS = {
    "affine": (zoo.Affine, (2, 3)),
    "conv_net": (zoo.ConvNet, (2, 3, 6, 6)),
    "lists": (zoo.Lists, (2, 3)),
    "methods": (zoo.Methods, (2, 3)),
    "interface": (zoo.WithInterface, (2, 3)),
    "shared": (zoo.SharedWeights, (2, 3)),
    "eval_dropout": (zoo.TrainingFlag, (2, 3)),
    "recurrent": (zoo.Recurrent, (2, 5, 3)),
    "cells": (zoo.Cells, (6, 2, 3)),
    "encoder_layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "pre_norm_encoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
            2,
            enable_nested_tensor=False,
        ),
        (2, 5, 8),
    ),
    "conv_transpose": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.GroupNorm(2, 4), nn.SiLU(), nn.AvgPool2d(2)),
        (1, 3, 4, 4),
    ),
}


def close(got: Any, want: Any) -> None:
    got, want = (torch.utils._pytree.tree_leaves(value) for value in (got, want))
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STATELESS)
@pytest.mark.parametrize("capture", ["script", "trace", "freeze"])
def test_against_eager(name: str, capture: str) -> None:
    build, shape = STATELESS[name]
    model = build().eval()
    x = torch.randn(shape)
    if capture == "trace":
        program = torch.jit.trace(model, (x,), check_trace=False)
    else:
        program = torch.jit.script(model)
        program = torch.jit.freeze(program) if capture == "freeze" else program
    module = import_torchscript(program, (x,))
    module.verify()
    assert "torch.prim.If" not in str(module.asm()), "known conditions fold"
    fresh = torch.randn(shape)
    with torch.no_grad():
        close(module(fresh), model(fresh))


def test_training_batch_norm_updates_its_state() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    eager = copy.deepcopy(model)
    module = import_torchscript(torch.jit.script(model), (torch.randn(5, 3),))
    assert set(module.state) == {"1.num_batches_tracked", "1.running_mean", "1.running_var"}
    for _ in range(3):
        x = torch.randn(5, 3)
        close(module(x), eager(x).detach())
    buffers = dict(eager.named_buffers())
    for name, value in module.state.items():
        torch.testing.assert_close(value, buffers[name])


def test_buffers_attributes_and_numbers_are_state() -> None:
    model = zoo.Running()
    eager = copy.deepcopy(model)
    module = import_torchscript(torch.jit.script(model), (torch.randn(3),))
    assert set(module.state) == {"total", "last", "count"}
    for _ in range(4):
        x = torch.randn(3)
        close(module(x), eager(x).detach())
    assert int(module.state["count"]) == eager.count == 4
    torch.testing.assert_close(module.state["last"], eager.last)
    assert model.total is module.state["total"], "a buffer is written back into the module itself"


def test_state_inside_an_object() -> None:
    eager = torch.jit.script(zoo.WithObject())
    module = import_torchscript(torch.jit.script(zoo.WithObject()), (torch.randn(3),))
    assert set(module.state) == {"meter.count", "meter.total"}
    for _ in range(3):
        x = torch.randn(3)
        close(module(x), eager(x))
    assert int(module.state["meter.count"]) == 3


@pytest.mark.parametrize("spec", [torch.ones(4), TensorSpec((None,))], ids=["static", "dynamic"])
def test_state_changed_in_a_branch_and_a_loop(spec: Any) -> None:
    eager = zoo.ConditionalState()
    module = import_torchscript(torch.jit.script(copy.deepcopy(eager)), (spec,))
    for x in (torch.ones(4), -torch.ones(4), torch.tensor([3.0, -1.0, 0.5, 0.25])):
        close(module(x), eager(x))
    torch.testing.assert_close(module.state["hits"], eager.hits)


def test_a_window_of_a_buffer_is_written() -> None:
    eager = zoo.Cache()
    module = import_torchscript(torch.jit.script(copy.deepcopy(eager)), (torch.randn(3), 0))
    for position in (0, 2, 0, 3):
        x = torch.randn(3)
        close(module(x, position), eager(x, position))
    torch.testing.assert_close(module.state["memory"], eager.memory)


def test_exported_methods() -> None:
    model = zoo.Methods().eval()
    scripted = torch.jit.script(model)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    with torch.no_grad():
        close(import_torchscript(scripted, (x,), method="encode")(x), model.encode(x))
        close(import_torchscript(scripted.decode, (h,))(h), model.decode(h))
        module = import_torchscript(scripted, (x, 0.5, torch.ones(3)))
        close(module(x, 3.0, torch.zeros(3)), model(x, 3.0, torch.zeros(3)))


def test_an_updated_input_is_written_back() -> None:
    def update(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x[0] = 5.0
        x.t().add_(y)
        return x * 2

    module = import_torchscript(update, (torch.randn(3, 3), torch.randn(3)))
    mine = torch.randn(3, 3)
    theirs, y = mine.clone(), torch.randn(3)
    close(module(mine, y), update(theirs, y))
    torch.testing.assert_close(mine, theirs)


def test_weights_are_named_and_not_copied() -> None:
    model = zoo.Affine()
    module = import_torchscript(torch.jit.script(model), (torch.randn(2, 3),))
    assert set(module.weights) == {"first.weight", "first.bias", "rest.1.weight"}
    assert module.weights["first.weight"].data_ptr() == model.first.weight.data_ptr()


def test_locations_name_file_line_and_submodule() -> None:
    text = import_torchscript(torch.jit.script(zoo.Methods()), (torch.randn(2, 3),)).asm(locations=True)
    line = zoo.Methods.encode.__code__.co_firstlineno + 2
    assert f'module_zoo.py":{line}:' in text
    assert '"torchscript:up"' in text
