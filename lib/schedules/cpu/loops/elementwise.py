"""Elementwise and broadcasting kernels: one pass, contiguous vectors, tails of their own."""

from __future__ import annotations

from tvm import tirx

from torch_tvm.schedules.cpu.loops.kernel import generate, read
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


class Elementwise:
    """Kernels without a reduction.

    ``for i, j: T[i, j] = a[i, j] * b[i, j]; for i, j: U[i, j] = T[i, j] + c[i, j]`` becomes
    ``parallel task: for t: vectorized lane: U[k] = a[k] * b[k] + c[k]``.
    """

    name = "elementwise"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        program, parts = read(func)
        if any(stage.reducer is not None for stage in program.stages):
            raise Refusal("a block reduces")
        return generate(func, program, parts, cpu)
