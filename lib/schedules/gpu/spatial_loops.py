"""One thread for each point of a block's spatial loops; what is summed up or searched is a loop of that thread.

    for i, j: for k: C[i, j] += A[i, k] * B[k, j]

becomes

    for blockIdx.x, threadIdx.x = split(fuse(i, j)): for k: C[i, j] += A[i, k] * B[k, j]

Each block of a kernel becomes a launch of its own, so that this takes whatever kernel is made of blocks. TVM's DLight
has such a rule too, but it computes what follows a reduction within it, in each iteration, and gives wrong numbers.
"""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from torch_tvm.schedules.gpu.blocks import (
    blocks_of,
    fused,
    inline_producers,
    refusing,
    schedule_of,
    scheduled,
    spatial_loops,
)
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.support.errors import Refusal


class SpatialLoops:
    """The rule for kernels of blocks that nothing else takes."""

    name = "spatial loops"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        try:
            return _bound(func, gpu, inlines=True)
        except Refusal:
            return _bound(func, gpu, inlines=False)  # of a value with names in it only one copy may be


def _bound(func: tirx.PrimFunc, gpu: GpuModel, *, inlines: bool) -> tirx.PrimFunc:
    schedule = schedule_of(func)
    with refusing():
        if inlines:
            inline_producers(schedule)
        blocks = blocks_of(schedule)
        if not blocks:
            raise Refusal("it has no blocks")
        for block in blocks:
            bind_spatial(schedule, block, min(64, gpu.threads))
        return scheduled(schedule)


def bind_spatial(schedule: Schedule, block: SBlockRV, threads: int) -> None:
    """The spatial loops of one block on threads, as a launch of its own."""
    spatial = spatial_loops(schedule, block)
    if not spatial:
        loops = schedule.get_loops(block)
        spatial = [schedule.add_unit_loop(loops[0] if loops else block)]
    outer, inner = schedule.split(fused(schedule, spatial), [None, threads])
    schedule.bind(outer, "blockIdx.x")
    schedule.bind(inner, "threadIdx.x")


__all__ = ["SpatialLoops", "bind_spatial"]
