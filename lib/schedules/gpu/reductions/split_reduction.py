"""Reductions with few results and much to read for each: many blocks read a part each, then one block puts them
together.

    for k in range(n): total += A[k]

becomes

    for blockIdx.x, threadIdx.x in split(parts): for step: partial[part] += A[step * parts + part]
    for threadIdx.x: total = sum of partial, across threads

What is computed before is computed where it is read, what follows is a launch of its own.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from torch_tvm.schedules.gpu.blocks import (
    blocks_of,
    fused,
    inline_producers,
    kinds,
    refusing,
    schedule_of,
    scheduled,
    spatial_loops,
)
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.gpu.reductions.reducers import register_reducers
from torch_tvm.schedules.gpu.spatial_loops import bind_spatial
from torch_tvm.support.errors import Refusal

LONG = 4096
"""Elements from which on a result is worth more than one block."""


class SplitReduction:
    """The rule for sums over everything, and for their kin."""

    name = "split reduction"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        register_reducers()
        schedule = schedule_of(func)
        inline_producers(schedule)
        blocks = blocks_of(schedule)
        if not any(_is_long(schedule, block, gpu) for block in blocks):
            raise Refusal("no block reduces much to little")
        with refusing():
            for block in blocks:
                if _is_long(schedule, block, gpu):
                    _split(schedule, block, gpu)
                else:
                    bind_spatial(schedule, block, min(64, gpu.threads))
            return scheduled(schedule)


def _is_long(schedule: Schedule, block: SBlockRV, gpu: GpuModel) -> bool:
    """Whether few threads would each reduce much; sizes that nobody knows are much to reduce, and many results."""
    found = kinds(schedule.get(block))
    if set(found) - {"S", "R"} or "R" not in found or "S" in found.lstrip("S"):
        return False
    loops = schedule.get_loops(block)
    if len(loops) != len(found) or len(spatial_loops(schedule, block)) != found.count("S"):
        return False
    extents = [schedule.get(loop).extent for loop in loops]
    sizes = [int(extent) if isinstance(extent, tirx.IntImm) else None for extent in extents]
    results, reduced = sizes[: found.count("S")], sizes[found.count("S") :]
    if None in results or math.prod(size or 1 for size in results) > gpu.blocks:
        return False
    return None in reduced or math.prod(size or 1 for size in reduced) >= LONG


def _split(schedule: Schedule, block: SBlockRV, gpu: GpuModel) -> None:
    """The two launches of one reduction."""
    count = len(spatial_loops(schedule, block))
    loops = schedule.get_loops(block)
    results = math.prod(int(schedule.get(loop).extent) for loop in loops[:count])
    threads = min(gpu.threads, 256)
    blocks = max(1, min(16, gpu.blocks // max(results, 1)))
    if not count:
        schedule.add_unit_loop(loops[0])  # TVM loses a reduction that is all there is
    reduced = fused(schedule, loops[count:])
    _, part = schedule.split(reduced, [None, blocks * threads])
    partial = schedule.rfactor(part, 0)
    *outer, steps, part = schedule.get_loops(partial)
    schedule.reorder(*outer, part, steps)
    groups, items = schedule.split(fused(schedule, [*outer, part]), [None, threads])
    schedule.bind(groups, "blockIdx.x")
    schedule.bind(items, "threadIdx.x")
    schedule.decompose_reduction(partial, steps)  # a part beyond the end has no iteration that would begin its sum
    *outer, part = schedule.get_loops(block)
    if not outer:
        outer = [schedule.add_unit_loop(part)]
    schedule.bind(fused(schedule, outer), "blockIdx.x")
    _, items = schedule.split(part, [None, threads])
    schedule.bind(items, "threadIdx.x")


__all__ = ["LONG", "SplitReduction"]
