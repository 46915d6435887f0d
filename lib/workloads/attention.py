"""Scaled dot product attention: what its blocks are called, and what they do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch_tvm.workloads.workload import Workload

SCORES = "attention_scores"
"""The block of the products of queries and keys."""

MASKED = "attention_masked"
"""The block that scales and masks a score."""

OUTPUT = "attention_output"
"""The block of the weighted sums."""

ROWS = "attention_rows"
"""The block that clears rows of the result, if there is one."""

CAST = "attention_cast"
"""The block that gives the result its dtype, if there is one."""


@dataclass(frozen=True)
class AttentionWorkload(Workload):
    """``causal`` is ``none``, ``top_left`` or ``bottom_right``: where the diagonal of the mask begins.

    A row that sees no key is 0 where ``is_safe``, else NaN.
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.attention"

    causal: str
    is_safe: bool
