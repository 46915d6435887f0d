"""Parallel loops whose threads take the next turns when they are done with theirs.

    for task in parallel(n): body          becomes

    taken = 0
    for worker in parallel(cores):
        chunk = taken++                                    # atomic
        while chunk < chunks:
            for task in the turns of chunk: body
            chunk = taken++

TVM gives every thread an equal part beforehand, and a kernel then takes as long as its slowest thread: on a machine
that does other things too, twice the time.
"""

from __future__ import annotations

import tvm_ffi
from tvm import sym, tirx
from tvm.tirx.stmt import ForKind

from torch_tvm.schedules.cpu.emit import const, loop, sequence, static, with_llvm
from torch_tvm.schedules.target import CpuModel

CHUNKS = 16
"""Chunks for each core: turns that follow each other share data, so a chunk is as large as balance allows."""

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
    per_chunk = const(-(-size // most)) if size is not None else (extent + (most - 1)) // most
    chunks = const(-(-size // int(per_chunk))) if size is not None else const(most)
    counter = tirx.decl_buffer((const(1),), "int32", "taken")
    mine = tirx.decl_buffer((const(1),), "int32", "chunk")
    take = tirx.BufferStore(
        mine,
        tirx.call_extern("int32", TAKE, tirx.address_of(tirx.BufferLoad(counter, [const(0)]))),
        [const(0)],
    )
    chunk = tirx.BufferLoad(mine, [const(0)])

    def turns() -> tirx.Stmt:
        first = tirx.Var("first", "int64")
        bound = tirx.Bind(first, chunk.astype("int64") * per_chunk)
        here = (
            per_chunk
            if size is not None and size % int(per_chunk) == 0
            else tirx.min(per_chunk, extent - first)
        )

        def turn(index: tirx.Expr) -> tirx.Stmt:
            value = tirx.Bind(node.loop_var, (first + index + node.min).astype(str(node.loop_var.ty.dtype)))
            return sequence(value, node.body)

        return sequence(bound, loop("turn", here, turn))

    def worker(_: tirx.Expr) -> tirx.Stmt:
        more = chunk < tirx.Cast("int32", chunks)
        return sequence(tirx.AllocBuffer(mine), take, tirx.While(more, sequence(turns(), take)))

    return sequence(
        tirx.AllocBuffer(counter),
        tirx.BufferStore(counter, tirx.const(0, "int32"), [const(0)]),
        loop("worker", cores, worker, kind="parallel"),
    )
