"""One list of the sizes that a fused kernel is given: FuseTIR defines a symbol twice where there are two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from torch_tvm.transforms.base import Level, Transform, replace_functions


class JoinSizes(Transform):
    """A size that a fused function takes as a number stands in its list of sizes; it comes right before FuseTIR::

    fused(x, n, shape([m]))  →  fused(x, shape([m, n]))
    """

    level = Level.FUSION

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        split = {
            gvar: function
            for gvar, function in mod.functions_items()
            if isinstance(function, relax.Function)
            and function.attrs
            and "Primitive" in function.attrs
            and all(any(isinstance(each.ty, kind) for each in function.params) for kind in _KINDS)
        }
        return _Joiner(mod, split).joined() if split else mod


_KINDS = (tvm.ir.PrimType, relax.ShapeType)


@mutator
class _Joiner(PyExprMutator):
    """Calls functions with one list of sizes in place of those in ``split``."""

    def __init__(self, mod: tvm.IRModule, split: dict[tvm.ir.GlobalVar, relax.Function]) -> None:
        super().__init__(mod)
        self.mod = mod
        self.split = split
        self.made: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar] = {}

    def joined(self) -> tvm.IRModule:
        for gvar, function in self.split.items():
            others, numbers, (sizes,) = _sorted(function, function.params)
            params = [*others, relax.Var(sizes.name, relax.ShapeType([*sizes.ty.values, *numbers]))]
            new = relax.Function(params, function.body, function.ret_ty, function.is_pure, function.attrs)
            self.made[gvar] = self.builder_.add_func(new, gvar.name_hint)
        return replace_functions(self, self.mod, self.split)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if call.op not in self.split:
            return super().visit_call_(call)
        others, numbers, (sizes,) = _sorted(self.split[call.op], list(map(self.visit_expr, call.args)))
        return relax.Call(self.made[call.op], [*others, relax.ShapeExpr([*sizes.values, *numbers])])


def _sorted(function: relax.Function, values: Sequence[relax.Expr]) -> list[list[Any]]:
    """The values of a function's parameters: of tensors, of numbers, and of the list of sizes."""
    found: list[list[Any]] = [[], [], []]
    for param, value in zip(function.params, values, strict=True):
        kind = next((n for n, kind in enumerate(_KINDS, 1) if isinstance(param.ty, kind)), 0)
        found[kind].append(value)
    return found


__all__ = ["JoinSizes"]
