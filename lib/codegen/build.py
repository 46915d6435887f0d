"""From scheduled PrimFuncs and Relax functions to a VM executable."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.codegen.argument_checks import elide_argument_checks
from torch_tvm.codegen.kernel_sequences import join_kernel_sequences
from torch_tvm.codegen.llvm import compile_cpu
from torch_tvm.codegen.tir.bfloat16 import legalize_bfloat16
from torch_tvm.codegen.tir.float_differences import keep_differences


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


@relax.transform.function_pass(opt_level=0, name="LeaveLastToReturn")
def leave_last_to_return(function: relax.Function, mod: tvm.IRModule, _: tvm.transform.PassContext) -> relax.Function:
    """Do not let go one by one of what lives until the function returns."""
    if not function.body.blocks:
        return function
    *blocks, last = function.body.blocks
    bindings = list(last.bindings)
    while bindings and _is_kill(bindings[-1].value):
        bindings.pop()
    body = relax.SeqExpr([*blocks, relax.BindingBlock(bindings)], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _is_kill(value: relax.Expr) -> bool:
    kills = ("relax.vm.kill_object", "relax.memory.kill_tensor", "relax.memory.kill_storage")
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") in kills


def _has_branches(function: relax.Function) -> bool:
    bindings = (binding for block in function.body.blocks for binding in block.bindings)
    return any(isinstance(binding.value, relax.If) for binding in bindings)


def build_for_cpu(mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True) -> relax.VMExecutable:
    """Scheduled kernels and calls of them as VM code and machine code, which this machine runs if ``is_native``."""
    lowering = _lowering(elide_argument_checks, join_kernel_sequences)
    return compile_cpu(legalize_bfloat16(keep_differences(mod)), target, lowering, is_native=is_native)


def build_for_device(mod: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """The same for a device beside the CPU, by TVM's own code generation; the VM calls every kernel itself."""
    built = tvm.compile(legalize_bfloat16(keep_differences(mod)), target, relax_pipeline=_lowering())
    assert isinstance(built, relax.VMExecutable), built
    return built


def _lowering(
    before_calls: tvm.transform.Pass | None = None, after_calls: tvm.transform.Pass | None = None
) -> tvm.transform.Pass:
    """Relax to VM code, with passes before and after the calls of kernels get their results' memory."""
    return tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            *([before_calls] if before_calls else []),
            relax.transform.CallTIRRewrite(),
            *([after_calls] if after_calls else []),
            plan_memory,
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            leave_last_to_return,
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
