"""``Let`` expressions become stores to buffers of one vector, which LLVM keeps in registers.

TVM's analyzer substitutes what a ``Let`` binds wherever it looks, which takes time exponential in the length of a
chain of activations; a load it leaves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.schedules.cpu.math.let_builder import RARELY
from torch_tvm.tir import const, substitute, uses


def materialize_lets(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Move the lets of every store into temporaries of the enclosing vector loop.

    ``vectorized i: B[i] = let v = f(A[i]) in v * v`` becomes
    ``t = alloc(lanes); vectorized i: { t[i] = f(A[i]); B[i] = t[i] * t[i] }``. A step that is rarely needed
    (:func:`LetBuilder.rarely`) is skipped for a vector none of whose lanes needs it. A guard around lets becomes
    a statement, outside, and inside of them one that is the same for all lanes.
    """
    body = _Materializer().run(func.body)
    return func.with_body(tvm_ffi.structural_map(body, (tvm.ir.Call, _always)))


def _always(call: tvm.ir.Call) -> tirx.Expr:
    """A rare step where statements cannot branch around it: computed for every lane."""
    if not _is_rare(call):
        return call
    key, bound, usual, rare = call.args[1:]
    return tirx.Select(key > bound, rare, usual)


def _has_lets(expr: tirx.Expr) -> bool:
    found: list[tirx.Let] = []
    tvm_ffi.structural_walk(expr, (tirx.Let, found.append))
    return bool(found)


def _is_rare(expr: Any) -> bool:
    name = getattr(getattr(expr, "op", None), "name", "")
    return name == "tirx.call_pure_extern" and getattr(expr.args[0], "value", "") == RARELY


class _Materializer:
    def __init__(self) -> None:
        self.vector: tuple[Var, tirx.Expr] | None = None
        self.made: list[tirx.Buffer] = []
        self.stores: list[tirx.Stmt] = []
        self.is_flat = False

    def run(self, body: tirx.Stmt) -> tirx.Stmt:
        callbacks = [(tirx.For, self._loop), (tirx.BufferStore, self._store)]
        return tvm_ffi.structural_mutate(body, callbacks)

    def _loop(self, loop: tirx.For, mutator: Any) -> tirx.Stmt:
        if loop.kind != tirx.ForKind.VECTORIZED or self.vector is not None:
            return mutator.default_mutate(loop)
        self.vector, self.made = (loop.loop_var, loop.extent), []
        self.is_flat = all(isinstance(part, tirx.BufferStore) for part in _flattened(loop.body))
        body = mutator.mutate(loop.body)
        made, self.vector, self.made = self.made, None, []
        return _with_allocations(made, _vector_loops(loop, body))

    def _store(self, store: tirx.BufferStore, _: object) -> tirx.Stmt:
        outer, self.stores = self.stores, []
        value = self._lift(store.value)
        statements = [*self.stores, tirx.BufferStore(store.buffer, value, store.indices)]
        self.stores = outer
        if len(statements) == 1:
            return store
        if self.vector is not None:
            return tirx.SeqStmt(statements)
        made, self.made = self.made, []
        return _with_allocations(made, statements)

    def _lift(self, expr: tirx.Expr) -> tirx.Expr:
        return tvm_ffi.structural_mutate(expr, [(tirx.Let, self._let), (tvm.ir.Call, self._call)])

    def _call(self, call: tvm.ir.Call, mutator: Any) -> tirx.Expr:
        """What a guard protects stays behind it."""
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return mutator.default_mutate(call)
        condition = mutator.mutate(call.args[0])
        if self._is_one(condition) and any(map(_has_lets, call.args[1:])):
            return self._guarded(condition, call.args[1:], mutator)
        return tirx.if_then_else(condition, *call.args[1:])

    def _is_one(self, condition: tirx.Expr) -> bool:
        """Whether all lanes have the same condition."""
        if self.vector is None:
            return tvm.DataType(str(condition.ty.dtype)).lanes == 1
        return not uses(condition, [self.vector[0]])

    def _guarded(self, condition: tirx.Expr, values: Sequence[tirx.Expr], mutator: Any) -> tirx.Expr:
        """``if_then_else`` as a statement, so that each branch may have temporaries."""
        before, self.stores = self.stores, []
        place = self._temporary(Var("guarded", values[0].ty), values[0])
        target, branches = self.stores[-1], []
        assert isinstance(target, tirx.BufferStore), target
        for value in values:
            self.stores = []
            lifted = mutator.mutate(value)
            if target.buffer.dtype != str(values[0].ty.dtype).partition("x")[0]:
                lifted = tirx.Cast(target.value.ty.dtype, lifted)
            branches.append(_sequence([*self.stores, tirx.BufferStore(target.buffer, lifted, target.indices)]))
        self.stores = [*before, tirx.IfThenElse(condition, *branches)]
        return place

    def _let(self, let: tirx.Let, mutator: Any) -> tirx.Expr:
        if _is_rare(let.value) and self._can_branch(let.var):
            return self._rare_let(let, mutator)
        value = mutator.mutate(let.value)
        place = self._temporary(let.var, value)
        return mutator.mutate(substitute(let.body, {let.var: place}))

    def _can_branch(self, var: Var) -> bool:
        """Whether whole vectors can be tested: there is one, and nothing but stores in its loop."""
        return self.is_flat if self.vector is not None else tvm.DataType(str(var.ty.dtype)).lanes > 1

    def _rare_let(self, let: tirx.Let, mutator: Any) -> tirx.Expr:
        key, bound, usual, rare = let.value.args[1:]
        key = self._temporary(Var("key", key.ty), mutator.mutate(key))
        place = self._temporary(let.var, mutator.mutate(usual))
        bound = bound.value if isinstance(bound, tirx.Broadcast) else bound
        assert isinstance(key, TensorLoad) and isinstance(place, TensorLoad), let
        before, self.stores = self.stores, []
        value = mutator.mutate(tirx.Select(key > bound if self.vector else key > let.value.args[2], rare, place))
        steps = [*self.stores, tirx.BufferStore(place.source, value, place.indices)]
        lanes = int(key.source.shape[0])
        ramp = tirx.Ramp(const(0), const(1), lanes)
        largest = tirx.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", tirx.BufferLoad(key.source, [ramp]))
        self.stores = [*before, tirx.IfThenElse(largest > bound, tirx.SeqStmt(steps), None)]
        return mutator.mutate(substitute(let.body, {let.var: place}))

    def _temporary(self, var: Var, value: tirx.Expr) -> tirx.Expr:
        """``value`` stored in a buffer of its own, as it is read from there.

        Truth values are bytes there: TVM lets buffers share their place, and then reads other bytes as truth values.
        """
        lanes = tvm.DataType(str(var.ty.dtype)).lanes
        dtype = str(var.ty.dtype).partition("x")[0]
        size: tirx.Expr
        place: tirx.Expr
        if lanes > 1:
            size, place = const(lanes), tirx.Ramp(const(0), const(1), lanes)
        elif self.vector is not None:
            place, size = self.vector
        else:
            size, place = const(1), const(0)
        is_truth = dtype == "bool"
        buffer = tirx.decl_buffer((size,), "int8" if is_truth else dtype, var.name, scope="global")
        self.made.append(buffer)
        if is_truth:
            value = tirx.Cast(f"int8x{lanes}" if lanes > 1 else "int8", value)
        self.stores.append(tirx.BufferStore(buffer, value, [place]))
        load = tirx.BufferLoad(buffer, [place])
        if not is_truth:
            return load
        zero = tirx.const(0, "int8")
        return load != (tirx.Broadcast(zero, lanes) if lanes > 1 else zero)


