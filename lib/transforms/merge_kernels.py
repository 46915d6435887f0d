"""Kernels that are alike become one: each is scheduled and compiled once."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from torch_tvm.transforms.base import Level, Transform

Kernels = dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar]


class MergeKernels(Transform):
    """The first of the kernels that are alike is called in place of the others.

    ``y = fused_pool_add(x); z = fused_pool1_add(y)``  →  ``y = f(x); z = f(y)`` with ``f = fused_pool_add``

    TVM does so as it makes a kernel of an op, but not where it fuses several, and not for every op.
    """

    level = Level.FUSION

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        first = _alike(mod)
        if not first:
            return mod
        renamer = _Renamer(mod, first)
        functions = {gvar: function for gvar, function in mod.functions_items() if gvar not in first}
        for gvar, function in functions.items():
            if isinstance(function, relax.Function):
                functions[gvar] = renamer.visit_expr(function)
        return tvm.IRModule(functions, attrs=mod.attrs)


def _alike(mod: tvm.IRModule) -> Kernels:
    """The kernels that are like one before them, and that one."""
    found: dict[int, list[tvm.ir.GlobalVar]] = {}
    first: Kernels = {}
    for gvar, function in sorted(mod.functions_items(), key=lambda item: item[0].name_hint):
        if not isinstance(function, tirx.PrimFunc):
            continue
        known = found.setdefault(tvm_ffi.structural_hash(function), [])
        like = (other for other in known if tvm_ffi.structural_equal(mod[other], function))
        other = next(like, None)
        if other is None:
            known.append(gvar)
        else:
            first[gvar] = other
    return first


@mutator
class _Renamer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, first: Kernels) -> None:
        super().__init__(mod)
        self.first = first

    def visit_global_var_(self, op: tvm.ir.GlobalVar) -> tvm.ir.GlobalVar:
        return self.first.get(op, op)


__all__ = ["MergeKernels"]
