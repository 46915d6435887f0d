"""Scans of TVM's own for GPUs are left aside: they count on lanes that run in step, which no GPU promises any more."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.transforms.base import Transform


class ScansAsLoops(Transform):
    """Sums along an axis become loops, which rules schedule like any other.

    ``R.cumsum(x)``  →  ``R.call_tir(cumsum, (x,))``, as it is for a CPU

    TVM's kernels for GPUs read what a neighbour has written to shared memory without a barrier in between.
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        with tvm.target.Target({"kind": "llvm"}):
            return relax.backend.DispatchSortScan()(mod)
