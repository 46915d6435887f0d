"""Structured ops: lists, tuples, ``prim.If``, assertions and raising. Loops are in :mod:`loops`.

An ``If`` becomes a Relax ``If`` whose branches give a tuple of tensors; what is no tensor (``None``, a string, a
number that both branches give) stays known while lowering.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.lowering.builder import is_symbolic, is_tensor
from torch_tvm.lowering.context import LoweringContext, structured
from torch_tvm.lowering.conversion import convert, loaded
from torch_tvm.support.errors import UnsupportedOp

RAISES = frozenset({"torch.prim.RaiseException", "torch.runtime.assert"})


@structured("torch.prim.ListConstruct", "torch.prim.TupleConstruct")
def _list_construct(m: LoweringContext, op: ir.Operation) -> None:
    m.env[op.results[0]] = [m.env[operand] for operand in op.operands]


@structured("torch.prim.NumToTensor.Scalar")
def _number_to_tensor(m: LoweringContext, op: ir.Operation) -> None:
    m.env[op.results[0]] = m.as_tensor(m.env[op.operands[0]], dtype=m.builder.result_dtype)


@structured(view.COMPLEX_NUMBER)
def _complex_number(m: LoweringContext, op: ir.Operation) -> None:
    m.env[op.results[0]] = view.constant(op.results[0])


@structured(
    "torch.derefine",
    "torch.tensor_static_info_cast",
    "torch.copy.to_vtensor",
    "torch.copy.to_tensor",
    "torch.prim.unchecked_cast",
)
def _forward(m: LoweringContext, op: ir.Operation) -> None:
    m.env[op.results[0]] = m.shaped(op.results[0], m.env[op.operands[0]])


# -- lists ---------------------------------------------------------------------------------------------


@structured("torch.prim.ListUnpack", "torch.prim.TupleUnpack")
def _unpack(m: LoweringContext, op: ir.Operation) -> None:
    items = m.env[op.operands[0]]
    if not isinstance(items, list):
        m.run_in_aten(op)
        return
    for result, value in zip(op.results, items, strict=True):
        m.env[result] = m.shaped(result, value)


@structured("torch.prim.TupleIndex", "torch.aten.__getitem__.t")
def _get_item(m: LoweringContext, op: ir.Operation) -> None:
    items, index = (m.env[operand] for operand in op.operands)
    if not isinstance(items, list):
        m.run_in_aten(op)
    elif type(index) is int and -len(items) <= index < len(items):
        m.env[op.results[0]] = m.shaped(op.results[0], items[index])
    else:
        _get_item_at_run_time(m, op, items, index)


def _get_item_at_run_time(m: LoweringContext, op: ir.Operation, items: list[Any], index: Any) -> None:
    """An item that the program's own number chooses: numbers from a table, tensors by comparisons."""
    b = m.builder
    symbol = b.size(index)
    if not items:
        b.check(False, "list index out of range", "IndexError")
        m.leave_to_aten(op, "an item of an empty list")
        return
    inside = -len(items) <= symbol < len(items) if type(symbol) is int else (symbol >= -len(items), symbol < len(items))
    for condition in inside if isinstance(inside, tuple) else (inside,):
        b.check(condition, "list index out of range", "IndexError")
    if not all(is_tensor(v) or is_symbolic(v) or isinstance(v, (bool, int, float)) for v in items):
        m.leave_to_aten(op, "an item, chosen at run time, of a list of other things than tensors and numbers")
        return
    kind = m.scalar_dtype(op.results[0].type, items)
    if all(isinstance(v, (bool, int, float)) for v in items):
        chosen = _entry(m, items, index, kind or "int64")
    else:
        chosen = _choose(m, [m.as_tensor(item, dtype=kind) for item in items], index, len(items))
    m.env[op.results[0]] = m.shaped(op.results[0], chosen)


def _entry(m: LoweringContext, table: list[Any], index: Any, dtype: str) -> relax.Expr:
    """One number of a constant table."""

    def kernel(data: te.Tensor, at: te.Tensor) -> te.Tensor:
        position = tirx.Select(at() < 0, at() + len(table), at())
        return te.compute((), lambda: convert(loaded(data(position)), dtype), name="entry")

    return m.builder.te(
        kernel, relax.const(np.array(table, dtype), dtype), m.builder.tensor(index, "int64"), name="entry"
    )


def _choose(m: LoweringContext, values: list[relax.Expr], index: Any, length: int) -> relax.Expr:
    """One of the first items of a list, by a chain of comparisons of which each skips the rest."""
    if len(values) == 1:
        return values[0]
    last = len(values) - 1

    def kernel(at: te.Tensor) -> te.Tensor:
        is_last = [tirx.EQ(at(), tirx.const(i, "int64")) for i in (last, last - length)]
        return te.compute((), lambda: tirx.any(*is_last), name="chosen")

    here = m.builder.te(kernel, m.builder.tensor(index, "int64"), name="chosen")
    m.bb._begin_binding_block()
    found = m.bb.emit(values[-1])
    then = relax.SeqExpr([m.bb._end_block()], found)
    m.bb._begin_binding_block()
    found = m.bb.emit(_choose(m, values[:-1], index, length))
    return m.bb.emit(relax.If(here, then, relax.SeqExpr([m.bb._end_block()], found)))


