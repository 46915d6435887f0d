"""Which stages of a kernel run together: inlining, and groups of stages that share their outer loops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.schedules.cpu.loops.producers.recomputation import worth_storing
from torch_tvm.schedules.cpu.loops.program import Program, Stage, is_expensive, weight
from torch_tvm.tir import Axis, analyzer_for, elements, linear, loads, static_sizes, substitute, uses

KEEP_WEIGHT = 8
"""Operations in a value from which on it is stored, not computed again for a second reader."""


@dataclass(frozen=True)
class Group:
    """Stages under common loops over ``rows``; the stages' own axes are what is left."""

    rows: tuple[Axis, ...]
    stages: tuple[Stage, ...]


def is_identity_write(stage: Stage) -> bool:
    """Whether ``stage`` writes one buffer at exactly its own spatial axes."""
    own = [axis.var for axis in stage.spatial]
    indices = [index for index in stage.indices[0] if not isinstance(index, tirx.IntImm)]
    return len(indices) == len(own) and all(a.same_as(b) for a, b in zip(indices, own, strict=True))


def readers(buffer: tirx.Buffer, stages: Sequence[Stage]) -> list[Stage]:
    """The stages that load ``buffer``."""
    return [stage for stage in stages if any(load.source.same_as(buffer) for load in loads(*stage.values))]


# --- inlining --------------------------------------------------------------------------------------


def inline(program: Program) -> Program:
    """Drop copies and inline producers: ``T = a * b; U = T + c`` becomes ``U = a * b + c``."""
    program = _drop_copies(program)
    inlined: dict[tirx.Buffer, Stage] = {}
    costly: dict[tirx.Buffer, bool] = {}
    stages: list[Stage] = []
    for position, stage in enumerate(program.stages):
        buffer = stage.buffers[0]
        follow = readers(buffer, program.stages[position + 1 :])
        costly[buffer] = any(is_expensive(v) or weight(v) > KEEP_WEIGHT for v in stage.values) or any(
            costly[load.source] for load in loads(*stage.values) if load.source in inlined
        )
        if not program.is_output(buffer) and len(stage.buffers) == 1 and not follow:
            continue
        stages.append(stage)
        if _may_inline(program, stage, follow, costly[buffer]):
            inlined[buffer] = stage
    for buffer in worth_storing(stages, inlined):
        del inlined[buffer]
    kept = [_expand_stage(stage, inlined) for stage in stages if stage.buffers[0] not in inlined]
    return Program(program.params, kept, program.views)


def _drop_copies(program: Program) -> Program:
    """``T = f(x); O = reshape(T)`` with O an output becomes ``O = f(x)`` written through T's shape."""
    views = dict(program.views)
    stages = list(program.stages)
    for copy in program.stages:
        source = _copied_buffer(copy)
        if source is None or source in program.params or source in views:
            continue
        if not program.is_output(copy.buffers[0]) or not any(source in s.buffers for s in stages):
            continue
        views[source] = program.views.get(copy.buffers[0], copy.buffers[0])
        stages.remove(copy)
    return Program(program.params, stages, views)


def _copied_buffer(stage: Stage) -> tirx.Buffer | None:
    """The buffer that ``stage`` copies element for element in row-major order, if that is all it does."""
    if stage.reducer or len(stage.values) != 1 or not isinstance(stage.values[0], TensorLoad):
        return None
    load = stage.values[0]
    if loads(*load.indices) or str(load.source.dtype) != str(stage.buffers[0].dtype):
        return None
    analyzer = analyzer_for(stage.spatial)
    read = linear(load.source.shape, load.indices)
    written = linear(stage.buffers[0].shape, stage.indices[0])
    sizes = [elements(buffer.shape) for buffer in (load.source, stage.buffers[0])]
    same = analyzer.can_prove_equal(read, written) and analyzer.can_prove_equal(*sizes)
    return load.source if same else None


def _may_inline(program: Program, stage: Stage, consumers: list[Stage], costly: bool) -> bool:
    if stage.reducer or len(stage.buffers) > 1 or program.is_output(stage.buffers[0]):
        return False
    if not is_identity_write(stage):
        return False
    if not costly:
        return True
    return len(consumers) == 1 and not _recomputes(stage.buffers[0], consumers[0])


