"""Outputs of a dataflow block get names of their own, apart from what kernels in it bind."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.transforms.base import Transform


class NameResultsApart(Transform):
    """Kernels bind variables of their dataflow block, and its outputs are other names of those.

    ``gv = call_tir(f, x); output(gv)``  →  ``lv = call_tir(f, x); gv = lv; output(gv)``

    A reshape whose own variable leaves is no view for TVM, but a kernel that copies.
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        return _name_results_apart(mod)


@relax.transform.function_pass(opt_level=0, name="NameResultsApart")
def _name_results_apart(function: relax.Function, mod: tvm.IRModule, _: tvm.transform.PassContext) -> relax.Function:
    blocks = [_named_apart(block) for block in function.body.blocks]
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _named_apart(block: relax.BindingBlock) -> relax.BindingBlock:
    if not isinstance(block, relax.DataflowBlock):
        return block
    bindings: list[relax.Binding] = []
    for binding in block.bindings:
        if isinstance(binding, relax.VarBinding) and not isinstance(binding.var, relax.DataflowVar):
            inner = relax.DataflowVar(binding.var.name, binding.var.ty)
            bindings.append(relax.VarBinding(inner, binding.value))
            binding = relax.VarBinding(binding.var, inner)
        bindings.append(binding)
    return relax.DataflowBlock(bindings)