@structured("torch.aten.len.t")
def _length(m: LoweringContext, op: ir.Operation) -> None:
    items = m.env[op.operands[0]]
    if isinstance(items, list):
        m.env[op.results[0]] = len(items)
    else:
        m.run_in_aten(op)


@structured("torch.aten.add.t")
def _concatenate(m: LoweringContext, op: ir.Operation) -> None:
    left, right = (m.env[operand] for operand in op.operands)
    if isinstance(left, list) and isinstance(right, list):
        m.env[op.results[0]] = left + right
    else:
        m.run_in_aten(op)


# -- conditions ----------------------------------------------------------------------------------------


@structured("torch.prim.If")
def _if(m: LoweringContext, op: ir.Operation) -> None:
    condition = m.env[op.operands[0]]
    if isinstance(condition, bool):
        region = op.regions[0 if condition else 1]
        m.block(region.blocks[0])
        _bind_results(m, op, [m.env[v] for v in terminator(region).operands])
        return
    condition = m.builder.tensor(condition, "bool")
    location = m.builder.location
    open_blocks = [_branch(m, region) for region in op.regions]
    yields = [[m.env[v] for v in terminator(region).operands] for region in op.regions]
    joined = [_join(m, then, other, result, location) for then, other, result in zip(*yields, op.results, strict=True)]
    branches = []
    for side, finish in enumerate(open_blocks):
        branches.append(finish([leaf[side] for _, leaves in joined for leaf in leaves]))
    value = m.bb.emit(relax.If(condition, *branches))
    items = iter(range(sum(len(leaves) for _, leaves in joined)))
    _bind_results(
        m,
        op,
        [form([m.bb.emit(relax.TupleGetItem(value, next(items))) for _ in leaves]) for form, leaves in joined],
    )


def terminator(region: ir.Region) -> ir.Operation:
    """The operation that ends the region's only block."""
    operations = region.blocks[0].operations
    return operations[len(operations) - 1].operation


Finish = Callable[[list[Callable[[], relax.Expr]]], relax.SeqExpr]


def _branch(m: LoweringContext, region: ir.Region) -> Finish:
    """Lower one branch; the function it gives ends it with a tuple of values."""
    sizes = dict(m.builder.sizes)
    m.bb._begin_binding_block()
    m.block(region.blocks[0])
    block = m.bb._end_block()
    m.builder.sizes = sizes

    def finish(values: list[Callable[[], relax.Expr]]) -> relax.SeqExpr:
        m.bb._begin_binding_block()
        result = m.bb.emit(relax.Tuple([value() for value in values]))
        return relax.SeqExpr([block, m.bb._end_block()], result)

    return finish


Leaf = tuple[Callable[[], relax.Expr], Callable[[], relax.Expr]]
Form = Callable[[list[relax.Expr]], Any]


def _join(m: LoweringContext, then: Any, other: Any, result: ir.Value, location: Any) -> tuple[Form, list[Leaf]]:
    """How a result follows from what the branches give: a function of the tensors to pass out of them."""
    if isinstance(then, list) and isinstance(other, list) and len(then) == len(other):
        parts = [_join(m, x, y, result, location) for x, y in zip(then, other, strict=True)]
        return _rebuilt([(form, len(leaves)) for form, leaves in parts]), [leaf for _, ls in parts for leaf in ls]
    if _is_same(then, other):
        return (lambda _: then), []
    numbers = (bool, int, float)
    if not all(is_tensor(v) or is_symbolic(v) or isinstance(v, numbers) for v in (then, other)):
        raise UnsupportedOp(
            f"branches that give {_describe(then)} and {_describe(other)}",
            subject="torch.prim.If",
            location=location,
            stage="lowering",
            advice="give a value of the same kind in both branches",
        )
    kind = m.scalar_dtype(result.type, [then, other])
    leaf = (lambda: m.as_tensor(then, dtype=kind), lambda: m.as_tensor(other, dtype=kind))
    return (lambda values: values[0]), [leaf]


def _rebuilt(parts: list[tuple[Form, int]]) -> Form:
    def form(values: list[relax.Expr]) -> list[Any]:
        found, start = [], 0
        for part, count in parts:
            found.append(part(values[start : start + count]))
            start += count
        return found

    return form


def _is_same(a: Any, b: Any) -> bool:
    if is_tensor(a) or is_symbolic(a) or is_tensor(b) or is_symbolic(b):
        return False
    return type(a) is type(b) and bool(a == b)


def _describe(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"


def _bind_results(m: LoweringContext, op: ir.Operation, values: list[Any]) -> None:
    for result, value in zip(op.results, values, strict=True):
        m.env[result] = m.shaped(result, value)


# -- exceptions ----------------------------------------------------------------------------------------


@structured("torch.prim.RaiseException")
def _raise(m: LoweringContext, op: ir.Operation) -> None:
    parts = [m.env[operand] for operand in op.operands]
    message = next((part for part in parts if isinstance(part, str)), "an exception of the program")
    m.builder.check(False, message)


@structured("torch.runtime.assert")
def _assert(m: LoweringContext, op: ir.Operation) -> None:
    condition = m.env[op.operands[0]]
    if not isinstance(condition, bool) and not is_symbolic(condition):
        condition = m.builder.tensor(condition, "bool")
    m.builder.check(condition, op.attributes["message"].value)


__all__ = ["RAISES", "terminator"]
