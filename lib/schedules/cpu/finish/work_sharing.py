"""Parallel loops whose threads help each other when they are done with their own part.

    for task in parallel(n): body          becomes

    taken[:] = 0
    for worker in parallel(cores):
        for iteration in range(cores):
            owner = (worker + iteration) % cores                # its own part first, then those of the others
            chunk = taken[owner]++                         # atomic
            while chunk < chunks of owner:
                for task in the iterations of chunk: body
                chunk = taken[owner]++

TVM gives every thread an equal part, and a kernel then takes as long as its slowest thread: on a machine that does
other things too, twice the time. One counter for all would be simpler, but a thread would get other chunks in each
kernel, and read from another core's cache what it could have in its own. Where the cores share no cache (two dies of
one processor), a chain of layer norms then took longer on two threads than on one.
"""

from __future__ import annotations

import tvm_ffi
from tvm import sym, tirx
from tvm.tirx.stmt import ForKind

from torch_tvm.schedules.cpu.emit import LINE
from torch_tvm.schedules.instructions.instruction import with_llvm
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import ceil_div, const, exact, loop, sequence, static

CHUNKS = 16
"""Chunks for each core: iterations that follow each other share data, so a chunk is as large as balance allows."""

APART = LINE // 4
"""How far apart the counters lie, so that taking from one does not disturb another."""

TAKE = "torch_tvm_take"

_TAKE_IR = f"""
define linkonce_odr i32 @{TAKE}(ptr %counter) alwaysinline {{
  %before = atomicrmw add ptr %counter, i32 1 monotonic
  ret i32 %before
}}
"""


def share_out(func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
    """``func`` with its parallel loops shared out while they run; see the module's text."""
    if cpu.cores == 1:
        return func
    found: list[tirx.For] = []

    def visit(node: tirx.For) -> tirx.Stmt:
        if node.kind != ForKind.PARALLEL or static(node.extent) == 1:
            return node
        found.append(node)
        return _shared(node, cpu.cores)

    body = tvm_ffi.structural_map(func.body, (tirx.For, visit))
    if not found:
        return func
    return func.with_body(with_llvm(_TAKE_IR, body))


def _shared(node: tirx.For, cores: int) -> tirx.Stmt:
    extent = sym.Analyzer().simplify(node.extent.astype("int64"))
    size = static(extent)
    most = cores * CHUNKS
    per_chunk = const(ceil_div(size, most)) if size is not None else ceil_div(extent, most)
    chunks = ceil_div(size, exact(per_chunk)) if size is not None else most
    part = ceil_div(chunks, cores)
    counters = tirx.decl_buffer((const(cores * APART),), "int32", "taken")
    mine = tirx.decl_buffer((const(1),), "int32", "chunk")
    chunk = tirx.BufferLoad(mine, [const(0)])

    def iterations(owner: tirx.Expr) -> tirx.Stmt:
        first = tirx.Var("first", "int64")
        bound = tirx.Bind(first, (owner * const(part) + chunk.astype("int64")) * per_chunk)
        is_whole = size is not None and size % exact(per_chunk) == 0
        here = per_chunk if is_whole else tirx.min(per_chunk, extent - first)

        def iteration(index: tirx.Expr) -> tirx.Stmt:
            value = tirx.Bind(node.loop_var, (first + index + node.min).astype(str(node.loop_var.ty.dtype)))
            return sequence(value, node.body)

        return sequence(bound, loop("iteration", here, iteration))

    def visit(worker: tirx.Expr, iteration: tirx.Expr) -> tirx.Stmt:
        owner, limit = tirx.Var("owner", "int64"), tirx.Var("limit", "int32")
        place = tirx.address_of(tirx.BufferLoad(counters, [owner * const(APART)]))
        take = tirx.BufferStore(mine, tirx.call_extern("int32", TAKE, place), [const(0)])
        own = tirx.min(const(part), const(chunks) - owner * const(part)) if chunks % cores else const(part)
        return sequence(
            tirx.Bind(owner, (worker + iteration) % const(cores)),
            tirx.Bind(limit, own.astype("int32")),
            tirx.AllocBuffer(mine),
            take,
            tirx.While(chunk < limit, sequence(iterations(owner), take)),
        )

    clear = lambda core: tirx.BufferStore(counters, tirx.const(0, "int32"), [core * const(APART)])
    workers = lambda worker: loop("part", cores, lambda iteration: visit(worker, iteration))
    return sequence(
        tirx.AllocBuffer(counters),
        loop("core", cores, clear),
        loop("worker", cores, workers, kind="parallel"),
    )
