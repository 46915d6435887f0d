"""Short sums or searches for many results each, as convolutions by channel and pools are: a thread has a result.

    for c, y, x: for i, j: C[c, y, x] += A[c, y + i, x + j] * B[c, i, j];  for c, y, x: D[c, y, x] = relu(C[c, y, x])

becomes

    for blockIdx.x, threadIdx.x in split(fuse(c, y, x)): total = 0; for i, j: total += A * B;  D[c, y, x] = relu(total)

The total is in a register, the terms are unrolled, and neighbours of a block read neighbours.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from torch_tvm.schedules.gpu.blocks import (
    blocks_of,
    fused,
    inline_consumers,
    inline_producers,
    is_spatial,
    kinds,
    refusing,
    schedule_of,
    scheduled,
    spatial_loops,
)
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import static_sizes

MOST_TERMS = 256
"""Terms that one thread adds up: more are shared by several."""

UNROLLED = 32
"""Terms that are written out."""

THREADS = 128


class Windows:
    """The rule for kernels whose one reduction has few terms for each result."""

    name = "windows"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        schedule = schedule_of(func)
        with refusing():
            inline_producers(schedule)
            block, terms = _reduction(schedule)
            sums = schedule.cache_write(block, 0, "local")
            inline_consumers(schedule, sums)
            if len(blocks_of(schedule)) != 2:
                raise Refusal("what follows the reduction cannot be computed with it")
            loops = spatial_loops(schedule, sums)
            if not loops or len(loops) != len(schedule.get_loops(sums)):
                raise Refusal("a loop is no index of what the block computes")
            groups, items = schedule.split(fused(schedule, loops), [None, min(THREADS, gpu.threads)])
            schedule.bind(groups, "blockIdx.x")
            schedule.bind(items, "threadIdx.x")
            schedule.compute_at(block, items, preserve_unit_loops=True)  # a sum of one term has a loop too
            steps = schedule.get_loops(block)[2:]
            schedule.decompose_reduction(block, steps[0])
            if terms <= UNROLLED:
                for step in steps:
                    schedule.unroll(step)
            return scheduled(schedule)


def _reduction(schedule: Schedule) -> tuple[SBlockRV, int]:
    """The one block that reduces, and its terms. Raises :class:`Refusal` where they are many, or nobody knows."""
    blocks = blocks_of(schedule)
    found = [block for block in blocks if "R" in kinds(schedule.get(block))]
    if len(found) != 1:
        raise Refusal(f"{len(found)} blocks sum up or search")
    if not all(is_spatial(schedule.get(block)) for block in blocks if block is not found[0]):
        raise Refusal("a block beside the reduction has blocks of its own")
    node = schedule.get(found[0])
    if not isinstance(node.body, tirx.BufferStore):
        raise Refusal("a reduction of several values")
    extents = [item.dom.extent for item in node.iter_vars if item.iter_type == tirx.IterVar.CommReduce]
    known = static_sizes(extents)
    if known is None or math.prod(known) > MOST_TERMS:
        raise Refusal(f"more than {MOST_TERMS} terms for a result, or nobody knows how many")
    return found[0], math.prod(known)


__all__ = ["Windows"]