def _vector_loops(loop: tirx.For, body: tirx.Stmt) -> list[tirx.Stmt]:
    """``loop`` with ``body``, cut where a guard or a rare step branches: the branch is taken by whole vectors."""

    def vector(statements: list[tirx.Stmt]) -> tirx.Stmt:
        var = Var(loop.loop_var.name, loop.loop_var.ty)
        inner = _sequence(statements)
        inner = tvm_ffi.structural_map(inner, (Var, lambda v: var if v.same_as(loop.loop_var) else v))
        return tirx.For(var, loop.min, loop.extent, loop.kind, inner, annotations=loop.annotations)

    result: list[tirx.Stmt] = []
    run: list[tirx.Stmt] = []
    for statement in _flattened(body):
        if isinstance(statement, tirx.IfThenElse):
            result += [vector(run)] if run else []
            then, otherwise = (
                _sequence(_vector_loops(loop, case)) if case is not None else None
                for case in (statement.then_case, statement.else_case)
            )
            result.append(tirx.IfThenElse(statement.condition, then, otherwise))
            run = []
        else:
            run.append(statement)
    return [*result, vector(run)] if run else result


def _flattened(body: tirx.Stmt) -> list[tirx.Stmt]:
    if not isinstance(body, tirx.SeqStmt):
        return [body]
    return [part for statement in body.seq for part in _flattened(statement)]


def _with_allocations(buffers: list[tirx.Buffer], statements: list[tirx.Stmt]) -> tirx.Stmt:
    return _sequence([*(tirx.AllocBuffer(buffer) for buffer in buffers), *statements])


def _sequence(statements: list[tirx.Stmt]) -> tirx.Stmt:
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)
