"""Modules of PyTorch's own database of them, with its samples: in evaluation, and trained by ``torch.compile``."""

from __future__ import annotations

import copy
import inspect
import os
import random
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import torch_tvm
from torch_tvm.tools.opinfo.samples import database

pytestmark = pytest.mark.filterwarnings("ignore")
COUNT = 5
LEFT_OUT = (
    "Lazy",
    "LSTM",
    "GRU",
    "RNN",
    "Dropout",
    "Fractional",
    "RReLU",
    "LinearCrossEntropy",
    "Transformer",
    "CTC",
)
"""Modules without shapes, those that dynamo leaves to PyTorch or that draw, and those that take long to compile."""


@cache
def modules() -> list[Any]:
    database()  # what PyTorch's test tools import
    from torch.testing._internal.common_modules import module_db

    found = [each for each in module_db if torch.float32 in each.supported_dtypes("cpu")]
    found = [each for each in found if each.module_cls.__module__.startswith("torch.nn.modules")]
    found = [each for each in found if not any(name in each.name for name in LEFT_OUT)]
    return random.Random(os.environ["TORCH_TVM_SEED"]).sample(found, COUNT)


def sample(number: int, training: bool) -> tuple[nn.Module, tuple[Any, ...]]:
    """One of the chosen modules with one of its samples' arguments."""
    info = modules()[number]
    given = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=training, training=training)
    chosen = random.Random(os.environ["TORCH_TVM_SEED"]).choice(list(given))
    made, called = chosen.constructor_input, chosen.forward_input
    module = info.module_cls(*made.args, **made.kwargs).float().train(training)
    return module, inspect.signature(module.forward).bind(*called.args, **called.kwargs).args


def apart(arguments: Any) -> Any:
    copied = lambda t: t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
    return pytree.tree_map(copied, arguments)


@pytest.mark.parametrize("number", range(COUNT))
def test_evaluation(number: int) -> None:
    module, arguments = sample(number, training=False)
    compiled = torch_tvm.compile(module, arguments, frontend="fx", fallback=False)
    torch.testing.assert_close(compiled(*arguments), module(*arguments), rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("number", range(COUNT))
def test_training(number: int) -> None:
    module, arguments = sample(number, training=True)
    results = []
    for is_compiled in (True, False):
        own, given = copy.deepcopy(module), apart(arguments)
        call = torch.compile(own, backend="torch_tvm") if is_compiled else own
        result = call(*given)
        trained = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor) and t.requires_grad]
        if trained:
            sum(t.square().sum() for t in trained).backward()
        tensors = [t for t in pytree.tree_leaves(given) if isinstance(t, Tensor)]
        results.append([result, [t.grad for t in (*tensors, *own.parameters())], list(own.buffers())])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3, equal_nan=True)
