"""Sizes that a branch computes, where fusion can take them."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.transforms.base import Transform


class KeepBranchSizes(Transform):
    """Inside an ``If``, a dataflow block that binds a symbol becomes an ordinary block; it comes right before FuseOps.

    FuseOps fails on a value of a nested dataflow block that nothing reads, and the value of such a ``match_cast``
    is never read, its symbol is::

        with dataflow():                                   gv1 = match_cast(gv0, Shape([n]))
            gv1 = match_cast(gv0, Shape([n]))       →      gv2 = call_tir(select, (x, n))
            gv2 = call_tir(select, (x, n))
            output(gv2)
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        updated = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function):
                updated.update_func(name, _Rewriter(updated).visit_expr(function))
        return updated


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.depth = 0

    def visit_if_(self, op: relax.If) -> relax.Expr:
        self.depth += 1
        result = super().visit_if_(op)
        self.depth -= 1
        return result

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.BindingBlock:
        if not self.depth or not any(isinstance(b, relax.MatchCast) for b in block.bindings):
            return super().visit_dataflow_block_(block)
        self.builder_._begin_binding_block()
        for binding in block.bindings:
            self._plain(binding)
        return self.builder_._end_block()

    def _plain(self, binding: relax.VarBinding | relax.MatchCast) -> None:
        value = self.visit_expr(binding.value)
        if isinstance(binding, relax.MatchCast):
            fresh = self.builder_.match_cast(value, binding.ty)
        else:
            fresh = self.builder_.emit(value)
        self.set_var_remap(binding.var, fresh)


__all__ = ["KeepBranchSizes"]
