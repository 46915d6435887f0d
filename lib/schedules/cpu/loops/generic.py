"""What no other rule takes: any chain of blocks, group by group; opaque TIR stays as it is."""

from __future__ import annotations

from tvm import tirx

from torch_tvm.schedules.cpu.loops.kernel import generate, read
from torch_tvm.schedules.target import CpuModel


class Generic:
    """Any kernel of blocks: inlined, cut into groups with common loops, each group parallel and
    vectorised."""

    name = "generic"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        program, parts = read(func)
        return generate(func, program, parts, cpu)
