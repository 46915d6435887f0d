"""What GPU rules ask of the blocks of a kernel, and steps that several of them take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize, Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from torch_tvm.schedules.gpu.reductions.truth import rebuilt, truth_as_numbers
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import loads

_MOST_LOADS = 256
"""Loads of a block, beyond which what it reads stays in memory."""
_KIND = {tirx.IterVar.DataPar: "S", tirx.IterVar.CommReduce: "R"}


def schedule_of(func: tirx.PrimFunc) -> Schedule:
    """A schedule of a kernel that is made of blocks. Raises :class:`Refusal` for any other."""
    if not isinstance(func.body, SBlockRealize):
        raise Refusal("it has no root block")
    func = _in_loops(truth_as_numbers(_in_loops(_with_own_names(func))))
    return Schedule(tvm.IRModule({"main": func}))


def _with_own_names(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Each copy of an expression with a name in it has a name of its own: no schedule begins with one name twice."""
    if _is_once(_names(func)):
        return func
    return tirx.transform.ConvertSSA()(tvm.IRModule({"main": func}))["main"]


def _names(func: tirx.PrimFunc) -> list[tirx.Var]:
    """What expressions and statements of a kernel bind."""
    names: list[tirx.Var] = []
    tvm_ffi.structural_walk(
        func.body,
        [(tirx.Let, lambda let: names.append(let.var)), (tirx.Bind, lambda bind: names.append(bind.var))],
    )
    return names


def _is_once(names: Sequence[tirx.Var]) -> bool:
    return len(set(names)) == len(names)


def _in_loops(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Blocks without a loop, as those of one number are, in a loop of one iteration: TVM fails to add it later."""
    root = func.body.block
    parts = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    if not any(isinstance(part, SBlockRealize) for part in parts):
        return func
    looped = [_in_loop(part) if isinstance(part, SBlockRealize) else part for part in parts]
    body = looped[0] if len(looped) == 1 else tirx.SeqStmt(looped)
    return func.with_body(SBlockRealize([], tirx.const(True, "bool"), rebuilt(root, body=body)))


def _in_loop(part: tirx.Stmt) -> tirx.Stmt:
    zero, one = tirx.const(0, "int64"), tirx.const(1, "int64")
    return tirx.For(tirx.Var("once", "int64"), zero, one, tirx.ForKind.SERIAL, part)


def blocks_of(schedule: Schedule) -> list[SBlockRV]:
    """The blocks below the root, in order."""
    root = schedule.mod["main"].body.block.name_hint
    return list(schedule.get_child_blocks(schedule.get_sblock(root)))


def scheduled(schedule: Schedule) -> tirx.PrimFunc:
    """The kernel as it is scheduled. Raises :class:`Refusal` where inlining has made two copies of a name."""
    func = schedule.mod["main"]
    if not _is_once(_names(func)):
        raise Refusal("a value with a name in it is read in several places")
    return func


@contextmanager
def refusing() -> Iterator[None]:
    """What a schedule primitive does not take is a refusal, with its reason."""
    try:
        yield
    except (tvm.s_tir.ScheduleError, tvm.error.InternalError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line.removeprefix("Error message: ") for line in lines if "Error message" in line), "")
        raise Refusal(reason or (lines[0] if lines else type(error).__name__)) from error


def kinds(block: SBlock) -> str:
    """``"SSR"`` for two spatial variables and one that is reduced; ``"O"`` is any other."""
    return "".join(_KIND.get(item.iter_type, "O") for item in block.iter_vars)


def is_spatial(block: SBlock) -> bool:
    """Whether each point of a block is computed on its own."""
    return set(kinds(block)) <= {"S"} and block.init is None and not _has_blocks(block)


def _has_blocks(block: SBlock) -> bool:
    found: list[SBlock] = []
    tvm_ffi.structural_walk(block.body, (SBlock, found.append))
    return bool(found)


def inline_producers(schedule: Schedule) -> None:
    """Compute what is computed point by point where it is read, as far as that goes and no block grows without end."""
    kept = _too_long_to_inline([schedule.get(block) for block in blocks_of(schedule)])
    for block in blocks_of(schedule):
        found = schedule.get(block)
        if not is_spatial(found) or any(region.source in kept for region in found.writes):
            continue
        try:
            schedule.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            continue  # a result of the kernel, or one whose reader cannot take it in


def _too_long_to_inline(blocks: Sequence[SBlock]) -> set[tirx.Buffer]:
    """What blocks in order write that stays in memory: a reader computes it once for each place where it reads it.

    A chain in which each block reads the one before twice would double with every step.
    """
    counts: dict[tirx.Buffer, int] = {}
    kept: set[tirx.Buffer] = set()
    for block in blocks:
        buffers = [load.source for load in loads(block.body)]
        total = sum(counts.get(buffer, 1) for buffer in buffers)
        if total > _MOST_LOADS:
            kept |= {buffer for buffer in buffers if counts.get(buffer, 1) > 1}
            total = len(buffers)
        counts.update({region.source: total for region in block.writes if is_spatial(block)})
    return kept


def inline_consumers(schedule: Schedule, block: SBlockRV) -> None:
    """Compute what reads a block where the block is written, as far as that goes."""
    consumers = schedule.get_consumers(block)
    while len(consumers) == 1:
        try:
            schedule.reverse_compute_inline(consumers[0])
        except tvm.s_tir.ScheduleError:
            return
        consumers = schedule.get_consumers(block)


def fused(schedule: Schedule, loops: Sequence[LoopRV]) -> LoopRV:
    """Some loops as one."""
    return schedule.fuse(*loops) if len(loops) > 1 else loops[0]


def spatial_loops(schedule: Schedule, block: SBlockRV) -> list[LoopRV]:
    """The outermost loops that are nothing but an index of what a block computes."""
    realize = _realize(schedule, block)
    found: dict[tirx.Var, str] = {}
    for item, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
        for variable in tirx.analysis.undefined_vars(value):
            kind = _KIND.get(item.iter_type, "O")
            found[variable] = kind if found.get(variable, kind) == kind else "O"
    loops = []
    for loop in schedule.get_loops(block):
        node = schedule.get(loop)
        is_once = isinstance(node.extent, tirx.IntImm) and int(node.extent) == 1
        kind = found.get(node.loop_var, "S" if is_once else "O")
        if kind != "S" or node.kind != tirx.ForKind.SERIAL:
            break
        loops.append(loop)
        if not isinstance(node.body, (tirx.For, SBlockRealize)):
            break
    return loops


def _realize(schedule: Schedule, block: SBlockRV) -> SBlockRealize:
    """The realisation of a block: what its variables are bound to."""
    wanted, loops = schedule.get(block), schedule.get_loops(block)
    node = schedule.get(loops[-1]).body if loops else schedule.mod["main"].body.block.body
    for part in list(node.seq) if isinstance(node, tirx.SeqStmt) else [node]:
        if isinstance(part, SBlockRealize) and part.block.same_as(wanted):
            return part
    raise Refusal("a block is not where its loops are")


__all__ = [
    "blocks_of",
    "fused",
    "inline_consumers",
    "inline_producers",
    "is_spatial",
    "kinds",
    "refusing",
    "schedule_of",
    "scheduled",
    "spatial_loops",
]
