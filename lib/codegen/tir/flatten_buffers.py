"""``FlattenBuffer``, kept from what TVM's ``iter_map_simplify`` gets wrong.

That pass adds up the indices of an access and simplifies the sum as a map from loops. What is added to a loop under a
division may get lost there: of ``row * 12 + (3 - lane) % 12`` the 3, ``(i + 9) // 2 % 8`` becomes ``(i + 8) // 2``, and
a loop that is shifted twice by different numbers is shifted once. Sums of rising loops alone are right. So any other
quotient is hidden behind a variable while the pass runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad, Var

_QUOTIENTS = (tirx.FloorDiv, tirx.FloorMod)

IsSafe = Callable[[tirx.Expr, set[Var]], bool]
"""Whether a quotient may be simplified, given the variables of the loops."""


@tvm.transform.module_pass(opt_level=0, name="FlattenBuffers")
def flatten_buffers(mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
    """Every buffer with one dimension, as ``tirx.transform.FlattenBuffer``.

    Before::

        B[row, (3 - lane) % 12]

    After::

        B[row * 12 + (3 - lane) % 12]
    """
    try:
        return _flattened(mod, _is_rising)
    except tvm.error.InternalError:  # it divides by zero where a loop cancels out
        return _flattened(tirx.transform.StmtSimplify()(mod), lambda quotient, loops: False)


def _flattened(mod: tvm.IRModule, is_safe: IsSafe) -> tvm.IRModule:
    hidden: dict[tvm.ir.GlobalVar, dict[Var, tirx.Expr]] = {}
    functions = dict(mod.functions_items())
    for gvar, function in functions.items():
        if isinstance(function, tirx.PrimFunc):
            body, quotients = _hide_quotients(function.body, is_safe)
            if quotients:
                functions[gvar], hidden[gvar] = function.with_body(body), quotients
    flat = tirx.transform.FlattenBuffer()(tvm.IRModule(functions, attrs=mod.attrs))
    for gvar, quotients in hidden.items():
        show = lambda var, shown=quotients: shown.get(var, var)
        function = flat[gvar]
        flat.update_func(gvar, function.with_body(tvm_ffi.structural_map(function.body, (Var, show))))
    return flat


def _hide_quotients(body: tirx.Stmt, is_safe: IsSafe) -> tuple[tirx.Stmt, dict[Var, tirx.Expr]]:
    """``body`` with variables for the quotients in indices that are not safe, and what the variables stand for."""
    quotients: list[tirx.Expr] = []
    tvm_ffi.structural_walk(body, [(tirx.FloorDiv, quotients.append), (tirx.FloorMod, quotients.append)])
    if not quotients:
        return body, {}
    loops: set[Var] = set()
    tvm_ffi.structural_walk(body, (tirx.For, lambda loop: loops.add(loop.loop_var)))
    if all(is_safe(quotient, loops) for quotient in quotients):
        return body, {}
    hider = _Hider(lambda quotient: is_safe(quotient, loops))
    callbacks = [(TensorLoad, hider.load), (tirx.BufferStore, hider.store), (_QUOTIENTS, hider.quotient)]
    return tvm_ffi.structural_mutate(body, callbacks), hider.hidden


class _Hider:
    """Callbacks of one walk over a kernel: each call of ``structural_mutate`` looks at the
    signatures of its own anew.
    """

    def __init__(self, is_safe: Callable[[tirx.Expr], bool]) -> None:
        self.is_safe = is_safe
        self.hidden: dict[Var, tirx.Expr] = {}
        self.is_inside = False

    def load(self, node: TensorLoad, mutator: Any) -> TensorLoad:
        return tirx.BufferLoad(node.source, self._indices(node.indices, mutator))

    def store(self, node: tirx.BufferStore, mutator: Any) -> tirx.BufferStore:
        value = mutator.mutate(node.value)
        return tirx.BufferStore(node.buffer, value, self._indices(node.indices, mutator))

    def _indices(self, indices: Sequence[tirx.Expr], mutator: Any) -> list[tirx.Expr]:
        before, self.is_inside = self.is_inside, True
        visible = [mutator.mutate(index) for index in indices]
        self.is_inside = before
        return visible

    def quotient(self, quotient: tirx.Expr, mutator: Any) -> tirx.Expr:
        if not self.is_inside or _loads(quotient):
            return mutator.default_mutate(quotient)
        if self.is_safe(quotient):
            return quotient
        variable = Var(f"quotient{len(self.hidden)}", quotient.ty)
        self.hidden[variable] = quotient
        return variable


def _loads(expr: tirx.Expr) -> bool:
    found: list[TensorLoad] = []
    tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
    return bool(found)


def _is_rising(expr: tirx.Expr, loops: set[Var]) -> bool:
    """Whether ``expr`` is a sum of loops and of quotients of such sums, each times something positive."""
    match expr:
        case tirx.Add():
            return _is_rising(expr.a, loops) and _is_rising(expr.b, loops)
        case tirx.Mul() | tirx.FloorDiv() | tirx.FloorMod():
            return _is_rising(expr.a, loops) and _is_positive(expr.b, loops)
        case tirx.Cast():
            return _is_rising(expr.value, loops)
        case Var():
            return expr in loops
    return isinstance(expr, tirx.IntImm) and int(expr) == 0


def _is_positive(expr: tirx.Expr, loops: set[Var]) -> bool:
    """Whether ``expr`` is a positive number or made of sizes."""
    if isinstance(expr, tirx.Mul):
        return _is_positive(expr.a, loops) and _is_positive(expr.b, loops)
    return int(expr) > 0 if isinstance(expr, tirx.IntImm) else isinstance(expr, Var) and expr not in loops
