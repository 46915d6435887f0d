"""A PrimFunc as a list of stages: what the generic CPU rules read a kernel into before they emit loops.

Every block becomes a :class:`Stage`: axes, the value that it stores at one point, and, for a reduction, how two
partial results combine. Blocks that only feed others are inlined; a value that is read twice at one place is bound
once with ``Let``, so a long chain of elementwise ops stays linear in size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx.buffer import is_buffer_var

from torch_tvm.support.errors import Refusal
from torch_tvm.tir import Axis, const, is_one, is_zero, loads, statements, substitute, uses

EXPENSIVE = frozenset(
    f"{prefix}.{name}"
    for prefix in ("tirx", "prim")
    for name in (
        "exp exp2 exp10 log log2 log10 log1p tanh erf sigmoid sin cos tan pow sqrt rsqrt "
        "asin acos atan atan2 asinh acosh atanh sinh cosh call_pure_extern"
    ).split()
)


CALL_COST = 12
"""Elementary operations that one transcendental function costs (a polynomial)."""


@dataclass(frozen=True)
class Reducer:
    """``results`` combines partial results ``lhs`` with ``rhs``; ``identity`` starts each of them.

    Without ``rhs`` the update could not be taken apart: ``results`` holds the elements' own expressions, and
    only one accumulator may run through all of them, in order.
    """

    lhs: tuple[Var, ...]
    rhs: tuple[Var, ...]
    results: tuple[tirx.Expr, ...]
    identity: tuple[tirx.Expr, ...]


@dataclass(frozen=True)
class Stage:
    """One block: at every point of ``spatial`` it stores ``values``, reduced over ``reduced`` if there is
    a reducer."""

    name: str
    spatial: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    buffers: tuple[tirx.Buffer, ...]
    indices: tuple[tuple[tirx.Expr, ...], ...]
    values: tuple[tirx.Expr, ...]
    reducer: Reducer | None = None

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.spatial + self.reduced


@dataclass
class Program:
    """The stages of a kernel in order; ``views`` maps a buffer that is a reshape to the parameter under
    it."""

    params: list[tirx.Buffer]
    stages: list[Stage]
    views: dict[tirx.Buffer, tirx.Buffer] = field(default_factory=dict)

    def is_output(self, buffer: tirx.Buffer) -> bool:
        """Whether ``buffer`` is (a view of) a parameter of the function."""
        return self.views.get(buffer, buffer) in self.params


def is_expensive(expr: tirx.Expr) -> bool:
    """Whether ``expr`` calls a transcendental function: worth storing rather than computing twice."""
    found: list[object] = []
    tvm_ffi.structural_walk(
        expr, (tvm.ir.Call, lambda c: found.append(c) if getattr(c.op, "name", "") in EXPENSIVE else None)
    )
    return bool(found)


def weight(expr: tirx.Expr) -> int:
    """How many arithmetic nodes ``expr`` has; what computes an index does not count."""
    kinds = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min, tirx.Select, tvm.ir.Call)
    count = [0]

    def visit(node: object) -> tvm_ffi.WalkResult:
        count[0] += isinstance(node, kinds)
        return tvm_ffi.WalkResult.SKIP if isinstance(node, TensorLoad) else tvm_ffi.WalkResult.ADVANCE

    tvm_ffi.structural_walk(expr, visit, order="pre")
    return count[0]


def read_program(func: tirx.PrimFunc) -> Program:
    """The stages of ``func``, not inlined yet. Raises :class:`Refusal` with the reason when it has another
    form."""
    root = func.body
    if not isinstance(root, SBlockRealize):
        raise Refusal("the body is not a root block")
    params = [param for param in func.params if is_buffer_var(param)]
    for buffer in [*params, *root.block.alloc_buffers]:
        if len(buffer.strides) != 0:
            raise Refusal(f"buffer {buffer.name} is strided")
    stages = [_read_stage(nest) for nest in statements(root.block.body)]
    if not stages:
        raise Refusal("the kernel has no block")
    return Program(params, stages)


def _read_stage(nest: tirx.Stmt) -> Stage:
    extents: dict[Var, tirx.Expr] = {}
    while isinstance(nest, tirx.For):
        if nest.kind != tirx.ForKind.SERIAL or not is_zero(nest.min):
            raise Refusal(f"loop {nest.loop_var.name} is scheduled already")
        extents[nest.loop_var] = nest.extent
        nest = nest.body
    if not isinstance(nest, SBlockRealize):
        raise Refusal(f"opaque TIR: {type(nest).__name__} outside a block")
    block = nest.block
    if not (isinstance(nest.predicate, tirx.IntImm) and int(nest.predicate) == 1):
        raise Refusal(f"block {block.name_hint} is predicated")
    if block.alloc_buffers or block.match_buffers:
        raise Refusal(f"opaque TIR: block {block.name_hint} has buffers of its own")
    spatial, reduced, fixed = _read_axes(block, nest.iter_values, extents)
    stores, binds = _read_body(block)
    sub = lambda expr: substitute(expr, {**binds, **fixed})
    values = tuple(sub(_resolve(store.value, binds)) for store in stores)
    buffers = tuple(store.buffer for store in stores)
    indices = tuple(tuple(sub(index) for index in store.indices) for store in stores)
    stage = Stage(block.name_hint, spatial, reduced, buffers, indices, values)
    if block.init is None:
        if reduced:
            raise Refusal(f"block {block.name_hint} reduces without an initial value")
        return stage
    first = [store for store in statements(block.init) if isinstance(store, tirx.BufferStore)]
    return _with_reducer(stage, [sub(store.value) for store in first])


def _read_axes(
    block: SBlock, values: Sequence[tirx.Expr], extents: dict[Var, tirx.Expr]
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], dict[Var, tirx.Expr]]:
    spatial: list[Axis] = []
    reduced: list[Axis] = []
    fixed: dict[Var, tirx.Expr] = {}
    seen: set[Var] = set()
    for it, value in zip(block.iter_vars, values, strict=True):
        if isinstance(value, tirx.IntImm):
            fixed[it.var] = value
        elif isinstance(value, Var) and value in extents and is_one(extents[value]):
            seen.add(value)
            fixed[it.var] = const(0)
        elif isinstance(value, Var) and value in extents and value not in seen and is_zero(it.dom.min):
            seen.add(value)
            axis = Axis(Var(it.var.name, it.var.ty), extents[value])
            fixed[it.var] = axis.var
            if it.iter_type == tirx.IterVar.CommReduce:
                reduced.append(axis)
            elif it.iter_type == tirx.IterVar.DataPar:
                spatial.append(axis)
            else:
                raise Refusal(f"opaque TIR: block {block.name_hint} has an opaque iterator")
        else:
            raise Refusal(f"opaque TIR: iterator {it.var.name} of {block.name_hint} is not a loop variable")
    if set(extents) - seen:
        raise Refusal(f"opaque TIR: a loop around {block.name_hint} drives no iterator")
    return tuple(spatial), tuple(reduced), fixed


def _read_body(block: SBlock) -> tuple[list[tirx.BufferStore], dict[Var, tirx.Expr]]:
    stores: list[tirx.BufferStore] = []
    binds: dict[Var, tirx.Expr] = {}
    for statement in statements(block.body):
        if isinstance(statement, tirx.Bind):
            binds[statement.var] = substitute(statement.value, binds)
        elif isinstance(statement, tirx.BufferStore):
            stores.append(statement)
        else:
            raise Refusal(f"opaque TIR: {type(statement).__name__} in block {block.name_hint}")
    if not stores:
        raise Refusal(f"opaque TIR: block {block.name_hint} stores nothing")
    for store in stores:
        _check_pure(store.value, block.name_hint)
    return stores, binds


def _resolve(expr: tirx.Expr, binds: dict[Var, tirx.Expr]) -> tirx.Expr:
    return substitute(expr, binds) if binds else expr


def _check_pure(expr: tirx.Expr, name: str) -> None:
    impure: list[str] = []

    def visit(call: tvm.ir.Call) -> None:
        effect = call.op.get_attr("TCallEffectKind") if isinstance(call.op, tvm.ir.Op) else None
        if effect is None or int(effect) > tirx.expr.CallEffectKind.Pure.value:
            impure.append(getattr(call.op, "name", str(call.op)))

    tvm_ffi.structural_walk(expr, (tvm.ir.Call, visit))
    if impure:
        raise Refusal(f"opaque TIR: block {name} calls {impure[0]}")


def _with_reducer(stage: Stage, identity: list[tirx.Expr]) -> Stage:
    """Take the updates apart into elements and a combiner: ``s = s + f(k)`` is ``f(k)`` under ``l + r``."""
    if len(identity) != len(stage.values):
        raise Refusal(f"block {stage.name} has an initial value for some of its results only")
    for buffer in stage.buffers:
        if any(load.source.same_as(buffer) for load in loads(*identity)):
            raise Refusal(f"block {stage.name} starts from its own result")
    lhs = tuple(Var(f"acc{n}", str(b.dtype)) for n, b in enumerate(stage.buffers))
    accumulators = {buffer: var for buffer, var in zip(stage.buffers, lhs, strict=True)}
    updates = [_replace_accumulators(value, accumulators) for value in stage.values]
    found = [_element(update, var, lhs) for update, var in zip(updates, lhs, strict=True)]
    elements = [element for element in found if element is not None]
    bound = [axis.var for axis in stage.axes]
    if len(elements) == len(found):
        rhs = tuple(Var(f"elem{n}", str(b.dtype)) for n, b in enumerate(stage.buffers))
        results = tuple(_replace_elements(update, elements, rhs) for update in updates)
        if not any(uses(result, bound) or loads(result) for result in results):
            reducer = Reducer(lhs, rhs, results, tuple(identity))
            return replace(stage, values=tuple(elements), reducer=reducer)
    return replace(stage, values=tuple(updates), reducer=Reducer(lhs, (), tuple(updates), tuple(identity)))


def _replace_accumulators(expr: tirx.Expr, accumulators: dict[tirx.Buffer, Var]) -> tirx.Expr:
    return tvm_ffi.structural_map(expr, (TensorLoad, lambda load: accumulators.get(load.source, load)))


def _element(update: tirx.Expr, own: Var, accumulators: Sequence[Var]) -> tirx.Expr | None:
    """The part of ``update`` that is combined with the accumulator ``own``."""
    if isinstance(update, (tirx.Add, tirx.Mul, tirx.Max, tirx.Min, tirx.And, tirx.Or)):
        sides = [update.a, update.b]
    elif isinstance(update, tirx.Select):
        sides = [update.true_value, update.false_value]
    elif isinstance(update, tvm.ir.Call) and len(update.args) in (2, 3):
        sides = list(update.args[-2:])
    else:
        return None
    others = [side for side in sides if not (isinstance(side, Var) and side.same_as(own))]
    return others[0] if len(others) == 1 and not uses(others[0], accumulators) else None


def _replace_elements(expr: tirx.Expr, elements: Sequence[tirx.Expr], rhs: Sequence[Var]) -> tirx.Expr:
    def visit(value: tirx.Expr, mutator: Any) -> object:
        for element, var in zip(elements, rhs, strict=True):
            if tvm_ffi.structural_equal(value, element):
                return var
        return mutator.default_mutate(value)

    return tvm_ffi.structural_mutate(expr, [(tvm.ir.Expr, visit)])
