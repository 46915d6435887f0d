"""Every op row and every small model on arguments in every layout, by every frontend, with ``-m e2e``.

A compiled program gives bit for bit what it gives for dense arguments. ``torch.compile`` traces again for other
strides, so it is compared with eager, for one mixture of layouts a program.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from layouts import assert_same_for_any_layout, mixed
from lowering.rows import CasesModule, Row, all_rows, sample
from lowering.test_other_importers import Flat
from numerics import assert_matches

import torch_tvm
from torch_tvm.dynamo import GraphNotCompiled
from torch_tvm.tools.zoo import MODELS, build

FRONTENDS = ("fx", "torchscript", "lazy")
SEED = int(os.environ["TORCH_TVM_SEED"])
ROWS = [row for row in all_rows() if row.xfail is None]
SMALL = [model.name for model in MODELS.values() if model.small]


def _compiled(program: torch.nn.Module, args: Sequence[Any], frontend: str) -> Callable[..., Any]:
    given = _traced(program, args) if frontend == "torchscript" else program
    return torch_tvm.compile(given, tuple(args), frontend=frontend)


def _traced(program: torch.nn.Module, args: Sequence[Any]) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(program, tuple(args), check_trace=False)


@pytest.mark.e2e
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_row(row: Row, frontend: str) -> None:
    if frontend in row.refused:
        pytest.skip(row.refused[frontend])
    program = CasesModule(row.function, row.inputs(sample(row, SEED)))
    assert_same_for_any_layout(_compiled(Flat(program), program.arguments, frontend), program.arguments)


@pytest.mark.e2e
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_row_by_torch_compile(row: Row) -> None:
    torch._dynamo.reset()
    cases = row.inputs(sample(row, SEED))
    program = CasesModule(row.function, cases)
    fast = torch.compile(program, backend="torch_tvm")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", GraphNotCompiled)
        results = fast(*mixed(program.arguments, SEED))
    for case, ours in zip(cases, results, strict=True):
        assert_matches(ours, row.function, case, slack=row.slack)


@pytest.mark.e2e
@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("name", SMALL)
def test_model(name: str, frontend: str) -> None:
    model, args = build(name, 2)
    assert_same_for_any_layout(_compiled(model, args, frontend), args)


@pytest.mark.e2e
@pytest.mark.parametrize("name", SMALL)
def test_model_by_torch_compile(name: str) -> None:
    torch._dynamo.reset()
    model, args = build(name, 2)
    with torch.no_grad():
        ours, eager = torch.compile(model, backend="torch_tvm")(*mixed(args, SEED)), model(*args)
    torch.testing.assert_close(ours, eager, rtol=1e-3, atol=1e-3)
