"""What no other rule takes: any chain of blocks, group by group; opaque TIR stays as it is."""

from __future__ import annotations

from tvm import relax, tirx

from torch_tvm.schedules.cpu.kernel import generate, read
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


class Generic:
    """Any kernel of blocks: inlined, cut into groups with common loops, each group parallel and
    vectorised."""

    name = "generic"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        if relax.analysis.has_reshape_pattern(func):
            raise Refusal("a reshape becomes a view, not a kernel")
        program, parts = read(func)
        return generate(func, program, parts, cpu)
