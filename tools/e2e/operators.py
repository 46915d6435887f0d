"""PyTorch's operator database as cases: some samples of each operator in float32, as ``torch_tvm.tools.opinfo`` runs
them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from torch_tvm.tools.e2e.case import Case

_VERDICTS = {"agree": "pass", "in PyTorch": "pass", "bare": "error"}


def operator_cases(seed: int) -> list[Case]:
    """A case for each operator that takes float32."""
    from torch_tvm.tools.opinfo.samples import database

    operators = sorted(database(), key=lambda op: op.full_name)
    return [
        Case(op.full_name, None, "opinfo", run=functools.partial(_run, op, seed))
        for op in operators
        if torch.float32 in op.dtypes
    ]


def _run(op: Any, seed: int, frontend: str, fallback: bool) -> tuple[str, str]:
    """The worst of an operator's verdicts, and what was found."""
    from torch_tvm.tools.opinfo.sweep import VERDICTS, swept

    outcome = swept(op, torch.float32, frontend, count=3, seed=seed, fallback=fallback)
    if not outcome.verdicts:
        return "skip", "PyTorch has no sample of it that can be compared"
    worst = max(outcome.verdicts, key=VERDICTS.index)
    return _VERDICTS.get(worst, worst), "\n".join(outcome.found)


__all__ = ["operator_cases"]
