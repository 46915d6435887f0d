"""Fused kernels of bounded size: compiling one takes time and memory that grow faster than it does."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from torch_tvm.schedules.cpu.loops.program import CALL_COST, EXPENSIVE, weight
from torch_tvm.transforms.base import Level, Transform, replace_functions

MOST = 160
"""Operations in one kernel, where that can be helped."""

LEAST = 1 / 3
"""The part of ``MOST`` from which on a cut may be made where few values cross it."""

_ANCHOR = 4
"""``kOutEWiseFusable``: products and convolutions, and what is above it."""


class LimitFusion(Transform):
    """What FuseOps fused is cut into kernels of at most ``MOST`` operations where it is more.

    ``y = fused_sin_sin_…_sin(x)``  →  ``y1 = fused_sin_…_sin(x); y2 = fused_sin_…_sin(y1); …``

    The cuts are where few values cross them. Long programs are made of like steps, so many parts are the same kernel.
    """

    level = Level.FUSION

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        costs = _Costs(mod)
        parts = {}
        for gvar, function in mod.functions_items():
            if isinstance(function, relax.Function) and function.attrs and "Primitive" in function.attrs:
                bindings = function.body.blocks[0].bindings
                if sum(costs.of(binding) for binding in bindings) > MOST:
                    parts[gvar] = _parts(function, costs)
        return _Cutter(mod, parts).cut() if any(len(cut) > 1 for cut in parts.values()) else mod


_Binding: TypeAlias = relax.VarBinding | relax.MatchCast


@dataclass(frozen=True)
class _Part:
    """Consecutive bindings, the variables that they read from outside, and those of theirs that others read."""

    bindings: Sequence[_Binding]
    given: Sequence[relax.Var]
    results: Sequence[relax.Var]

    @property
    def name(self) -> str:
        kernels = filter(None, map(_kernel, self.bindings))
        return "_".join(["fused", *(kernel.name_hint for kernel in kernels)])

    def function(self) -> relax.Function:
        """The part as a fused function of its own."""
        named: dict[relax.Var, relax.Var] = {var: relax.Var(var.name, var.ty) for var in self.given}
        params = list(named.values())
        new = lambda var: named.get(var, var)
        bindings = []
        for binding in self.bindings:
            value = tvm_ffi.structural_map(binding.value, (relax.Var, new))
            kind = relax.Var if binding.var in self.results else relax.DataflowVar
            named[binding.var] = kind(binding.var.name, binding.var.ty)
            bindings.append(relax.VarBinding(named[binding.var], value))
        results = [named[var] for var in self.results]
        result = results[0] if len(results) == 1 else relax.Tuple(results)
        body = relax.SeqExpr([relax.DataflowBlock(bindings)], result)
        function = relax.Function(params, body, result.ty).with_attr("Primitive", True)
        return relax.utils.copy_with_new_vars(function)


@mutator
class _Cutter(PyExprMutator):
    """Calls the parts in place of the functions that they are of."""

    def __init__(self, mod: tvm.IRModule, parts: Mapping[tvm.ir.GlobalVar, Sequence[_Part]]) -> None:
        super().__init__(mod)
        self.mod = mod
        self.parts = parts
        self.made: dict[tvm.ir.GlobalVar, list[tvm.ir.GlobalVar]] = {}
        self.results: dict[relax.Var, list[relax.Var]] = {}

    def cut(self) -> tvm.IRModule:
        for gvar, parts in self.parts.items():
            self.made[gvar] = [self.builder_.add_func(part.function(), part.name) for part in parts]
        return replace_functions(self, self.mod, self.parts)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.results:
            self.set_var_remap(binding.var, self.results[value.tuple_value][value.index])
        elif isinstance(value, relax.Call) and value.op in self.parts:
            results = self._calls(value)
            if isinstance(value.ty, relax.TupleType):
                self.results[binding.var] = results
                results = [self.builder_.emit(relax.Tuple(results))]
            self.set_var_remap(binding.var, results[0])
        else:
            super().visit_var_binding_(binding)

    def _calls(self, call: relax.Call) -> list[relax.Var]:
        """The calls of the parts, and the results of the whole."""
        function = self.mod[call.op]
        values = dict(zip(function.params, map(self.visit_expr, call.args), strict=True))
        for gvar, part in zip(self.made[call.op], self.parts[call.op], strict=True):
            made = self.builder_.emit(relax.Call(gvar, [values[var] for var in part.given]))
            if len(part.results) == 1:
                values[part.results[0]] = made
                continue
            for index, var in enumerate(part.results):
                values[var] = self.builder_.emit(relax.TupleGetItem(made, index))
        return [values[var] for var in _variables(function.body.body)]


# -- where to cut --------------------------------------------------------------------------------------


class _Costs:
    """How many operations the kernels take, but for those that have rules of their own."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.known: dict[tvm.ir.GlobalVar, int] = {}

    def of(self, binding: _Binding) -> int:
        kernel = _kernel(binding)
        if kernel is None:
            return 0
        if kernel not in self.known:
            self.known[kernel] = 0 if self.is_anchor(binding) else _operations(self.mod[kernel])
        return self.known[kernel]

    def is_anchor(self, binding: _Binding) -> bool:
        """Whether a rule knows the kernel of a binding by its form, and takes it with one result only."""
        kernel = _kernel(binding)
        return kernel is not None and int(self.mod[kernel].attrs.get("op_pattern", 0)) >= _ANCHOR


