"""Every row's program by the lazy and the TorchScript importer: in canonical form, against eager PyTorch.

``REFUSED`` are the rows that an importer cannot take, each with its reason; what it cannot take it has to refuse.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch
from lowering.rows import CasesModule, Row, all_rows, sample
from numerics import assert_matches
from torch.utils import _pytree as pytree

from torch_tvm.dialect.module import TorchModule
from torch_tvm.importers.lazy import import_lazy
from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import TorchTvmError

ROWS = [row for row in all_rows() if row.xfail is None]
SEED = int(os.environ.get("TORCH_TVM_SEED", torch.seed() % 100_000))
REFUSED: dict[str, dict[str, str]] = {
    "lazy": {},
    "torchscript": {
        "fill.Scalar": "torch.jit.trace fails with an internal assertion on aten::full_like",
        "view.dtype": "torch.jit.trace fails with an internal assertion on aten::view",
    },
}


class Flat(torch.nn.Module):
    """A program whose results are a flat tuple, as tracing wants them."""

    def __init__(self, program: CasesModule) -> None:
        super().__init__()
        self.program = program

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(pytree.tree_leaves(self.program(*tensors)))


def _imported(importer: str, program: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> TorchModule:
    if importer == "lazy":
        return import_lazy(program, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(program, args, check_trace=False)
    return import_torchscript(traced, args)


def _compare(row: Row, importer: str) -> None:
    cases = row.inputs(sample(row, SEED))
    program = CasesModule(row.function, cases)
    args = tuple(program.arguments)
    module = canonicalize(_imported(importer, Flat(program), args))
    _, spec = pytree.tree_flatten(program(*(tensor.clone() for tensor in args)))
    results: list[Any] = pytree.tree_unflatten(pytree.tree_leaves(module(*args)), spec)
    for case, ours in zip(cases, results, strict=True):
        assert_matches(ours, row.function, case, slack=row.slack)


@pytest.mark.parametrize("importer", ["lazy", "torchscript"])
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_row(row: Row, importer: str) -> None:
    if row.id in REFUSED[importer]:
        with pytest.raises((TorchTvmError, RuntimeError), match=r"INTERNAL ASSERT|importer"):
            _compare(row, importer)
        return
    _compare(row, importer)


def test_refused_rows_exist() -> None:
    known = {row.id for row in ROWS}
    for importer, rows in REFUSED.items():
        assert set(rows) <= known, importer
