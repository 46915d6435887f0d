"""Names for long expressions of a kernel's symbolic sizes, while a rule schedules it.

The size of what is left of a padded image is ``select(max(min(…)) == 1, …)`` over hundreds of operations, and each of a
kernel's many indices and bounds would hold copies of it, for every pass to simplify anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, PrimType, TensorLoad, Var
from tvm.s_tir import SBlockRealize
from tvm.tirx.buffer import is_buffer_var

from torch_tvm.tir import buffer_like

LONG = 8
"""Nodes of an expression from which on it gets a name: rules still see that ``n // 7 * 7`` is a multiple of 7."""


@dataclass
class NamedSizes:
    """A kernel in which long expressions of sizes are variables: ``func``, which rules take, is closed by ``bound``."""

    func: tirx.PrimFunc
    original: tirx.PrimFunc
    names: list[tuple[Var, Expr]] = field(default_factory=list)

    def bound(self, scheduled: tirx.PrimFunc) -> tirx.PrimFunc:
        """What a rule made of ``func``, with the parameters of the original and the names bound."""
        if not self.names:
            return scheduled
        views = [
            tirx.DeclBuffer(named, data=param.data)
            for param, named in zip(self.original.params, scheduled.params, strict=True)
            if is_buffer_var(param) and not param.same_as(named)
        ]
        binds = [tirx.Bind(var, value) for var, value in self.names]
        body = tirx.SeqStmt([*binds, *views, scheduled.body])
        return tirx.PrimFunc(list(self.original.params), body, scheduled.ret_type, scheduled.attrs)


def name_sizes(func: tirx.PrimFunc) -> NamedSizes:
    """``func`` with names for what is long; as it is when nothing is."""
    symbols = _symbols(func)
    if not symbols or not isinstance(func.body, SBlockRealize):
        return NamedSizes(func, func)
    namer = _Namer(symbols)
    buffers = [*filter(is_buffer_var, func.params), *func.body.block.alloc_buffers]
    renamed = {buffer: namer.buffer(buffer) for buffer in buffers}
    body = namer.body(func.body, renamed)
    if not namer.names:
        return NamedSizes(func, func)
    params = [renamed.get(param, param) for param in func.params]
    named = tirx.PrimFunc(params, body, func.ret_type, func.attrs)
    return NamedSizes(named, func, namer.names)


def _symbols(func: tirx.PrimFunc) -> set[Var]:
    """The variables that say how large the operands are."""
    found = {param for param in func.params if not is_buffer_var(param)}
    for param in filter(is_buffer_var, func.params):
        for size in param.shape:
            tvm_ffi.structural_walk(size, (Var, found.add))
    return {var for var in found if isinstance(var.ty, PrimType)}


class _Namer:
    def __init__(self, symbols: set[Var]) -> None:
        self.symbols = symbols
        self.names: list[tuple[Var, Expr]] = []

    def buffer(self, buffer: tirx.Buffer) -> tirx.Buffer:
        """``buffer``, or one like it whose long sizes have names."""
        shape = [self._renamed(size, {}) for size in buffer.shape]
        if len(buffer.strides) or all(a.same_as(b) for a, b in zip(shape, buffer.shape, strict=True)):
            return buffer
        return buffer_like(buffer, shape=shape)

    def body(self, body: tirx.Stmt, buffers: dict[Var, Var]) -> tirx.Stmt:
        return self._renamed(body, buffers)

    def _renamed(self, node: Any, buffers: dict[Var, Var]) -> Any:
        def visit(expr: Expr, mutator: Any) -> Expr:
            if isinstance(expr, Var):
                return buffers.get(expr, expr)
            return self._name(expr) if self._is_long(expr) else mutator.default_mutate(expr)

        return tvm_ffi.structural_mutate(node, [(Expr, visit)])

    def _is_long(self, expr: Expr) -> bool:
        if not isinstance(expr.ty, PrimType) or str(expr.ty.dtype) not in ("int64", "int32"):
            return False
        nodes: list[object] = []
        foreign: list[object] = []

        def visit(node: Expr) -> tvm_ffi.WalkResult:
            nodes.append(node)
            if isinstance(node, (TensorLoad, tvm.ir.Call)) or (isinstance(node, Var) and node not in self.symbols):
                foreign.append(node)
                return tvm_ffi.WalkResult.SKIP
            return tvm_ffi.WalkResult.ADVANCE

        tvm_ffi.structural_walk(expr, (Expr, visit), order="pre")
        return not foreign and len(nodes) >= LONG

    def _name(self, expr: Expr) -> Var:
        for var, known in self.names:
            if tvm_ffi.structural_equal(known, expr):
                return var
        var = Var("size", expr.ty)
        self.names.append((var, expr))
        return var
