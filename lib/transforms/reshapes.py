"""Reshapes are views of what they read, whatever their sizes.

TVM makes a view of a kernel whose indices it can prove to be in step. With sizes that are quotients
(``(n - 1) // 2 + 1``, the height of an image after a stride) it cannot, and LLVM then takes half a minute for the copy.
"""

from __future__ import annotations

import tvm
from tvm import relax, topi
from tvm.ir import Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from torch_tvm.tir.sizes import static_shape
from torch_tvm.transforms.base import Transform, of_tvm
from torch_tvm.workloads.workload import RESHAPE


def legalize_reshape(builder: relax.BlockBuilder, call: relax.Call) -> Expr:
    """A kernel with the attribute ``RESHAPE``, which is lost where it is fused with others."""
    data, shape = call.args
    if isinstance(shape, relax.Var):
        shape = builder.lookup_binding(shape)
    return builder.call_te(topi.reshape, data, shape, primfunc_name_hint="reshape", primfunc_attrs={RESHAPE: 1})


class ViewReshapes(Transform):
    """Kernels that still have the attribute ``RESHAPE`` are views, where their results stay inside of a block.

    ``call_tir(reshape, x)``  →  ``relax.reshape(x)``
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        return _view_reshapes(mod)


_REWRITE = of_tvm("RewriteDataflowReshape")


class RewriteDataflowReshape(Transform):
    """TVM's pass of this name, where it can be run.

    In programs with tensors without elements its reshape takes a size of 0 for that of what it reads, so that a result
    has another shape. In some with unknown sizes its analysis of a kernel fails (``s0 - 3`` into ``2 * (s0 - 3)``); a
    copy stays.

    ``call_tir(copy, x)``  →  ``relax.reshape(x)``
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        found: list[Expr] = []

        def look(value: Expr) -> None:
            if 0 in (static_shape(value) or ()):
                found.append(value)

        for function in mod.functions.values():
            if isinstance(function, relax.Function):
                relax.analysis.post_order_visit(function, look)
        if found:
            return mod
        try:
            return _REWRITE.run(mod)
        except tvm.error.InternalError:
            return mod


@relax.transform.function_pass(opt_level=0, name="ViewReshapes")
def _view_reshapes(function: relax.Function, mod: tvm.IRModule, _: tvm.transform.PassContext) -> relax.Function:
    viewed = _Viewer(mod).visit_expr(function)
    assert isinstance(viewed, relax.Function), viewed
    return viewed


@mutator
class _Viewer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.mod = mod

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        source = self._source(binding.value)
        if source is None or not isinstance(binding.var, relax.DataflowVar):
            super().visit_var_binding_(binding)
            return
        view = relax.op.reshape(self.visit_expr(source), binding.value.ty.shape)
        self.set_var_remap(binding.var, self.builder_.emit(view, binding.var.name))

    def _source(self, value: Expr) -> Expr | None:
        """The operand of a call of a kernel that reshapes."""
        if not isinstance(value, relax.Call) or value.op != tvm.ir.Op.get("relax.call_tir"):
            return None
        attrs = self.mod[value.args[0]].attrs
        return value.args[1].fields[0] if attrs and RESHAPE in attrs else None
