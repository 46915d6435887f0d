"""Every lowering against eager PyTorch, through every importer."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from layouts import assert_same_for_mixed_layouts, laid_out
from lowering.harness import IMPORTERS, Compiled
from lowering.rows import CasesModule, Row, all_rows, sample
from numerics import assert_matches
from torch.export import Dim

from torch_tvm.aten.libraries import LINEAR_ALGEBRA, library_of
from torch_tvm.lowering import ops
from torch_tvm.lowering.registry import COMPLEX, LOWERINGS
from torch_tvm.support.errors import InvalidInput

ROWS = all_rows()
SEED = int(os.environ["TORCH_TVM_SEED"])


def _parameters(rows: list[Row]) -> list[Any]:
    return [
        pytest.param(row, id=row.id, marks=[pytest.mark.xfail(reason=row.xfail, strict=True)] if row.xfail else [])
        for row in rows
    ]


@pytest.mark.parametrize("importer", sorted(IMPORTERS))
@pytest.mark.parametrize("row", _parameters(ROWS))
def test_row(row: Row, importer: str) -> None:
    cases = row.inputs(sample(row, SEED))
    program = CasesModule(row.function, cases)
    compiled = Compiled(importer, program, program.arguments)
    assert row.folds or set(row.ops) <= compiled.ops, f"canonical form has {sorted(compiled.ops)}, not {row.ops}"
    results = compiled(*program.arguments)
    for case, ours in zip(cases, results, strict=True):
        assert_matches(ours, row.function, case, slack=row.slack)
    if compiled.layout:
        with pytest.raises(InvalidInput, match="other numbers for other strides"):
            compiled(*laid_out(program.arguments, "transposed"))
    else:
        # LAPACK sums in another order where a matrix begins elsewhere between two vectors.
        is_lapack = any(library_of(f"torch.{name}") == LINEAR_ALGEBRA for name in row.ops)
        slack = row.slack if is_lapack else 0.0
        assert_same_for_mixed_layouts(compiled, program.arguments, SEED, slack=slack)


@pytest.mark.parametrize("row", _parameters([row for row in ROWS if row.dynamic is not None]))
def test_row_with_unknown_sizes(row: Row) -> None:
    assert row.dynamic is not None
    generator = sample(row, SEED)
    program = CasesModule(row.function, [row.dynamic(generator, 6)])
    shapes = [{d: Dim.AUTO for d, size in enumerate(t.shape) if size == 6} for t in program.arguments]
    compiled = Compiled("fx", program, program.arguments, {"tensors": tuple(shapes)})
    assert set(row.ops) <= compiled.ops, f"canonical form has {sorted(compiled.ops)}, not {row.ops}"
    for n in (6, 9, 17):
        case = row.dynamic(generator, n)
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(case) if isinstance(leaf, torch.Tensor)]
        (ours,) = compiled(*tensors)
        assert_matches(ours, row.function, case, slack=row.slack)


def test_every_registered_op_has_a_row() -> None:
    ops.load()
    named = {f"torch.{name}" for row in ROWS for name in row.ops}
    lowered = set(LOWERINGS) | set(COMPLEX)
    assert not sorted(lowered - named), "lowered ops without a row"
    unknown = sorted(name for name in named - lowered if library_of(name) is None)
    assert not unknown, "rows for ops that have no lowering"


def test_row_ids_are_unique() -> None:
    ids = [row.id for row in ROWS]
    assert len(ids) == len(set(ids)), sorted({i for i in ids if ids.count(i) > 1})
