"""Transposed reads: square tiles that are loaded by rows and transposed in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad

from torch_tvm.schedules.cpu.loops.access import hide_loads, stride, strides
from torch_tvm.schedules.cpu.loops.program import Stage, weight
from torch_tvm.schedules.cpu.loops.tiles import StageEmitter
from torch_tvm.schedules.cpu.register_transpose import exchanged
from torch_tvm.tir import Axis, Point, analyzer_for, bits_of, const, flat_sequence, lanes_loop, linear, loads

MAX_WEIGHT = 24
"""Operations in a value up to which the transposed tile is unrolled."""


@dataclass(frozen=True)
class Transposition:
    """``load`` is contiguous along ``across`` where the result is contiguous along another axis."""

    load: TensorLoad
    across: Axis
    lanes: int


def find_transposition(stage: Stage, rows: Sequence[Axis], along: Axis, bits: int) -> Transposition | None:
    """The load of an elementwise ``stage`` that steps over memory while ``along`` moves by one, if there
    is one."""
    if stage.reducer is not None or len(stage.values) != 1 or stage.spatial:
        return None
    value = stage.values[0]
    if weight(value) > MAX_WEIGHT or _has_guard(value):
        return None
    for load in loads(value):
        if str(load.source.dtype) == "bool" or any(hide_loads(index)[1] for index in load.indices):
            continue
        position = analyzer_for(rows).simplify(linear(load.source.shape, load.indices))
        if stride(position, along) in (0, 1) or strides(position, [along]) is None:
            continue
        across = [axis for axis in rows if axis is not along and stride(position, axis) == 1]
        lanes = min(16, bits // max(8, bits_of(load.source.dtype)))
        if across and lanes >= 4 and _is_long(along, lanes) and _is_long(across[0], lanes):
            return Transposition(load, across[0], lanes)
    return None


def _has_guard(value: tirx.Expr) -> bool:
    found: list[bool] = []

    def visit(node: object) -> None:
        is_guard = isinstance(node, tvm.ir.Call) and getattr(node.op, "name", "") == "prim.if_then_else"
        found.append(is_guard or isinstance(node, tirx.Let))

    tvm_ffi.structural_walk(value, ((tvm.ir.Call, tirx.Let), visit))
    return any(found)


def _is_long(axis: Axis, lanes: int) -> bool:
    return axis.size is None or axis.size >= lanes


def transposed_tile(
    emitter: StageEmitter,
    stage: Stage,
    along: Axis,
    transposition: Transposition,
    env: Point,
    begin: tuple[tirx.Expr, tirx.Expr],
) -> tirx.Stmt:
    """``stage`` on a square: ``lanes`` places along ``transposition.across`` from ``begin[0]`` and along ``along`` from
    ``begin[1]``. Rows of the square are loaded along ``across`` and transposed by a network of shuffles.
    """
    lanes, dtype = transposition.lanes, str(transposition.load.source.dtype)
    analyzer, everything = analyzer_for(emitter.rows), tirx.Ramp(const(0), const(1), lanes)
    statements: list[tirx.Stmt] = []

    def vector(name: str) -> TensorLoad:
        buffer = tirx.decl_buffer((lanes,), dtype, name)
        statements.append(tirx.AllocBuffer(buffer))
        return tirx.BufferLoad(buffer, [everything])

    def hold(value: tirx.Expr) -> TensorLoad:
        row = vector("turned")
        statements.append(tirx.BufferStore(row.source, value, [everything]))
        return row

    rows = []
    for number in range(lanes):
        row = vector("row")
        rows.append(row)
        at = {**env, along.var: begin[1] + number}
        element = lambda lane, at=at: emitter.memory.rewrite(
            transposition.load, {**at, transposition.across.var: begin[0] + lane}, analyzer
        )
        fill = lambda lane, row=row, element=element: tirx.BufferStore(row.source, element(lane), [lane])
        statements.append(lanes_loop(lanes, fill))
    for number, row in enumerate(exchanged(rows, hold)):
        place = tirx.decl_buffer((1,), dtype, "turned")
        emitter.memory.flat[place], emitter.memory.local[place] = row.source, ((), lanes)
        here = {**env, transposition.across.var: begin[0] + number}
        statements.append(emitter.tile(_with_load(stage, transposition.load, place), along, begin[1], lanes, here))
    return flat_sequence(statements)


def _with_load(stage: Stage, load: TensorLoad, place: tirx.Buffer) -> Stage:
    """``stage`` with ``load`` replaced by one from ``place``."""

    def visit(other: TensorLoad) -> tirx.Expr:
        return tirx.BufferLoad(place, [const(0)]) if tvm_ffi.structural_equal(other, load) else other

    return replace(stage, values=tuple(tvm_ffi.structural_map(v, (TensorLoad, visit)) for v in stage.values))
