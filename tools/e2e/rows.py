"""The rows of ``test/lowering`` as cases: every op that has a lowering, and those of them again with unknown sizes.

They lie in the repository, beside the lowerings' other tests; an installed package has none.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.tools.e2e.case import Case, Program
from torch_tvm.tools.numerics import assert_matches

FOLDER = Path(__file__).resolve().parents[2] / "test"
_SIZES = (6, 9, 17)


def is_present() -> bool:
    """Whether the rows are there: in a checkout."""
    return (FOLDER / "lowering" / "rows").is_dir()


def row_cases(seed: int) -> list[Case]:
    """A case for each row, and for each that has a form with unknown sizes; none where there is no checkout."""
    if not is_present():
        return []
    os.environ.setdefault("TORCH_TVM_SEED", str(seed))
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    rows = importlib.import_module("lowering.rows")
    found = []
    for row in rows.all_rows():
        refused = dict.fromkeys(("fx", "torchscript", "lazy", "dynamo"), row.xfail) if row.xfail else row.refused
        words = " ".join(row.ops)
        found.append(Case(row.id, _static(rows, row, seed), refused=refused, words=words))
        if row.dynamic is not None:
            varying = _varying(rows, row, seed)
            found.append(Case(f"{row.id}[n]", varying, frontends=("fx", "torchscript", "dynamo"), words=words))
    return found


def _static(rows: Any, row: Any, seed: int) -> Any:
    def program() -> Program:
        cases = row.inputs(rows.sample(row, seed))
        module = rows.CasesModule(row.function, cases)

        def compare(results: Sequence[Any], args: tuple[torch.Tensor, ...]) -> None:
            for each, ours in zip(cases, results, strict=True):
                assert_matches(ours, row.function, each, slack=row.slack)

        return Program(module, [tuple(module.arguments)], compare=compare)

    return program


def _varying(rows: Any, row: Any, seed: int) -> Any:
    """The program with every size of 6 unknown, called with several."""

    def program() -> Program:
        generator = rows.sample(row, seed)
        by_size = {n: row.dynamic(generator, n) for n in _SIZES}
        module = rows.CasesModule(row.function, [by_size[6]])
        calls = [
            tuple(leaf for leaf in pytree.tree_leaves(each) if isinstance(leaf, torch.Tensor))
            for each in by_size.values()
        ]
        shapes = [
            {axis: torch.export.Dim.AUTO for axis, size in enumerate(tensor.shape) if size == 6} for tensor in calls[0]
        ]

        def compare(results: Sequence[Any], args: tuple[torch.Tensor, ...]) -> None:
            (ours,) = results
            leaves, spec = pytree.tree_flatten(by_size[6])
            remaining = iter(args)
            given = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            assert_matches(ours, row.function, pytree.tree_unflatten(given, spec), slack=row.slack)

        return Program(module, calls, shapes, compare=compare)

    return program


__all__ = ["is_present", "row_cases"]
