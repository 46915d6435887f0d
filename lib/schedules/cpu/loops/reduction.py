"""Reductions over any axes, with what comes before and after them in the kernel."""

from __future__ import annotations

from tvm import tirx

from torch_tvm.schedules.cpu.loops.kernel import generate, read
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


class Reduction:
    """Kernels with one reducing block (sum, mean, prod, max, argmax, any, all, two results at once).

    Over the contiguous axis: several vector accumulators and a tree at the end. Over others: accumulators in
    registers for a tile of the contiguous axis. A float32 sum is taken in two levels, so that its rounding error does
    not grow with its length.
    """

    name = "reduction"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        program, parts = read(func)
        count = sum(stage.reducer is not None for stage in program.stages)
        if count != 1:
            raise Refusal(f"{count} blocks reduce, not one")
        return generate(func, program, parts, cpu)
