"""``prim.Loop``: a function for its body and one call of the runtime's loop driver.

The trip count may be any number: nothing is unrolled and only the values of one iteration are alive. A carried value
has the sizes that all iterations agree on; a size that an iteration changes is a symbol of the body.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax, tirx

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.lowering.builder import function_scope, is_symbolic, is_tensor
from torch_tvm.lowering.context import LoweringContext, structured
from torch_tvm.lowering.control import scalar_loops
from torch_tvm.lowering.control.control_flow import terminator
from torch_tvm.support.packed_functions import LOOP


@dataclass
class _Captured:
    """What the body reads of the enclosing code: ``inside`` gives each value in terms of ``parameters``.

    ``arguments`` are the tensors that are passed for the parameters.
    """

    inside: dict[ir.Value, Any] = field(default_factory=dict)
    arguments: list[relax.Expr] = field(default_factory=list)
    parameters: list[relax.Var] = field(default_factory=list)
    sizes: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> Any:
        """The value as the body sees it; tensors inside lists become parameters of their own."""
        if isinstance(value, list):
            return [self.add(item) for item in value]
        if is_symbolic(value):
            self.sizes.append(value)
            return value
        if not is_tensor(value) or isinstance(value, tvm.ir.Constant):
            return value
        for known, parameter in zip(self.arguments, self.parameters, strict=True):
            if known.same_as(value):
                return parameter
        self.arguments.append(value)
        self.parameters.append(relax.Var(f"captured{len(self.parameters)}", value.ty))
        return self.parameters[-1]


@dataclass(frozen=True)
class _Body:
    """A lowered body: its name, the types it gives, and whether its condition is always true."""

    name: str
    types: list[relax.TensorType]
    endless: bool
    has_effects: bool


@structured("torch.prim.Loop")
def _loop(m: LoweringContext, op: ir.Operation) -> None:
    """``prim.Loop(limit, condition, carried…)`` as
    ``torch_tvm.loop(name, endless, limit, condition, carried, captured)``.
    """
    outside = _captured_values(m, op.regions[0])
    if scalar_loops.is_scalar_loop(m, op, outside):
        m.env.update(zip(op.results, scalar_loops.emit(m, op, outside), strict=True))
        return
    limit, condition, *initial = (m.env[operand] for operand in op.operands)
    carried = [
        m.as_tensor(value, dtype=m.scalar_dtype(result.type, [value]))
        for value, result in zip(initial, op.results, strict=True)
    ]
    captured = _Captured()
    for value in outside:
        captured.inside[value] = captured.add(m.env[value])
    own: list[tirx.Var] = []
    types = [_first_type(m, value, own) for value in carried]
    functions, fallbacks, effects = dict(m.loop_functions), list(m.fallbacks), m.builder.effects
    while True:
        m.loop_functions, m.fallbacks[:], m.builder.effects = dict(functions), fallbacks, effects
        symbols = _without(_free_symbols([*captured.arguments, *captured.sizes, *types]), own)
        body = _body(m, op, types, captured, symbols)
        general = [_general(m, before, after, own) for before, after in zip(types, body.types, strict=True)]
        if all(_same_type(a, b) for a, b in zip(types, general, strict=True)):
            break
        types = general
    arguments = [
        tvm.ir.StringImm(body.name),
        tvm.ir.StringImm("endless" if body.endless else ""),
        m.builder.tensor(limit, "int64"),
        m.builder.tensor(condition, "bool"),
        relax.Tuple(carried),
        relax.Tuple([*captured.arguments, *symbols]),
    ]
    kinds = [relax.TupleType([_erased(t) for t in types])]
    if body.has_effects:
        made = m.bb.emit(relax.Call(relax.ExternFunc(LOOP), arguments, ty_args=kinds))
    else:
        made = m.bb.emit(relax.op.call_pure_packed(LOOP, *arguments, ty_args=kinds))
    for index, (kind, result) in enumerate(zip(types, op.results, strict=True)):
        item = m.bb.emit(relax.TupleGetItem(made, index))
        sizes = [m.builder.found_size() if _has(own, size) else size for size in kind.shape.values]
        m.env[result] = m.shaped(result, m.bb.match_cast(item, relax.TensorType(sizes, kind.dtype)))


def _body(
    m: LoweringContext,
    op: ir.Operation,
    types: list[relax.TensorType],
    captured: _Captured,
    symbols: list[tirx.Var],
) -> _Body:
    """Emit ``body(iteration, carried…, captured…, symbols…) -> (condition, carried…)`` as a function of its own."""
    name = f"loop_{m.functions}"
    m.functions += 1
    b = m.builder
    outer = dict(m.env), m.bb, b.suffix, b.sizes
    effects = b.effects
    iteration, *arguments = list(op.regions[0].blocks[0].arguments)
    first = relax.Var("iteration", relax.TensorType([], "int64"))
    values = [relax.Var(f"carried{index}", kind) for index, kind in enumerate(types)]
    m.env.update({iteration: first, **captured.inside})
    m.env.update(zip(arguments, values, strict=True))
    body = relax.BlockBuilder()
    m.use_builder(body)
    b.suffix, b.sizes = f"_{name}", {}
    try:
        parameters = [first, *values, *captured.parameters, *symbols]
        with function_scope(body, name, parameters, {"global_symbol": name}):
            m.block(op.regions[0].blocks[0])
            condition, *finals = (m.env[v] for v in terminator(op.regions[0]).operands)
            results = [m.as_tensor(v, dtype=str(t.dtype)) for v, t in zip(finals, types, strict=True)]
            m.finish(relax.Tuple([b.tensor(condition, "bool"), *results]), effects)
    finally:
        m.env, outer_builder, b.suffix, b.sizes = outer
        m.use_builder(outer_builder)
    m.take_functions(body)
    return _Body(name, [value.ty for value in results], condition is True, b.effects > effects)


# -- types of carried values -----------------------------------------------------------------------------


def _first_type(m: LoweringContext, value: relax.Expr, own: list[tirx.Var]) -> relax.TensorType:
    """The type of a carried value, for a first try: that of its initial value."""
    shape = value.ty.shape
    if isinstance(shape, relax.ShapeExpr):
        return relax.TensorType(list(shape.values), value.ty.dtype)
    return relax.TensorType([_new(m, own) for _ in range(value.ty.ndim)], value.ty.dtype)


def _general(
    m: LoweringContext, before: relax.TensorType, after: relax.TensorType, own: list[tirx.Var]
) -> relax.TensorType:
    """Sizes that an iteration of the loop changes become symbols of the body."""
    equal = tvm.sym.Analyzer().can_prove_equal
    sizes = list(before.shape.values)
    known = list(after.shape.values) if isinstance(after.shape, relax.ShapeExpr) else [None] * len(sizes)
    return relax.TensorType(
        [
            b if _has(own, b) or (a is not None and equal(a, b)) else _new(m, own)
            for b, a in zip(sizes, known, strict=True)
        ],
        before.dtype,
    )


def _new(m: LoweringContext, own: list[tirx.Var]) -> tirx.Var:
    own.append(m.builder.symbol("c"))
    return own[-1]


def _has(symbols: list[tirx.Var], size: Any) -> bool:
    return any(size.same_as(symbol) for symbol in symbols)


def _without(symbols: list[tirx.Var], own: list[tirx.Var]) -> list[tirx.Var]:
    return [symbol for symbol in symbols if not _has(own, symbol)]


def _same_type(a: relax.TensorType, b: relax.TensorType) -> bool:
    return all(x.same_as(y) for x, y in zip(a.shape.values, b.shape.values, strict=True))


def _erased(kind: relax.TensorType) -> relax.TensorType:
    return relax.TensorType(dtype=kind.dtype, ndim=len(kind.shape.values))


# -- captured values -------------------------------------------------------------------------------------


def _captured_values(m: LoweringContext, region: ir.Region) -> list[ir.Value]:
    """Values of the enclosing code that the loop's body uses, each once, in order of first use."""
    inner: set[ir.Value] = set()
    found: dict[ir.Value, None] = {}
    operations = [op for block in region.blocks for op in view.walk(block)]
    for block in [*region.blocks, *(b for op in operations for r in op.regions for b in r.blocks)]:
        inner.update(block.arguments)
    for op in operations:
        inner.update(op.results)
    for op in operations:
        for operand in op.operands:
            if operand not in inner and operand in m.env:
                found[operand] = None
    return list(found)


def _free_symbols(items: list[Any]) -> list[tirx.Var]:
    """The symbols in types, in the types of tensors and in sizes, each once."""
    found: list[tirx.Var] = []
    for item in items:
        if is_symbolic(item):
            sizes = [item]
        else:
            kind = item if isinstance(item, relax.TensorType) else item.ty
            sizes = list(kind.shape.values) if isinstance(kind.shape, relax.ShapeExpr) else []
        for size in sizes:
            free = tirx.analysis.undefined_vars(size) if isinstance(size, tvm.ir.Expr) else []
            found += [symbol for symbol in free if not _has(found, symbol)]
    return found
