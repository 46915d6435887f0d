"""Small steps that CPU schedules are made of, on ``tvm.s_tir.Schedule``.

Every step works on symbolic extents; where a step needs a constant it says so and leaves the loop as it is.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import SBlockRV

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
        raise Refusal(f"not a block-structured PrimFunc: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
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
