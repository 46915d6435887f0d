"""Reductions to a few results: every core reduces a part, then the parts are combined."""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.loops.producers.fusion import Group
from torch_tvm.schedules.cpu.loops.program import Stage
from torch_tvm.tir import HALF, Axis, ceil_div, const, exact, substitute


def split_reduction(group: Group, parts: int) -> list[Group] | None:
    """``s = sum over k of f(k)`` as ``t[p] = sum over a part of k``, then ``s = sum over p of t[p]``.

    None where that does not apply: several stages, a reducer that does not combine, a symbolic or short axis,
    half precision (whose partial results are wider than the buffers between the two steps).
    """
    (stage, *others) = group.stages
    if others or stage.spatial or stage.reducer is None or not stage.reducer.rhs or not stage.reduced:
        return None
    if any(row.size is None for row in group.rows) or any(str(b.dtype) in HALF for b in stage.buffers):
        return None
    longest = max(stage.reduced, key=lambda axis: axis.size or 0)
    if longest.size is None or longest.size < 4 * parts:
        return None
    part = Axis(Var("part", "int64"), const(parts))
    shape = [parts, *(row.size for row in group.rows)]
    partial = tuple(tirx.decl_buffer(shape, str(b.dtype), f"{b.name}_part") for b in stage.buffers)
    first = _partial_stage(stage, group, longest, part, partial)
    return [
        Group((part, *group.rows), (first,)),
        Group(group.rows, (_combining_stage(stage, group, partial),)),
    ]


def _partial_stage(stage: Stage, group: Group, longest: Axis, part: Axis, partial: tuple[tirx.Buffer, ...]) -> Stage:
    size = exact(longest.size)
    chunk = ceil_div(size, exact(part.size))
    begin = part.var * chunk
    extent: tirx.Expr = const(chunk)
    if size % exact(part.size):
        extent = tirx.max(tirx.min(const(chunk), const(size) - begin), const(0))
    inner = Axis(Var(longest.var.name, "int64"), extent)
    index = (part.var, *(row.var for row in group.rows))
    return replace(
        stage,
        name=f"{stage.name}_part",
        buffers=partial,
        indices=tuple(index for _ in partial),
        reduced=tuple(inner if axis is longest else axis for axis in stage.reduced),
        values=tuple(substitute(value, {longest.var: begin + inner.var}) for value in stage.values),
    )


def _combining_stage(stage: Stage, group: Group, partial: tuple[tirx.Buffer, ...]) -> Stage:
    number = Axis(Var("part", "int64"), partial[0].shape[0])
    index = [number.var, *(row.var for row in group.rows)]
    return replace(
        stage,
        reduced=(number,),
        values=tuple(tirx.BufferLoad(buffer, index) for buffer in partial),
    )
