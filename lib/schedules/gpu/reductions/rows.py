"""Sums over rows, and what is made of them: softmax, normalisations, matrices times vectors. A block of threads has a
row.

    for i: for k: total[i] += A[i, k];  for i, k: B[i, k] = A[i, k] / total[i]

becomes

    for blockIdx.x = i: threads sum up parts of the row and put them together; then each computes its part of B

What lies between the steps stays in shared memory. The rows are the axes that all steps begin with.
"""

from __future__ import annotations

import math

import tvm_ffi
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
from torch_tvm.schedules.gpu.reductions.reducers import checked_combiners, register_reducers
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import bytes_of

SHORT = 32
"""Terms from which on a row is worth several threads."""


class Rows:
    """The rule for kernels that sum up, or search, along rows."""

    name = "rows"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        register_reducers()
        schedule = schedule_of(func)
        with refusing():
            inline_producers(schedule)
            blocks = blocks_of(schedule)
            count = _row_axes(schedule, blocks)
            threads = _threads(schedule, blocks, count, gpu)
            _bind(schedule, blocks, count, threads, gpu)
            return checked_combiners(scheduled(schedule))


def _row_axes(schedule: Schedule, blocks: list[SBlockRV]) -> int:
    """How many axes all blocks begin with. Raises :class:`Refusal` where they do not stand for the same rows."""
    summing = [block for block in blocks if "R" in kinds(schedule.get(block))]
    if not summing:
        raise Refusal("no block sums up")
    found = [kinds(schedule.get(block)) for block in blocks]
    if any(set(kind) - {"S", "R"} or "S" in kind.lstrip("S") for kind in found):
        raise Refusal("what is summed up is not the last axis of each block")
    count = kinds(schedule.get(summing[0])).count("S")
    for block, kind in zip(blocks, found, strict=True):
        loops = schedule.get_loops(block)
        if len(loops) != len(kind) or len(spatial_loops(schedule, block)) != kind.count("S"):
            raise Refusal("a loop is no index of what a block computes")
        if kind.count("S") < count or ("R" in kind and kind.count("S") != count):
            raise Refusal("the blocks have no rows in common")
    shapes = [[schedule.get(loop).extent for loop in schedule.get_loops(block)[:count]] for block in blocks]
    if not all(_same(shape, shapes[0]) for shape in shapes):
        raise Refusal("the blocks have no rows in common")
    return count


def _same(one: list[tirx.Expr], other: list[tirx.Expr]) -> bool:
    return all(tvm_ffi.structural_equal(a, b) for a, b in zip(one, other, strict=True))


def _threads(schedule: Schedule, blocks: list[SBlockRV], count: int, gpu: GpuModel) -> int:
    """The threads of a row: a power of two, about four terms for each."""
    lengths = []
    for block in blocks:
        rest = [schedule.get(loop).extent for loop in schedule.get_loops(block)[count:]]
        if all(isinstance(extent, tirx.IntImm) for extent in rest):
            lengths.append(math.prod(int(extent) for extent in rest))
        else:
            lengths.append(gpu.threads * 4)
    if max(lengths) < SHORT:
        raise Refusal(f"rows of fewer than {SHORT} elements")
    return min(gpu.threads, 256, max(SHORT, 1 << (max(lengths) // 4).bit_length()))


def _bind(schedule: Schedule, blocks: list[SBlockRV], count: int, threads: int, gpu: GpuModel) -> None:
    last = blocks[-1]
    outer = schedule.get_loops(last)[:count]
    row = fused(schedule, outer) if outer else schedule.add_unit_loop(last)
    schedule.bind(row, "blockIdx.x")
    kept = 0
    for block in reversed(blocks[:-1]):
        schedule.compute_at(block, row, preserve_unit_loops=True)
        kept += _row_bytes(schedule, block, count)
        if kept > gpu.shared // 2:
            raise Refusal("what lies between the steps does not fit shared memory")
        schedule.set_scope(block, 0, "shared")
    for block in blocks:
        rest = schedule.get_loops(block)[1:]
        summed = kinds(schedule.get(block)).count("R")
        own = rest[len(rest) - summed :] if summed else rest
        if not own:
            own = [schedule.add_unit_loop(block)]
        _, part = schedule.split(fused(schedule, own), [None, threads])
        schedule.bind(part, "threadIdx.x")


def _row_bytes(schedule: Schedule, block: SBlockRV, count: int) -> int:
    """What one row of a block's result takes. Raises :class:`Refusal` where nobody knows."""
    buffer = schedule.get(block).writes[0].source
    rest = list(buffer.shape)[count:]
    if not all(isinstance(size, tirx.IntImm) for size in rest):
        raise Refusal("the size of what lies between the steps is unknown")
    return math.prod(int(size) for size in rest) * bytes_of(str(buffer.dtype))


__all__ = ["Rows"]