def _recomputes(buffer: tirx.Buffer, consumer: Stage) -> bool:
    """Whether ``consumer`` reads an element of ``buffer`` at more than one of its points."""
    for load in loads(*consumer.values):
        if not load.source.same_as(buffer):
            continue
        plain = [index for index in load.indices if isinstance(index, Var)]
        for axis in consumer.axes:
            if axis.size == 1:
                continue
            used = any(uses(index, [axis.var]) for index in load.indices)
            if not used or (consumer.reduced and not any(index.same_as(axis.var) for index in plain)):
                return True
    return False


def _expand_stage(stage: Stage, inlined: dict[tirx.Buffer, Stage]) -> Stage:
    analyzer = analyzer_for(stage.axes)
    values = tuple(_Expander(inlined, analyzer).run(value) for value in stage.values)
    if stage.reducer is not None and not stage.reducer.rhs:
        return replace(stage, values=values, reducer=replace(stage.reducer, results=values))
    return replace(stage, values=values)


class _Expander:
    """Replaces loads of inlined buffers by their values, each place once per scope."""

    def __init__(self, inlined: dict[tirx.Buffer, Stage], analyzer: tvm.sym.Analyzer) -> None:
        self.inlined = inlined
        self.analyzer = analyzer
        self.scopes: list[list[tuple[tirx.Buffer, list[tirx.Expr], Var, tirx.Expr]]] = []

    def run(self, expr: tirx.Expr) -> tirx.Expr:
        """Expand ``expr`` in a scope of its own: what it binds is wrapped around it."""
        self.scopes.append([])
        body = tvm_ffi.structural_mutate(
            expr, [(TensorLoad, self._load), (tvm.ir.Call, self._call), (tirx.Let, self._let)]
        )
        for _, _, var, value in reversed(self.scopes.pop()):
            body = tirx.Let(var, value, body)
        return body

    def _load(self, load: TensorLoad, mutator: Any) -> tirx.Expr:
        indices = [self.analyzer.simplify(mutator.mutate(index)) for index in load.indices]
        producer = self.inlined.get(load.source)
        if producer is None:
            return tirx.BufferLoad(load.source, indices)
        for scope in self.scopes:
            for buffer, places, var, _ in scope:
                if buffer.same_as(load.source) and all(
                    tvm_ffi.structural_equal(a, b) for a, b in zip(places, indices, strict=True)
                ):
                    return var
        mapping = {
            axis: place for axis, place in zip(producer.indices[0], indices, strict=True) if isinstance(axis, Var)
        }
        value = mutator.mutate(fresh_lets(substitute(producer.values[0], mapping)))
        if isinstance(value, (TensorLoad, Var, tirx.IntImm, tirx.FloatImm)):
            return value
        var = Var(producer.name.lower(), value.ty)
        self.scopes[-1].append((load.source, indices, var, value))
        return var

    def _call(self, call: tvm.ir.Call, mutator: Any) -> tirx.Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return mutator.default_mutate(call)
        condition, *branches = call.args
        expanded = (_without_named_bools(self.run(branch)) for branch in branches)
        return tirx.if_then_else(mutator.mutate(condition), *expanded)

    def _let(self, let: tirx.Let, mutator: Any) -> tirx.Expr:
        return tirx.Let(let.var, mutator.mutate(let.value), self.run(let.body))


def _without_named_bools(expr: tirx.Expr) -> tirx.Expr:
    """What ``expr`` binds to bools as floats, and numbers made of bools as choices: names in a branch stay there, and
    TVM binds no vectors of bools.
    """

    def visit(let: tirx.Let, mutator: Any) -> tirx.Expr:
        value, body = mutator.mutate(let.value), mutator.mutate(let.body)
        if let.var.ty.dtype != "bool":
            return tirx.Let(let.var, value, body)
        name = Var(let.var.name, tvm.ir.PrimType("float32"))
        positive = name > tirx.const(0.0, "float32")
        return tirx.Let(name, _chosen(value, "float32"), substitute(body, {let.var: positive}))

    def cast(node: tirx.Cast, mutator: Any) -> tirx.Expr:
        value = mutator.mutate(node.value)
        if value.ty.dtype == "bool" and node.ty.dtype != "bfloat16":
            return _chosen(value, str(node.ty.dtype))
        return tirx.Cast(node.ty.dtype, value)

    return tvm_ffi.structural_mutate(expr, [(tirx.Let, visit), (tirx.Cast, cast)])


def _chosen(condition: tirx.Expr, dtype: str) -> tirx.Expr:
    return tirx.Select(condition, tirx.const(1, dtype), tirx.const(0, dtype))


