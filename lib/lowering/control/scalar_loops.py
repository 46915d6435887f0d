"""Loops over numbers alone, as one kernel.

A loop whose carried values, captured values and operations are all scalars needs no memory but a few cells, so the
whole of it, inner loops and branches included, becomes one PrimFunc: two vectors of cells, one of int64 (integers and
booleans) and one of float64, and a ``while`` over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.lowering import scalars
from torch_tvm.lowering.builder import is_symbolic, is_tensor
from torch_tvm.lowering.context import LoweringContext
from torch_tvm.lowering.control.control_flow import terminator
from torch_tvm.lowering.conversion import convert, loaded

_NUMBERS = (bool, int, float)
_STRUCTURE = {"torch.prim.If", "torch.prim.If.yield", "torch.prim.Loop", "torch.prim.Loop.condition"}


def is_scalar_loop(m: LoweringContext, op: ir.Operation, captured: Sequence[ir.Value]) -> bool:
    """Whether nothing but scalars goes into the loop, happens in it and comes out of it."""
    if not all(str(result.type) in scalars.SCALAR_DTYPE for result in op.results):
        return False
    return all(_is_scalar(m.env[v], v) for v in (*op.operands, *captured)) and _is_scalar_body(op.regions[0])


def _is_scalar(value: Any, origin: ir.Value) -> bool:
    if is_tensor(value):
        return str(origin.type) in scalars.SCALAR_DTYPE and value.ty.ndim == 0
    return isinstance(value, (*_NUMBERS, str)) or value is None or is_symbolic(value)


def _is_scalar_body(region: ir.Region) -> bool:
    for op in (op for block in region.blocks for op in view.walk(block)):
        name, types = view.op_name(op), [str(v.type) for v in (*op.operands, *op.results)]
        if name.startswith("torch.constant."):
            continue
        if not all(kind in scalars.SCALAR_DTYPE for kind in types):
            return False
        if name not in _STRUCTURE and not scalars.is_scalar_op(name, [str(v.type) for v in op.results]):
            return False
    return True


def emit(m: LoweringContext, op: ir.Operation, captured: Sequence[ir.Value]) -> list[relax.Expr]:
    """The results of a loop for which :func:`is_scalar_loop` holds, as 0-d tensors."""
    b = m.builder
    outside = list(dict.fromkeys([*op.operands, *captured]))
    dynamic = [v for v in outside if is_tensor(m.env[v]) or is_symbolic(m.env[v])]
    known = {v: m.env[v] for v in outside if v not in dynamic}
    tensors = [m.as_tensor(m.env[v], dtype=scalars.SCALAR_DTYPE[str(v.type)]) for v in dynamic]
    cells = _Cells(op, dynamic, known)

    def kernel(*sources: te.Tensor) -> list[te.Tensor]:
        shapes = [[cells.count("int64")], [cells.count("float64")]]
        return te.extern(
            shapes,
            list(sources),
            lambda ins, outs: cells.program(ins, outs),
            dtype=["int64", "float64"],
            name="scalar_loop",
        )

    values = b.te(kernel, *tensors, name="scalar_loop")
    vectors = {dtype: b.emit(relax.TupleGetItem(values, index)) for index, dtype in enumerate(("int64", "float64"))}
    if cells.divides:
        b.check(_read(m, vectors["int64"], 0, "bool"), scalars.BY_ZERO)
    return [_read(m, vectors[cells.kind(r)], cells.slots[r], scalars.SCALAR_DTYPE[str(r.type)]) for r in op.results]


def _read(m: LoweringContext, vector: relax.Expr, slot: int, dtype: str) -> relax.Expr:
    read = lambda source: te.compute((), lambda: convert(source(slot), dtype), name="read")
    return m.builder.te(read, vector, name="read")


class _Cells:
    """Where each value of the loop is kept, and the statements over these cells.

    Cell 0 of the integers is one until something is divided by zero, which also ends every loop.
    """

    def __init__(self, op: ir.Operation, dynamic: Sequence[ir.Value], known: dict[ir.Value, Any]) -> None:
        self._op, self._dynamic, self._known = op, dynamic, known
        self._counts = {"int64": 1, "float64": 1}
        self.slots: dict[ir.Value, int] = {}
        self.divides = False
        self._counters: dict[ir.Value, tuple[int, int]] = {}
        for value in dynamic:
            self._add(value)
        self._plan(op)

    def count(self, kind: str) -> int:
        return self._counts[kind]

    def kind(self, value: ir.Value) -> str:
        return "float64" if str(value.type) == "!torch.float" else "int64"

    def _new(self, kind: str) -> int:
        self._counts[kind] += 1
        return self._counts[kind] - 1

    def _add(self, value: ir.Value) -> None:
        self.slots.setdefault(value, self._new(self.kind(value)))

    def _plan(self, op: ir.Operation) -> None:
        """Cells for the results of an operation and for everything in its regions."""
        name = view.op_name(op)
        if name.startswith("torch.constant."):
            self._known[op.results[0]] = view.constant_of_op(op)
            return
        for result in op.results:
            self._add(result)
        self.divides |= _is_division(name)
        if name == "torch.prim.Loop":
            self._counters[op.regions[0].blocks[0].arguments[0]] = self._new("int64"), self._new("int64")
        for region in op.regions:
            for argument in region.blocks[0].arguments:
                self._add(argument)
            for inner in list(region.blocks[0].operations):
                self._plan(inner.operation)

    # -- statements ------------------------------------------------------------------------------------

    def program(self, ins: Sequence[Any], outs: Sequence[Any]) -> tirx.Stmt:
        with IRBuilder() as builder:
            self._buffers = {"int64": T.buffer_proxy(outs[0]), "float64": T.buffer_proxy(outs[1])}
            with T.serial(0, 1):  # the frame that holds the statements
                self._buffers["int64"][0] = tirx.const(1, "int64")
                for value, source in zip(self._dynamic, ins, strict=True):
                    self._store(value, loaded(tirx.BufferLoad(source, [])))
                self._loop(self._op)
            return builder.get()

    def _load(self, value: ir.Value) -> Any:
        dtype = scalars.SCALAR_DTYPE.get(str(value.type), "int64")
        if value in self._known:
            return tirx.const(self._known[value], dtype)
        return convert(self._buffers[self.kind(value)][self.slots[value]], dtype)

    def _store(self, value: ir.Value, expression: Any) -> None:
        kind = self.kind(value)
        self._buffers[kind][self.slots[value]] = convert(expression, kind)

    def _assign(self, targets: Sequence[ir.Value], sources: Sequence[ir.Value]) -> None:
        """One after the other: no target is a source, since results are not visible where they are computed."""
        for target, source in zip(targets, sources, strict=True):
            self._store(target, self._load(source))

    def _block(self, block: ir.Block) -> None:
        for op in list(block.operations)[:-1]:
            self._operation(op.operation)

    def _operation(self, op: ir.Operation) -> None:
        name = view.op_name(op)
        if name.startswith("torch.constant."):
            return
        if name == "torch.prim.Loop":
            self._loop(op)
        elif name == "torch.prim.If":
            self._if(op)
        else:
            self._arithmetic(op, name)

    def _arithmetic(self, op: ir.Operation, name: str) -> None:
        kinds = {scalars.SCALAR_DTYPE[str(v.type)] for v in op.operands}
        common = "float64" if "float64" in kinds else "bool" if kinds == {"bool"} else "int64"
        arguments = [convert(self._load(v), common) for v in op.operands]
        if _is_division(name) and common == "int64":
            ok = self._buffers["int64"][0]
            self._buffers["int64"][0] = tirx.Select(
                tirx.EQ(arguments[1], tirx.const(0, "int64")), tirx.const(0, "int64"), ok
            )
        value = scalars.form_of(name)(*arguments)
        self._store(op.results[0], convert(value, scalars.SCALAR_DTYPE[str(op.results[0].type)]))

    def _if(self, op: ir.Operation) -> None:
        with T.If(self._load(op.operands[0])):
            for frame, region in zip((T.Then, T.Else), op.regions, strict=True):
                with frame():
                    self._block(region.blocks[0])
                    self._assign(list(op.results), list(terminator(region).operands))

    def _loop(self, op: ir.Operation) -> None:
        """The results of the loop are its carried cells; the body's own arguments copy them in each iteration."""
        limit, condition, *initial = op.operands
        body = op.regions[0].blocks[0]
        iteration, *arguments = list(body.arguments)
        results = list(op.results)
        self._assign(results, initial)
        zero, one = tirx.const(0, "int64"), tirx.const(1, "int64")
        count, goes_on = self._counters[iteration]
        integers = self._buffers["int64"]
        integers[count] = zero
        integers[goes_on] = convert(self._load(condition), "int64")
        unbroken = tirx.all(tirx.NE(integers[goes_on], zero), tirx.NE(integers[0], zero))
        with T.While(tirx.all(integers[count] < self._load(limit), unbroken)):
            self._store(iteration, integers[count])
            for argument, result in zip(arguments, results, strict=True):
                self._store(argument, self._load(result))
            self._block(body)
            again, *finals = terminator(op.regions[0]).operands
            integers[goes_on] = convert(self._load(again), "int64")
            self._assign(results, finals)
            integers[count] = integers[count] + one


def _is_division(name: str) -> bool:
    return name.startswith(("torch.aten.floordiv", "torch.aten.remainder"))


__all__ = ["emit", "is_scalar_loop"]
