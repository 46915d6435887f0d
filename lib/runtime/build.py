"""From scheduled PrimFuncs and Relax functions to a VM executable."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.runtime.bfloat16 import legalize_bfloat16
from torch_tvm.runtime.codegen import compile_cpu


@tvm.transform.module_pass(opt_level=0, name="PlanMemory")
def plan_memory(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Reuse storage inside each function without branches.

    ``StaticPlanBlockMemory`` lets one branch of an ``If`` use storage that only another branch allocates, so
    functions with branches take their memory from the allocator's pool, tensor by tensor.
    """
    branching = {
        gvar: function
        for gvar, function in mod.functions_items()
        if isinstance(function, relax.Function) and _has_branches(function)
    }
    rest = tvm.IRModule({g: f for g, f in mod.functions_items() if g not in branching}, attrs=mod.attrs)
    planned = relax.transform.StaticPlanBlockMemory()(rest)
    for gvar, function in branching.items():
        planned.update_func(gvar, function)
    return planned


def _has_branches(function: relax.Function) -> bool:
    found = []
    relax.analysis.post_order_visit(function, lambda e: found.append(e) if isinstance(e, relax.If) else None)
    return bool(found)


def build(mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True) -> relax.VMExecutable:
    """Lower Relax to VM code and TIR to machine code.

    ``mod`` is what ``torch_tvm.schedules.schedule`` returned: calls to scheduled PrimFuncs.
    """
    lowering = tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            plan_memory,
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
    mod = legalize_bfloat16(mod)
    if target.kind.name == "llvm":
        return compile_cpu(mod, target, lowering, is_native=is_native)
    return tvm.compile(mod, target, relax_pipeline=lowering)