def fresh_lets(expr: tirx.Expr) -> tirx.Expr:
    """Give every ``Let`` of ``expr`` a new variable, so that two copies of it can stand in one function."""

    def visit(let: tirx.Let, mutator: Any) -> tirx.Expr:
        var = Var(let.var.name, let.var.ty)
        return tirx.Let(var, mutator.mutate(let.value), mutator.mutate(substitute(let.body, {let.var: var})))

    return tvm_ffi.structural_mutate(expr, [(tirx.Let, visit)])


# --- groups ----------------------------------------------------------------------------------------


def groups(program: Program) -> list[Group]:
    """Cut the stages into runs with common loops; a stage that shares none is a group of its own.

    ``softmax(x)`` over rows is one group: its maximum, exponentials, sum and quotient share the row loop.
    """
    result: list[Group] = []
    run: list[Stage] = []
    for stage in program.stages:
        if run and _common_axes([*run, stage]) is None:
            result.append(_make_group(run))
            run = []
        run.append(stage)
    return [*result, _make_group(run)]


def _make_group(stages: list[Stage]) -> Group:
    if len(stages) == 1:
        (stage,) = stages
        return Group(stage.spatial, (replace(stage, spatial=()),))
    classes = _common_axes(stages)
    assert classes is not None
    last = stages[-1]
    rows = tuple(axis for axis in last.spatial if any(axis.var in members for members in classes))
    mapping = {}
    for members in classes:
        (row,) = [axis.var for axis in rows if axis.var in members]
        mapping.update({member: row for member in members})
    return Group(rows, tuple(_rename_axes(stage, mapping) for stage in stages))


def _rename_axes(stage: Stage, mapping: dict[Var, Var]) -> Stage:
    return replace(
        stage,
        spatial=tuple(axis for axis in stage.spatial if axis.var not in mapping),
        indices=tuple(tuple(substitute(i, mapping) for i in index) for index in stage.indices),
        values=tuple(substitute(value, mapping) for value in stage.values),
        reducer=substitute_reducer(stage, mapping),
    )


def substitute_reducer(stage: Stage, mapping: Mapping[Var, tirx.Expr]) -> Any:
    """The reducer of ``stage`` after a change of variables (one that was taken apart has no axes in it)."""
    if stage.reducer is None or stage.reducer.rhs:
        return stage.reducer
    return replace(stage.reducer, results=tuple(substitute(r, mapping) for r in stage.reducer.results))


def _common_axes(stages: Sequence[Stage]) -> list[set[Var]] | None:
    """Sets of axes, one of each stage, over which all stages can run side by side; None if not worth it."""
    links = _Links(stages)
    producers = {buffer: stage for stage in stages for buffer in stage.buffers}
    for reader in stages:
        for load in loads(*reader.values):
            producer = producers.get(load.source)
            if producer is None:
                continue
            if producer is reader or not is_identity_write(producer):
                return None
            links.connect(producer, load.indices, reader)
    found = links.complete()
    sizes = static_sizes(links.size(members) for members in found)
    if not found or (sizes is not None and math.prod(sizes) <= 1):
        return None
    return found


class _Links:
    """Axes of different stages that must be equal, as a union-find structure."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self.sets: dict[Var, set[Var]] = {a.var: {a.var} for s in stages for a in s.spatial}
        self.extents = {axis.var: axis.extent for stage in stages for axis in stage.spatial}
        self.crossed: set[Var] = set()

    def connect(self, producer: Stage, places: Sequence[tirx.Expr], reader: Stage) -> None:
        own = {axis.var for axis in reader.spatial}
        for axis, place in zip(producer.indices[0], places, strict=True):
            if not isinstance(axis, Var):
                continue
            if isinstance(place, Var) and place in own:
                merged = self.sets[axis] | self.sets[place]
                for member in merged:
                    self.sets[member] = merged
            else:
                self.crossed.add(axis)

    def size(self, members: set[Var]) -> int | None:
        return Axis(next(iter(members)), self.extents[next(iter(members))]).size

    def complete(self) -> list[set[Var]]:
        result: list[set[Var]] = []
        analyzer = tvm.sym.Analyzer()
        for axis in self.stages[-1].spatial:
            members = self.sets[axis.var]
            covers = all(sum(a.var in members for a in stage.spatial) == 1 for stage in self.stages)
            same = all(analyzer.can_prove_equal(self.extents[m], axis.extent) for m in members)
            if covers and same and not members & self.crossed:
                result.append(members)
        return result
