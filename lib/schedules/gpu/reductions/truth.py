"""``any`` and ``all`` as the greatest and least of whole numbers, which TVM can put together across threads.

    B[i] = B[i] or A[i, k]

becomes

    N[i] = max(N[i], int32(A[i, k]));  B[i] = N[i] > 0

Of truth values TVM has no least and no greatest, so that one thread would go through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import SBlock, Schedule

_BY_NUMBERS = {tirx.Or: (tirx.max, tirx.min_value), tirx.And: (tirx.min, tirx.max_value)}


def truth_as_numbers(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """A kernel with other blocks in place of those that ask whether any or all of something is true."""
    root = func.body.block
    schedule = Schedule(tvm.IRModule({"main": func}))
    numbers: dict[tirx.Var, tirx.Var] = {}
    for block in schedule.get_child_blocks(schedule.get_sblock(root.name_hint)):
        if not _asks(schedule.get(block)):
            continue
        schedule.cache_write(block, 0, "global")
        truth = schedule.get(block).writes[0].source
        numbers[truth] = tirx.decl_buffer(list(truth.shape), "int32", f"{truth.name}_number")
    if not numbers:
        return func
    func = schedule.mod["main"]
    body = tvm_ffi.structural_map(func.body, (SBlock, lambda block: _rewritten(block, numbers)))
    return func.with_body(body)


def _asks(node: SBlock) -> bool:
    store = node.body
    if node.init is None or not isinstance(store, tirx.BufferStore) or str(store.buffer.dtype) != "bool":
        return False
    if type(store.value) not in _BY_NUMBERS:
        return False
    side = store.value.a
    return isinstance(side, TensorLoad) and side.source.same_as(store.buffer)


def _rewritten(node: SBlock, numbers: dict[tirx.Var, tirx.Var]) -> SBlock:
    """A block with whole numbers where it has those truth values: the one that asks, the one that answers, the root."""
    store = node.body
    parts = {"reads": _regions(node.reads, numbers), "writes": _regions(node.writes, numbers)}
    if not isinstance(store, tirx.BufferStore):
        buffers = [numbers.get(buffer, buffer) for buffer in node.alloc_buffers]
        return rebuilt(node, alloc_buffers=buffers) if any(b in numbers for b in node.alloc_buffers) else node
    indices = list(store.indices)
    if store.buffer in numbers:
        number, (combine, start) = numbers[store.buffer], _BY_NUMBERS[type(store.value)]
        value = combine(tirx.BufferLoad(number, indices), tirx.Cast("int32", store.value.b))
        body, init = (tirx.BufferStore(number, each, indices) for each in (value, start("int32")))
        return rebuilt(node, body=body, init=init, **parts)
    if isinstance(store.value, TensorLoad) and store.value.source in numbers:
        load = tirx.BufferLoad(numbers[store.value.source], list(store.value.indices))
        return rebuilt(node, body=tirx.BufferStore(store.buffer, load > 0, indices), **parts)
    return node


def rebuilt(block: SBlock, **parts: Any) -> SBlock:
    """A block with other parts in the place of some, by the names of its fields."""
    names = "iter_vars reads writes name_hint body init alloc_buffers match_buffers annotations".split()
    return SBlock(*(parts.get(name, getattr(block, name)) for name in names))


def _regions(regions: Sequence[Any], numbers: dict[tirx.Var, tirx.Var]) -> list[Any]:
    return [
        tirx.BufferRegion(numbers[region.source], region.region) if region.source in numbers else region
        for region in regions
    ]


__all__ = ["rebuilt", "truth_as_numbers"]
