"""``Let`` expressions become stores to buffers of one vector, which LLVM keeps in registers.

TVM's analyzer substitutes what a ``Let`` binds wherever it looks, which takes time exponential in the
length of a
chain of activations; a load it leaves alone.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.program import constant, substitute


def materialize_lets(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Move the lets of every store (those outside guards) into temporaries of the enclosing vector loop.

    ``vectorized i: B[i] = let v = f(A[i]) in v * v`` becomes
    ``t = alloc(lanes); vectorized i: { t[i] = f(A[i]); B[i] = t[i] * t[i] }``.
    """
    return func.with_body(_Materializer().run(func.body))


class _Materializer:
    def __init__(self) -> None:
        self.vector: tuple[Var, tirx.Expr] | None = None
        self.made: list[tirx.Buffer] = []
        self.stores: list[tirx.Stmt] = []

    def run(self, body: tirx.Stmt) -> tirx.Stmt:
        callbacks = [(tirx.For, self._loop), (tirx.BufferStore, self._store)]
        return tvm_ffi.structural_mutate(body, callbacks)

    def _loop(self, loop: tirx.For, mutator: Any) -> tirx.Stmt:
        if loop.kind != tirx.ForKind.VECTORIZED or self.vector is not None:
            return mutator.default_mutate(loop)
        self.vector, self.made = (loop.loop_var, loop.extent), []
        body = mutator.mutate(loop.body)
        made, self.vector, self.made = self.made, None, []
        result = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, annotations=loop.annotations)
        return _with_allocations(made, [result])

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
        return tirx.if_then_else(mutator.mutate(call.args[0]), *call.args[1:])

    def _let(self, let: tirx.Let, mutator: Any) -> tirx.Expr:
        value = mutator.mutate(let.value)
        lanes = tvm.DataType(str(let.var.ty.dtype)).lanes
        dtype = str(let.var.ty.dtype).partition("x")[0]
        if lanes > 1:
            size, place = constant(lanes), tirx.Ramp(constant(0), constant(1), lanes)
        elif self.vector is not None:
            place, size = self.vector
        else:
            size, place = constant(1), constant(0)
        buffer = tirx.decl_buffer((size,), dtype, let.var.name, scope="global")
        self.made.append(buffer)
        self.stores.append(tirx.BufferStore(buffer, value, [place]))
        return mutator.mutate(substitute(let.body, {let.var: tirx.BufferLoad(buffer, [place])}))


def _with_allocations(buffers: list[tirx.Buffer], statements: list[tirx.Stmt]) -> tirx.Stmt:
    everything = [*(tirx.AllocBuffer(buffer) for buffer in buffers), *statements]
    return everything[0] if len(everything) == 1 else tirx.SeqStmt(everything)
