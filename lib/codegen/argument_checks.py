"""Argument-check elision: kernels that only read weights and what other kernels made need not check their arguments.

TVM writes some ten conditions for each tensor that a kernel takes. They catch wrong arguments of the program, which
reach few kernels, and for all others they are a third of LLVM's work.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst

from torch_tvm.codegen.kernel_sequences import is_call_of
from torch_tvm.support.attributes import CHECKS_ELIDED


@tvm.transform.module_pass(opt_level=0, name="ElideArgumentChecks")
def elide_argument_checks(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Mark the kernels that need no checks; ``mod`` calls its kernels by ``R.call_tir``."""
    doubted: set[tvm.ir.GlobalVar] = set()
    for gvar, function in mod.functions_items():
        if isinstance(function, relax.Function):
            doubted |= _doubted(function, gvar.name_hint == "main")
    functions = {
        gvar: function.with_attr(CHECKS_ELIDED, True)
        if isinstance(function, tirx.PrimFunc) and gvar not in doubted
        else function
        for gvar, function in mod.functions_items()
    }
    return tvm.IRModule(functions, attrs=mod.attrs)


def _doubted(function: relax.Function, is_main: bool) -> set[tvm.ir.GlobalVar]:
    """The kernels that the function calls with an argument of its own, or one that something else made."""
    # Only the weights of ``main`` come in a tuple.
    made = {param for param in function.params if is_main and isinstance(param.ty, relax.TupleType)}
    doubted: set[tvm.ir.GlobalVar] = set()
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if is_call_of(value, "relax.call_tir"):
                if not all(isinstance(arg, GenericConst) or arg in made for arg in value.args[1].fields):
                    doubted.add(value.args[0])
                made.add(binding.var)
            elif _source(value) in made:
                made.add(binding.var)
            else:
                doubted |= _mentioned(value)
    return doubted


def _source(value: relax.Expr) -> relax.Expr | None:
    """What a value is a part, a view or another name of."""
    if isinstance(value, relax.TupleGetItem):
        return value.tuple_value
    if isinstance(value, relax.Var):
        return value
    return value.args[0] if is_call_of(value, "relax.reshape") else None


def _mentioned(value: relax.Expr) -> set[tvm.ir.GlobalVar]:
    found: set[tvm.ir.GlobalVar] = set()
    visit = lambda expr: found.add(expr) if isinstance(expr, tvm.ir.GlobalVar) else None
    relax.analysis.post_order_visit(value, visit)
    return found
