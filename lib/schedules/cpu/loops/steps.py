"""Small steps that CPU schedules are made of, on ``tvm.s_tir.Schedule``.

Every step works on symbolic extents; where a step needs a constant it says so and leaves the loop as it is.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal

PARALLEL_THRESHOLD = 1 << 15
"""Elementary operations (about 8 microseconds of scalar work) below which a kernel stays on one thread."""


def start(func: tirx.PrimFunc) -> s_tir.Schedule:
    """A schedule of ``func`` alone; :func:`finish` gives the function back with its own attributes."""
    body = func.body
    if not isinstance(body, tvm.s_tir.SBlockRealize) or body.block.name_hint != "root":
        raise Refusal("opaque TIR: the body is not a root block")
    try:
        return s_tir.Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    except Exception as error:
        raise Refusal(f"not a block-structured PrimFunc: {first_line(error)}") from error


def finish(sch: s_tir.Schedule, original: tirx.PrimFunc) -> tirx.PrimFunc:
    """The scheduled function with the symbol (or the absence of one) that ``original`` had."""
    func = sch.mod["main"]
    symbol = original.attrs.get("global_symbol") if original.attrs else None
    return func.with_attr("global_symbol", symbol) if symbol else func.without_attr("global_symbol")


def first_line(error: Exception) -> str:
    """The last line of TVM's report that says something: the reason of a failed primitive."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def blocks(sch: s_tir.Schedule) -> list[SBlockRV]:
    """The blocks directly under the root, in program order."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def is_reduction(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether an iterator of ``block`` is reduced."""
    return any(it.iter_type == tirx.IterVar.CommReduce for it in sch.get(block).iter_vars)


def is_injective(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether all iterators of ``block`` are spatial (and it has some, or computes one scalar)."""
    return all(it.iter_type == tirx.IterVar.DataPar for it in sch.get(block).iter_vars)


def inline_producers(sch: s_tir.Schedule, keep: tuple[str, ...] = ()) -> None:
    """Inline every injective block that another block reads; ``keep`` names blocks that stay.

    ``T = a * b; U = T + c`` becomes ``U = a * b + c``. What TVM refuses to inline stays a block.
    """
    for block in blocks(sch):
        if sch.get(block).name_hint in keep or not is_injective(sch, block) or not sch.get_consumers(block):
            continue
        try:
            sch.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            continue


def inline_consumers(sch: s_tir.Schedule, block: SBlockRV) -> None:
    """Fold the chain of injective blocks that follow ``block`` (its epilogue) into one block after it.

    ``C = matmul; D = C + b; E = relu(D)`` becomes ``C = matmul; E = relu(C + b)``.
    """
    name = sch.get(block).name_hint
    inline_producers(sch, keep=(name,))


def loops_of_kind(sch: s_tir.Schedule, block: SBlockRV) -> tuple[list[LoopRV], list[LoopRV]]:
    """The spatial and the reduction loops around ``block``, outermost first.

    Raises :class:`Refusal` when a loop drives both kinds or an iterator is not one loop variable.
    """
    loops = sch.get_loops(block)
    by_var = {sch.get(loop).loop_var: loop for loop in loops}
    realize = tvm.get_global_func("s_tir.schedule.GetSBlockRealize")(sch, block)
    spatial: list[LoopRV] = []
    reduced: list[LoopRV] = []
    for it, value in zip(sch.get(block).iter_vars, realize.iter_values, strict=True):
        if isinstance(value, tirx.IntImm):
            continue
        if value not in by_var:
            raise Refusal(f"iterator {it.var.name} of {sch.get(block).name_hint} is not a loop variable")
        (reduced if it.iter_type == tirx.IterVar.CommReduce else spatial).append(by_var[value])
    return spatial, reduced


def extent(sch: s_tir.Schedule, loop: LoopRV) -> int | None:
    """The constant extent of ``loop``, or None when it is symbolic."""
    value = sch.get(loop).extent
    return int(value) if isinstance(value, tirx.IntImm) else None


def fuse(sch: s_tir.Schedule, loops: list[LoopRV]) -> LoopRV:
    """Fuse adjacent loops (one loop is returned as it is)."""
    return loops[0] if len(loops) == 1 else sch.fuse(*loops)


def parallel(sch: s_tir.Schedule, loop: LoopRV, work: int | None, cpu: CpuModel) -> None:
    """Run ``loop`` on all cores if ``work`` (total elementary operations; None: unknown) is worth it."""
    if cpu.cores > 1 and (work is None or work >= PARALLEL_THRESHOLD):
        sch.parallel(loop)


def vectorize(sch: s_tir.Schedule, loop: LoopRV, lanes: int) -> LoopRV:
    """Split ``loop`` by ``lanes`` and vectorise the inner part; returns the outer loop.

    A constant extent that ``lanes`` does not divide is first partitioned, and its tail is a vector of its
    own, so no lane is ever predicated. A symbolic extent must be a known multiple of ``lanes``: others keep
    their scalar loop .
    """
    size = extent(sch, loop)
    if size is None:
        if not tvm.sym.Analyzer().can_prove_equal(sch.get(loop).extent % lanes, 0):
            return loop
    elif size < lanes:
        sch.vectorize(loop)
        return loop
    elif size % lanes:
        main, tail = sch.loop_partition(loop, [size - size % lanes, None])
        sch.vectorize(tail)
        loop = main
    outer, inner = sch.split(loop, [None, lanes])
    sch.vectorize(inner)
    return outer
