"""Kernels that compute each element on its own: a thread takes as many neighbours as one load has.

    for i, j in grid(n, 512): B[i, j] = exp(A[i, j])

becomes

    for blockIdx.x, threadIdx.x in split(fuse(i, j // 4)): for lane in vectorized(4): B[i, j] = exp(A[i, j])

The innermost size is what decides how many: where it is not known, or no multiple of the lanes, a thread has one
element. Sizes before it may be unknown.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, TensorLoad
from tvm.s_tir import SBlock, Schedule
from tvm.s_tir.schedule import SBlockRV

from torch_tvm.schedules.gpu.blocks import (
    blocks_of,
    fused,
    inline_producers,
    is_spatial,
    refusing,
    schedule_of,
    scheduled,
    spatial_loops,
)
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import bits_of

_VECTORS = ("float32", "float16", "int32", "uint32")
"""Dtypes that every device has vectors of."""


class Elementwise:
    """The rule for kernels without a sum, a scan or a search."""

    name = "elementwise"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        schedule = schedule_of(func)
        if not blocks_of(schedule):
            raise Refusal("it has no blocks")
        if not all(is_spatial(schedule.get(block)) for block in blocks_of(schedule)):
            raise Refusal("a block sums up, searches or has blocks of its own")
        with refusing():
            inline_producers(schedule)
            for block in blocks_of(schedule):
                _bind(schedule, block, gpu)
            return scheduled(schedule)


def _bind(schedule: Schedule, block: SBlockRV, gpu: GpuModel) -> None:
    loops = spatial_loops(schedule, block)
    if len(loops) != len(schedule.get_loops(block)):
        raise Refusal("a loop is no index of what the block computes")
    if not loops:
        loops = [schedule.add_unit_loop(block)]
    lanes = _lanes(schedule, block, gpu)
    if lanes > 1:
        *outer, last = loops
        rest, lane = schedule.split(last, [None, lanes])
        schedule.vectorize(lane)
        loops = [*outer, rest]
    groups, items = schedule.split(fused(schedule, loops), [None, gpu.threads])
    schedule.bind(groups, "blockIdx.x")
    schedule.bind(items, "threadIdx.x")


def _lanes(schedule: Schedule, block: SBlockRV, gpu: GpuModel) -> int:
    """How many neighbours one thread takes."""
    loops, node = schedule.get_loops(block), schedule.get(block)
    if not loops or not isinstance(node.body, tirx.BufferStore):
        return 1
    size = schedule.get(loops[-1]).extent
    last = node.iter_vars[-1].var if node.iter_vars else None
    if last is None or not isinstance(size, tirx.IntImm) or not _is_simple(node, last):
        return 1
    lanes = gpu.lanes(max(bits_of(str(dtype)) for dtype in _dtypes(node)))
    return lanes if lanes > 1 and int(size) % lanes == 0 else 1


def _dtypes(node: SBlock) -> list[str]:
    buffers = [region.source for region in [*node.reads, *node.writes]]
    return [str(buffer.dtype) for buffer in buffers]


def _is_simple(node: SBlock, last: tirx.Var) -> bool:
    """Whether neighbours lie side by side in all tensors, or are one element of them, with nothing in the way."""
    if any(dtype not in _VECTORS for dtype in _dtypes(node)):
        return False
    accesses: list[tuple[tirx.Expr, ...]] = [tuple(node.body.indices)]
    calls: list[str] = []
    tvm_ffi.structural_walk(
        node.body.value,
        [
            (TensorLoad, lambda load: accesses.append(tuple(load.indices))),
            (tirx.Select, lambda _: calls.append("select")),
            (tirx.Cast, lambda _: calls.append("cast")),
            (tirx.Let, lambda _: calls.append("let")),
            (Call, lambda call: calls.append(getattr(call.op, "name", ""))),
        ],
    )
    if any(name not in _CALLS for name in calls):
        return False
    for indices in accesses:
        reading = [index for index in indices if last in set(tirx.analysis.undefined_vars(index))]
        if reading and not (len(reading) == 1 and reading[0].same_as(indices[-1]) and reading[0].same_as(last)):
            return False
    return True


_CALLS = frozenset({"tirx.exp", "tirx.sqrt", "tirx.fabs", "tirx.log", "tirx.tanh", "tirx.floor", "tirx.ceil"})
"""What code generation writes for vectors as it is."""

__all__ = ["Elementwise"]
