"""Keeps let-bound integers of a kernel bound: TVM's simplifier would substitute their values wherever they are used.

A kernel finds out once for each tile where it is, by divisions. With the tile unrolled each access repeated them, and
three quarters of what LLVM was given, and then took out again, were such repetitions. Numbers that only depend on loops
are left to TVM: it knows their bounds, and computes them in 32 bits.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Range, Var

from torch_tvm.tir.expressions import loads, variables

_BINDING = "torch_tvm_binding"
"""The call that stands for a binding while the simplifier runs; nothing is ever called so."""

_COPIED = (tirx.ForKind.UNROLLED, tirx.ForKind.VECTORIZED)
"""Loops whose body is written several times, or for several numbers at once: a variable in it is not one number."""

_FAR = 1 << 40
"""No variable that is added to it fits into 32 bits."""


@tirx.transform.prim_func_pass(opt_level=0, name="HideBindings")
def hide_bindings(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
    """Whole numbers that depend on what a kernel loads: a loop over all values that one may have, if they are known.

    Before::

        first = chunk[0] * 7
        row = (first + iteration) % 56
        ...

    After, until :func:`show_bindings`::

        first = chunk[0] * 7
        for row in range(56):
            torch_tvm_binding(row + FAR, (first + iteration) % 56)
            ...
    """
    return func.with_body(_Hider(func.body).hidden())


@tirx.transform.prim_func_pass(opt_level=0, name="ShowBindings")
def show_bindings(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
    """The inverse of :func:`hide_bindings`."""
    return func.with_body(tvm_ffi.structural_map(func.body, [(tirx.Evaluate, _binding), (tirx.For, _without_loop)]))


def _binding(statement: tirx.Evaluate) -> tirx.Stmt:
    call = statement.value
    if not isinstance(call, Call) or getattr(call.args[0] if call.args else None, "value", None) != _BINDING:
        return statement
    _, named, value = call.args
    (variable,) = variables(named)
    same = tvm_ffi.structural_equal(variable.ty, value.ty)
    return tirx.Bind(variable, value if same else tirx.Cast(str(variable.ty.dtype), value))


def _without_loop(loop: tirx.For) -> tirx.Stmt:
    statements = loop.body if isinstance(loop.body, tirx.SeqStmt) else [loop.body]
    is_hidden = any(isinstance(s, tirx.Bind) and s.var.same_as(loop.loop_var) for s in statements)
    return loop.body if is_hidden else loop


class _Hider:
    """Callbacks of one walk over a kernel, in the order in which it runs."""

    def __init__(self, body: tirx.Stmt) -> None:
        self.body = body
        self.analyzer = sym.Analyzer()
        self.sized = _variables_of_sizes(body)
        self.loaded: set[Var] = set()

    def hidden(self) -> tirx.Stmt:
        callbacks = [(tirx.For, self._loop), (tirx.SeqStmt, self._sequence)]
        return tvm_ffi.structural_mutate(self.body, callbacks)

    def _loop(self, loop: tirx.For, mutator: Any) -> tirx.Stmt:
        if loop.kind in _COPIED:
            return loop
        self.analyzer.bind(loop.loop_var, Range.from_min_extent(loop.min, loop.extent), True)
        return mutator.default_mutate(loop)

    def _sequence(self, sequence: tirx.SeqStmt, mutator: Any) -> tirx.Stmt:
        parts: list[tuple[list[tirx.Stmt], tirx.Bind | None]] = [([], None)]
        for statement in sequence:
            hidden = self._hidden(statement) if isinstance(statement, tirx.Bind) else None
            if hidden is None:
                parts[-1][0].append(mutator.mutate(statement))
            else:
                parts.append(([], hidden))
        statements: list[tirx.Stmt] = []
        for before, binding in reversed(parts):
            statements = [*before, *statements]
            if binding is not None:
                statements = self._around(binding, statements)
        return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)

    def _hidden(self, binding: tirx.Bind) -> tirx.Bind | None:
        """The binding with its value in terms of loops and of what is loaded, where it is one to hide."""
        variable, value = binding.var, binding.value
        if str(variable.ty) not in ("int32", "int64"):
            return None
        is_opaque = bool(loads(value)) or _calls(value)
        depends = is_opaque or not self.loaded.isdisjoint(variables(value))
        if depends:
            self.loaded.add(variable)
        if is_opaque:
            return None
        value = self.analyzer.simplify(value)
        self.analyzer.bind(variable, value, True)
        if not depends or variable in self.sized or isinstance(value, (Var, tirx.IntImm)):
            return None
        return tirx.Bind(variable, value)

    def _around(self, binding: tirx.Bind, body: list[tirx.Stmt]) -> list[tirx.Stmt]:
        """The statements that take the place of a binding and of the ``body`` behind it."""
        variable, dtype = binding.var, str(binding.var.ty.dtype)
        bound = self.analyzer.const_int_bound(binding.value)
        low, high = int(bound.min_value), int(bound.max_value)
        number = lambda value: tirx.const(value, dtype)
        if not -_FAR < low < high < _FAR:
            return [_marker(variable, binding.value), *body]
        marker = _marker(variable + number(_FAR) if dtype == "int64" else variable, binding.value)
        inner = tirx.SeqStmt([marker, *body]) if body else marker
        return [tirx.For(variable, number(low), number(high - low + 1), tirx.ForKind.SERIAL, inner)]


def _marker(named: tirx.Expr, value: tirx.Expr) -> tirx.Stmt:
    return tirx.Evaluate(tirx.call_extern("int32", _BINDING, named, value))


def _calls(expr: tirx.Expr) -> bool:
    found: list[Call] = []
    tvm_ffi.structural_walk(expr, (Call, found.append))
    return bool(found)


def _variables_of_sizes(body: tirx.Stmt) -> set[Var]:
    """The variables that sizes of buffers are made of: a buffer may be moved before their bindings."""
    found: set[Var] = set()

    def note(statement: Any) -> None:
        for size in statement.buffer.ty.shape:
            found.update(variables(size))

    tvm_ffi.structural_walk(body, [(tirx.AllocBuffer, note), (tirx.DeclBuffer, note)])
    return found


__all__ = ["hide_bindings", "show_bindings"]
