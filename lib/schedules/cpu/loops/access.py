"""How the stages of a group touch memory: strides along an axis, axes that merge, guards that vectors must
avoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias, get_args

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.schedules.cpu.loops.producers.fusion import Group, substitute_reducer
from torch_tvm.schedules.cpu.loops.program import Stage
from torch_tvm.tir import Axis, analyzer_for, const, linear, loads, substitute, uses


def positions(stage: Stage) -> list[tuple[tirx.Buffer, tirx.Expr]]:
    """Every buffer that ``stage`` touches with its row-major position: the results first, then the loads."""
    analyzer = analyzer_for(stage.axes)
    touched = list(zip(stage.buffers, stage.indices, strict=True))
    touched += [(load.source, tuple(load.indices)) for load in loads(*stage.values)]
    return [(buffer, analyzer.simplify(linear(buffer.shape, index))) for buffer, index in touched]


def hide_loads(expr: tirx.Expr) -> tuple[tirx.Expr, list[TensorLoad]]:
    """``expr`` with its outermost loads replaced by unknown variables, and those loads."""
    hidden: list[TensorLoad] = []

    def visit(load: TensorLoad, _: object) -> Var:
        hidden.append(load)
        return Var("hidden", load.ty)

    return tvm_ffi.structural_mutate(expr, [(TensorLoad, visit)]), hidden


def strides(position: tirx.Expr, axes: Sequence[Axis]) -> list[tirx.Expr] | None:
    """How far ``position`` moves when each of ``axes`` moves by one; None if it is not linear in them."""
    visible, hidden = hide_loads(position)
    variables = [axis.var for axis in axes]
    if any(uses(load, variables) for load in hidden):
        return None
    found = sym.detect_linear_equation(visible, variables)
    return list(found)[:-1] if len(found) else None


def stride(position: tirx.Expr, axis: Axis) -> int | None:
    """The constant stride of ``position`` along ``axis``; None if it has none."""
    found = strides(position, [axis])
    if found is None:
        return None
    value = sym.Analyzer().simplify(found[0])
    return int(value) if isinstance(value, tirx.IntImm) else None


def merge_axes(group: Group) -> Group:
    """Fuse neighbouring axes that every access walks as one: ``a[i, j] + b[i, j]`` becomes ``a[k] +
    b[k]``."""
    position = 0
    while position + 1 < len(group.rows):
        outer, inner = group.rows[position : position + 2]
        if all(_mergeable(stage, outer, inner) for stage in group.stages):
            merged, mapping = _merge(outer, inner)
            rows = (*group.rows[:position], merged, *group.rows[position + 2 :])
            group = Group(rows, tuple(_apply(stage, mapping) for stage in group.stages))
        else:
            position += 1
    stages = []
    for stage in group.stages:
        for kind in ("spatial", "reduced"):
            stage = _merge_own(stage, kind)
        stages.append(stage)
    return Group(group.rows, tuple(stages))


def _merge_own(stage: Stage, kind: str) -> Stage:
    position = 0
    while position + 1 < len(getattr(stage, kind)):
        axes = getattr(stage, kind)
        outer, inner = axes[position : position + 2]
        if _mergeable(stage, outer, inner):
            merged, mapping = _merge(outer, inner)
            stage = _apply(stage, mapping)
            changed: dict[str, Any] = {kind: (*axes[:position], merged, *axes[position + 2 :])}
            stage = replace(stage, **changed)
        else:
            position += 1
    return stage


def _merge(outer: Axis, inner: Axis) -> tuple[Axis, dict[Var, tirx.Expr]]:
    extent = sym.Analyzer().simplify(outer.extent * inner.extent)
    merged = Axis(Var(f"{outer.var.name}_{inner.var.name}"[:40], inner.var.ty), extent)
    return merged, {outer.var: const(0), inner.var: merged.var}


def _apply(stage: Stage, mapping: dict[Var, tirx.Expr]) -> Stage:
    return replace(
        stage,
        indices=tuple(tuple(substitute(i, mapping) for i in index) for index in stage.indices),
        values=tuple(substitute(value, mapping) for value in stage.values),
        reducer=substitute_reducer(stage, mapping),
    )


def _mergeable(stage: Stage, outer: Axis, inner: Axis) -> bool:
    pair = [outer, inner]
    variables = [outer.var, inner.var]
    analyzer = sym.Analyzer()
    for _, position in positions(stage):
        if not uses(position, variables):
            continue
        found = strides(position, pair)
        if found is None or not analyzer.can_prove_equal(found[0], found[1] * inner.extent):
            return False
    return not any(uses(hide_loads(value)[0], variables) for value in stage.values)


# --- guards ----------------------------------------------------------------------------------------


def is_guarded(expr: tirx.Expr, var: Var) -> bool:
    """Whether ``expr`` branches on a condition that changes along ``var``: such code has no vector form."""
    dependent = {var}
    found: list[bool] = []

    def visit_let(let: tirx.Let) -> None:
        if uses(let.value, list(dependent)):
            dependent.add(let.var)

    def visit_call(call: tvm.ir.Call) -> None:
        if getattr(call.op, "name", "") == "prim.if_then_else" and uses(call.args[0], list(dependent)):
            found.append(True)

    tvm_ffi.structural_walk(expr, [(tirx.Let, visit_let)], order="pre")
    tvm_ffi.structural_walk(expr, [(tvm.ir.Call, visit_call)])
    return bool(found)


def select_where_safe(stage: Stage, rows: Sequence[Axis]) -> Stage:
    """Turn guards whose branches load nothing out of bounds (or nothing at all) into ``Select``."""
    analyzer = analyzer_for([*rows, *stage.axes])

    def is_safe(expr: tirx.Expr) -> bool:
        return all(
            analyzer.can_prove(tirx.all(index >= 0, index < size))
            for load in loads(expr)
            for index, size in zip(load.indices, load.source.shape, strict=True)
        )

    def visit(call: tvm.ir.Call) -> tirx.Expr:
        if getattr(call.op, "name", "") == "prim.if_then_else" and all(is_safe(b) for b in call.args[1:]):
            return tirx.Select(*call.args)
        return call

    values = tuple(tvm_ffi.structural_map(value, (tvm.ir.Call, visit)) for value in stage.values)
    return replace(stage, values=values)


_Comparison: TypeAlias = tirx.LT | tirx.LE | tirx.GT | tirx.GE | tirx.EQ | tirx.NE


def breakpoints(stage: Stage, axis: Axis) -> list[int] | None:
    """Where along ``axis`` the conditions of the guards change; None if that is not known here.

    The guards of ``concat`` and ``pad`` compare the axis with constants: between two breakpoints they are
    fixed.
    """
    if axis.size is None:
        return None
    points: set[int] = set()
    unknown: list[bool] = []

    def visit_comparison(node: _Comparison) -> None:
        if not uses(node, [axis.var]):
            return
        found = sym.detect_linear_equation(sym.Analyzer().simplify(node.a - node.b), [axis.var])
        if not len(found) or not all(isinstance(part, tirx.IntImm) for part in found) or int(found[0]) == 0:
            unknown.append(True)
            return
        scale, base = int(found[0]), int(found[1])
        zero = -base // scale
        points.update(p for p in (zero - 1, zero, zero + 1, zero + 2) if _changes(node, axis, p))

    def visit_call(call: tvm.ir.Call) -> None:
        if getattr(call.op, "name", "") == "prim.if_then_else":
            tvm_ffi.structural_walk(call.args[0], (get_args(_Comparison), visit_comparison))

    for value in stage.values:
        tvm_ffi.structural_walk(value, (tvm.ir.Call, visit_call))
    return None if unknown else sorted(p for p in points if 0 < p < axis.size)


def _changes(node: tirx.Expr, axis: Axis, point: int) -> bool:
    at = lambda p: sym.Analyzer().simplify(substitute(node, {axis.var: const(p)}))
    return not tvm_ffi.structural_equal(at(point - 1), at(point))


def restrict(stage: Stage, axes: Sequence[Axis], axis: Axis, begin: int, end: int) -> tuple[Stage, Axis]:
    """``stage`` for ``begin <= axis < end`` only, the axis counted from ``begin``, guards decided."""
    part = Axis(Var(axis.var.name, axis.var.ty), const(end - begin))
    moved = _apply(stage, {axis.var: part.var + begin})
    analyzer = analyzer_for([part if a is axis else a for a in [*axes, *stage.axes]])

    def visit(call: tvm.ir.Call) -> tirx.Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        condition = analyzer.simplify(call.args[0])
        if isinstance(condition, tirx.IntImm):
            return call.args[1] if int(condition) else call.args[2]
        return tirx.if_then_else(condition, *call.args[1:])

    values = tuple(tvm_ffi.structural_map(value, (tvm.ir.Call, visit)) for value in moved.values)
    return replace(moved, values=values), part
