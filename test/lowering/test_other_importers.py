"""Every row's program by the lazy and the TorchScript importer: the canonical form of FX, and eager PyTorch's results.

What an importer cannot take, the row says with its reason; the importer has to refuse it.
"""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from typing import Any

import pytest
import torch
from lowering.rows import CasesModule, Row, all_rows, sample
from numerics import assert_matches
from torch.utils import _pytree as pytree

from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.structure import difference
from torch_tvm.importers.fx import import_fx
from torch_tvm.importers.lazy import import_lazy
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import TorchTvmError

ROWS = {row.id: row for row in all_rows() if row.xfail is None}
SEED = int(os.environ["TORCH_TVM_SEED"])
IMPORTERS = ["lazy", "torchscript"]


class Flat(torch.nn.Module):
    """A program whose results are a flat tuple, as tracing wants them."""

    def __init__(self, program: CasesModule) -> None:
        super().__init__()
        self.program = program

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(pytree.tree_leaves(self.program(*tensors)))


def _program(row: Row) -> tuple[list[tuple[Any, ...]], CasesModule]:
    cases = row.inputs(sample(row, SEED))
    return cases, CasesModule(row.function, cases)


@lru_cache(maxsize=1)
def _exported(row_id: str) -> TorchModule:
    _, program = _program(ROWS[row_id])
    return canonicalize(import_fx(Flat(program), tuple(program.arguments)))


def _imported(importer: str, program: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> TorchModule:
    if importer == "lazy":
        return import_lazy(program, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(program, args, check_trace=False)
    return import_torchscript(traced, args)


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS.values()])
def test_row(row: Row, importer: str) -> None:
    cases, program = _program(row)
    args = tuple(program.arguments)
    if importer in row.refused:
        with pytest.raises((TorchTvmError, RuntimeError), match=r"INTERNAL ASSERT|importer|JIT tracer"):
            _imported(importer, Flat(program), args)
        return
    module = canonicalize(_imported(importer, Flat(program), args))
    assert difference(_exported(row.id), module) == []
    _, spec = pytree.tree_flatten(program(*(tensor.clone() for tensor in args)))
    results: list[Any] = pytree.tree_unflatten(pytree.tree_leaves(module(*args)), spec)
    for case, ours in zip(cases, results, strict=True):
        assert_matches(ours, row.function, case, slack=row.slack)


def test_refusing_importers_exist() -> None:
    assert {importer for row in ROWS.values() for importer in row.refused} <= set(IMPORTERS)
