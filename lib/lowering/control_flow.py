"""Structured ops: lists, tuples, ``prim.If``, ``prim.Loop`` and raising.

An ``If`` becomes a Relax ``If``. A loop becomes a function for its body and one call of the runtime's loop
driver, so that its trip count may be any number: nothing is unrolled and memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, tirx

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.lowering.builder import is_symbolic, is_tensor

if TYPE_CHECKING:
    from torch_tvm.lowering.module import ModuleLowering

LOOP_DRIVER = "torch_tvm.loop"
RAISE = "torch_tvm.raise"

_SCALAR_DTYPE = {"!torch.int": "int64", "!torch.float": "float64", "!torch.bool": "bool"}


def _list_construct(m: ModuleLowering, op: ir.Operation) -> None:
    m.env[op.results[0]] = [m.env[operand] for operand in op.operands]


def _unpack(m: ModuleLowering, op: ir.Operation) -> None:
    for result, value in zip(op.results, m.env[op.operands[0]], strict=True):
        m.env[result] = m.shaped(result, value)


def _forward(m: ModuleLowering, op: ir.Operation) -> None:
    m.env[op.results[0]] = m.shaped(op.results[0], m.env[op.operands[0]])


def _get_item(m: ModuleLowering, op: ir.Operation) -> None:
    items, index = (m.env[operand] for operand in op.operands)
    m.env[op.results[0]] = items[index]


def _if(m: ModuleLowering, op: ir.Operation) -> None:
    condition = m.env[op.operands[0]]
    if isinstance(condition, bool):
        region = op.regions[0 if condition else 1]
        m.block(region.blocks[0])
        _bind_results(m, op, [m.env[v] for v in _terminator(region).operands])
        return
    condition = m.builder.tensor(condition, "bool")
    branches = [_branch(m, region) for region in op.regions]
    value = m.bb.emit(relax.If(condition, *branches))
    _bind_results(m, op, [m.bb.emit(relax.TupleGetItem(value, i)) for i in range(len(op.results))])


def _terminator(region: ir.Region) -> ir.Operation:
    operations = region.blocks[0].operations
    return operations[len(operations) - 1].operation


def _branch(m: ModuleLowering, region: ir.Region) -> relax.SeqExpr:
    m.bb._begin_binding_block()
    m.block(region.blocks[0])
    values = [m.as_tensor(m.env[v]) for v in _terminator(region).operands]
    result = m.bb.emit(relax.Tuple(values))
    return relax.SeqExpr([m.bb._end_block()], result)


def _bind_results(m: ModuleLowering, op: ir.Operation, values: list[Any]) -> None:
    for result, value in zip(op.results, values, strict=True):
        m.env[result] = m.shaped(result, value)


def _raise(m: ModuleLowering, op: ir.Operation) -> None:
    parts = [m.env[operand] for operand in op.operands]
    message = next((part for part in parts if isinstance(part, str)), "an exception of the program")
    text = tvm.ir.StringImm(f"{m.builder.location}: {message}")
    m.bb.emit(relax.Call(relax.ExternFunc(RAISE), [text], ty_args=[relax.TupleType([])]))


# -- loops ---------------------------------------------------------------------------------------------


def _loop(m: ModuleLowering, op: ir.Operation) -> None:
    """``prim.Loop(max_trip, condition, carried…)`` as ``torch_tvm.loop(name, max_trip, condition, carried, captured)``."""
    limit, condition, *initial = (m.env[operand] for operand in op.operands)
    block = op.regions[0].blocks[0]
    carried = [m.as_tensor(value) for value in initial]
    captured = _captured(m, op.regions[0])
    types = [_carried_type(m, value, result) for value, result in zip(carried, op.results, strict=True)]
    before_functions = dict(m.loop_functions)
    while True:
        m.loop_functions = dict(before_functions)
        name, finals = _loop_body(m, block, types, captured)
        general = [_join(m, before, after) for before, after in zip(types, finals, strict=True)]
        if all(_same_type(a, b) for a, b in zip(types, general, strict=True)):
            break
        types = general
    parameters = [value for value in captured if not _is_static(m.env[value])]
    arguments = [m.as_tensor(m.env[v]) if not is_symbolic(m.env[v]) else m.env[v] for v in parameters]
    symbols = _free_symbols([*(m.env[v] for v in parameters), *types])
    call = relax.op.call_pure_packed(
        LOOP_DRIVER,
        tvm.ir.StringImm(name),
        m.builder.tensor(limit, "int64"),
        m.builder.tensor(condition, "bool"),
        relax.Tuple(carried),
        relax.Tuple([*arguments, *symbols]),
        ty_args=[relax.TupleType([_erased(t) for t in types])],
    )
    value = m.bb.emit(call)
    results = []
    for index, kind in enumerate(types):
        item = m.bb.emit(relax.TupleGetItem(value, index))
        sizes = [
            s if not _free_symbols([s]) or _defined(m, s, symbols) else m.builder.symbol("d")
            for s in kind.shape.values
        ]
        results.append(m.bb.match_cast(item, relax.TensorType(sizes, kind.dtype)))
    _bind_results(m, op, results)


def _defined(m: ModuleLowering, size: Any, symbols: list[tirx.Var]) -> bool:
    return all(any(s.same_as(v) for s in symbols) for v in _free_symbols([size]))


def _carried_type(m: ModuleLowering, value: relax.Expr, result: ir.Value) -> relax.TensorType:
    """The type of a carried value: that of its initial value, for a first try."""
    shape = value.ty.shape
    if isinstance(shape, relax.ShapeExpr):
        return relax.TensorType(list(shape.values), value.ty.dtype)
    return relax.TensorType([m.builder.symbol("c") for _ in range(value.ty.ndim)], value.ty.dtype)


def _join(m: ModuleLowering, before: relax.TensorType, after: relax.TensorType) -> relax.TensorType:
    """Sizes that a turn of the loop changes become unknown."""
    equal = tvm.sym.Analyzer().can_prove_equal
    if not isinstance(after.shape, relax.ShapeExpr):
        after_sizes: list[Any] = [None] * len(before.shape.values)
    else:
        after_sizes = list(after.shape.values)
    sizes = [
        b if (a is not None and equal(a, b)) or _is_loop_symbol(b) else m.builder.symbol("c")
        for b, a in zip(before.shape.values, after_sizes, strict=True)
    ]
    return relax.TensorType(sizes, before.dtype)


def _is_loop_symbol(size: Any) -> bool:
    return isinstance(size, tirx.Var) and size.name.startswith("c")


def _same_type(a: relax.TensorType, b: relax.TensorType) -> bool:
    return all(x.same_as(y) for x, y in zip(a.shape.values, b.shape.values, strict=True))


def _erased(kind: relax.TensorType) -> relax.TensorType:
    return relax.TensorType(dtype=kind.dtype, ndim=len(kind.shape.values))


def _captured(m: ModuleLowering, region: ir.Region) -> list[ir.Value]:
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


def _is_static(value: Any) -> bool:
    """Values that need no parameter: Python constants, and lists, whose tensors are captured on their own."""
    return not is_tensor(value) and not is_symbolic(value)


def _free_symbols(items: list[Any]) -> list[tirx.Var]:
    found: list[tirx.Var] = []

    for item in items:
        if is_symbolic(item):
            sizes = [item]
        else:
            shape = item.shape if isinstance(item, relax.TensorType) else getattr(item.ty, "shape", None)
            sizes = list(shape.values) if isinstance(shape, relax.ShapeExpr) else []
        for size in sizes:
            free = tirx.analysis.undefined_vars(size) if isinstance(size, tvm.ir.Expr) else []
            found += [symbol for symbol in free if not any(symbol.same_as(known) for known in found)]
    return found


def _loop_body(
    m: ModuleLowering, block: ir.Block, types: list[relax.TensorType], captured: list[ir.Value]
) -> tuple[str, list[relax.TensorType]]:
    """Emit ``body(turn, carried…, captured…, symbols…) -> (condition, carried…)`` as a function of its own."""
    name = f"loop_{m.functions}"
    m.functions += 1
    outer_env, outer_bb, outer_suffix = dict(m.env), m.bb, m.builder.suffix
    body = relax.BlockBuilder()
    turn, *arguments = list(block.arguments)
    parameters = [relax.Var("turn", relax.TensorType([], "int64"))]
    m.env[turn] = parameters[0]
    for index, (argument, kind) in enumerate(zip(arguments, types, strict=True)):
        parameters.append(relax.Var(f"carried{index}", kind))
        m.env[argument] = parameters[-1]
    dynamic = [value for value in captured if not _is_static(m.env[value])]
    for index, value in enumerate(dynamic):
        if is_symbolic(outer_env[value]):
            parameters.append(tirx.Var(f"size{index}", str(outer_env[value].ty.dtype)))
        else:
            tensor = m.as_tensor(outer_env[value])
            parameters.append(relax.Var(f"captured{index}", tensor.ty))
        m.env[value] = parameters[-1]
    symbols = _free_symbols([*(outer_env[v] for v in dynamic), *types])
    symbols = [s for s in symbols if not _is_loop_symbol(s)]
    m.use_builder(body)
    m.builder.suffix = f"_{name}"
    try:
        with body.function(name, [*parameters, *symbols], attrs={"global_symbol": name}):
            m.block(block)
            terminator = block.operations[len(block.operations) - 1].operation
            condition, *finals = terminator.operands
            values = [m.as_tensor(m.env[v]) for v in finals]
            body.emit_func_output(relax.Tuple([m.as_tensor(m.env[condition]), *values]))
    finally:
        m.use_builder(outer_bb)
        m.env = outer_env
        m.builder.suffix = outer_suffix
    m.take_functions(body)
    return name, [value.ty for value in values]


HANDLERS: dict[str, Callable[[Any, ir.Operation], None]] = {
    "torch.prim.ListConstruct": _list_construct,
    "torch.prim.TupleConstruct": _list_construct,
    "torch.prim.ListUnpack": _unpack,
    "torch.prim.TupleUnpack": _unpack,
    "torch.prim.TupleIndex": _get_item,
    "torch.aten.__getitem__.t": _get_item,
    "torch.derefine": _forward,
    "torch.tensor_static_info_cast": _forward,
    "torch.copy.to_vtensor": _forward,
    "torch.copy.to_tensor": _forward,
    "torch.prim.unchecked_cast": _forward,
    "torch.prim.If": _if,
    "torch.prim.Loop": _loop,
    "torch.prim.RaiseException": _raise,
}

__all__ = ["HANDLERS", "LOOP_DRIVER", "RAISE"]
