"""Softmax and normalisation: chains of reductions and elementwise blocks that share their rows."""

from __future__ import annotations

from tvm import tirx

from torch_tvm.schedules.cpu.loops.kernel import generate, read
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


class RowChain:
    """Kernels whose blocks all run side by side over the same rows (softmax, layer, RMS, group norm,
    variance).

    ``max over k; exp; sum over k; divide``, four loops over the matrix, becomes one loop over its rows with the four
    steps inside and the exponentials of one row in a buffer that stays in level-1 cache. Over an axis that is not
    contiguous, a tile of the contiguous axis takes the place of the row.
    """

    name = "row_chain"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        program, parts = read(func)
        if sum(stage.reducer is not None for stage in program.stages) < 2:
            raise Refusal("fewer than two blocks reduce")
        if len(parts) != 1:
            raise Refusal("the blocks share no rows")
        return generate(func, program, parts, cpu)
