"""Which values of ``main`` are weights: parameters after the inputs, and what is computed from them alone."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import Expr

from torch_tvm.tir import static_shape


def is_full_matrix(value: Expr) -> bool:
    """Whether ``value`` has two sizes, both known and none zero."""
    sizes = static_shape(value) or ()
    return len(sizes) == 2 and all(sizes)


class Weights:
    """The weight values of one function with the attribute ``num_input``, and how each is computed."""

    def __init__(self, func: relax.Function) -> None:
        inputs = int(func.attrs["num_input"]) if func.attrs and "num_input" in func.attrs else len(func.params)
        self._known: set[relax.Var] = set(func.params[inputs:])
        self.bound: dict[relax.Var, Expr] = {}
        self.uses: dict[relax.Var, int] = {}
        blocks = func.body.blocks if isinstance(func.body, relax.SeqExpr) else []
        for block in blocks:
            for binding in block.bindings:
                if isinstance(binding, relax.VarBinding):
                    self._add(binding.var, binding.value)
                else:
                    self._use(binding.value)
        self._use(func.body.body if blocks else func.body)

    def _add(self, var: relax.Var, value: Expr) -> None:
        self.bound[var] = value
        used = self._use(value)
        if used and all(other in self._known for other in used):
            self._known.add(var)

    def _use(self, value: Expr) -> list[relax.Var]:
        used = _vars(value)
        for other in used:
            self.uses[other] = self.uses.get(other, 0) + 1
        return used

    def __contains__(self, value: Expr) -> bool:
        """Whether ``value`` (a variable) depends on weights and on nothing else."""
        return isinstance(value, relax.Var) and value in self._known

    def definition(self, value: Expr, op: str) -> relax.Call | None:
        """The call of the Relax operator ``op`` that ``value`` is bound to, or None."""
        call = self.bound.get(value) if isinstance(value, relax.Var) else value
        return call if isinstance(call, relax.Call) and call.op == tvm.ir.Op.get(op) else None


def _vars(value: Expr) -> list[relax.Var]:
    found: list[relax.Var] = []

    def visit(expr: Expr) -> None:
        if isinstance(expr, relax.Var) and isinstance(expr.ty, relax.TensorType | relax.TupleType):
            found.append(expr)

    relax.analysis.post_order_visit(value, visit)
    return found
