"""Running sums, products, extrema and their like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch_tvm.workloads.workload import Workload


@dataclass(frozen=True)
class ScanWorkload(Workload):
    """A scan of the first operand along ``axis``.

    ``is_associative`` says that the total of some elements may stand for them; where there are two totals, the last
    stands for an element and the first for its number.
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.scan"

    axis: int
    is_associative: bool