def _kernel(binding: _Binding) -> tvm.ir.GlobalVar | None:
    value = binding.value
    is_kernel = isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.call_tir")
    return value.args[0] if is_kernel else None


def _operations(kernel: tirx.PrimFunc) -> int:
    total = 0

    def store(node: tirx.BufferStore) -> None:
        nonlocal total
        total += 1 + weight(node.value)

    def call(node: tvm.ir.Call) -> None:
        nonlocal total
        total += CALL_COST * (getattr(node.op, "name", "") in EXPENSIVE)

    tvm_ffi.structural_walk(kernel.body, [(tirx.BufferStore, store), (tvm.ir.Call, call)])
    return total


def _parts(function: relax.Function, costs: _Costs) -> list[_Part]:
    anchors = [binding.var for binding in function.body.blocks[0].bindings if costs.is_anchor(binding)]
    bindings = _ordered(function, anchors)
    crossing = _crossing(function, bindings)
    last_anchor = max((n for n, binding in enumerate(bindings) if binding.var in anchors), default=-1)
    ends = [0]
    while ends[-1] < len(bindings):
        ends.append(_end(bindings, ends[-1], last_anchor, crossing, costs))
    used = _last_uses(function, bindings)
    parts = []
    for begin, end in itertools.pairwise(ends):
        inside = bindings[begin:end]
        made = {binding.var for binding in inside}
        read = dict.fromkeys(var for binding in inside for var in _variables(binding.value))
        results = [binding.var for binding in inside if used[binding.var] >= end]
        parts.append(_Part(inside, [var for var in read if var not in made], results))
    # a part that reads a size alone has no tensor to take it from
    if len(parts) > 1 and any(relax.analysis.free_symbolic_vars(part.function()) for part in parts):
        return [_Part(bindings, list(function.params), list(_variables(function.body.body)))]
    return parts


def _end(bindings: Sequence[_Binding], begin: int, anchor: int, crossing: Sequence[int], costs: _Costs) -> int:
    """Where the part that starts at ``begin`` ends: as late as it may where the fewest values cross, after ``anchor``
    where only one does."""
    total = 0
    best = begin
    for position in range(begin, len(bindings)):
        total += costs.of(bindings[position])
        if total > MOST and best > begin:
            return best
        if position < anchor or (begin <= anchor < position and crossing[position] > 1):
            continue
        if best == begin or total < MOST * LEAST or crossing[position] <= crossing[best - 1]:
            best = position + 1
    return len(bindings)


def _ordered(function: relax.Function, first: Sequence[relax.Var]) -> list[_Binding]:
    """The bindings of a fused function: ``first`` and what those need, then each as late as what reads it allows."""
    (block,) = function.body.blocks
    made = {binding.var: binding for binding in block.bindings}
    order: dict[relax.Var, None] = {}
    todo = [(var, False) for var in reversed([*first, *_variables(function.body.body)])]
    while todo:
        var, is_ready = todo.pop()
        if var not in made or var in order:
            continue
        if is_ready:
            order[var] = None
            continue
        todo.append((var, True))
        todo += [(operand, False) for operand in reversed(_variables(made[var].value))]
    return [made[var] for var in order]


def _crossing(function: relax.Function, bindings: Sequence[_Binding]) -> list[int]:
    """How many values that the bindings make are read after each of them."""
    ending = Counter(_last_uses(function, bindings).values())
    return list(itertools.accumulate(1 - ending[position] for position in range(len(bindings))))


def _last_uses(function: relax.Function, bindings: Sequence[_Binding]) -> dict[relax.Var, int]:
    """The position of the last binding that reads a variable; past them all for a result."""
    last: dict[relax.Var, int] = {}
    for position, binding in enumerate(bindings):
        last.update(dict.fromkeys(_variables(binding.value), position))
    last.update(dict.fromkeys(_variables(function.body.body), len(bindings)))
    return last


def _variables(value: relax.Expr) -> list[relax.Var]:
    """The variables that an expression reads, each once, in order; sizes come with the tensors that have them."""
    found: dict[relax.Var, None] = {}

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Var) and not isinstance(expr.ty, tvm.ir.PrimType):
            found[expr] = None

    relax.analysis.post_order_visit(value, visit)
    return list(found)


__all__ = ["LimitFusion"]
