"""From scheduled PrimFuncs and Relax functions to a VM executable."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.runtime.bfloat16 import legalize_bfloat16
from torch_tvm.runtime.tir_pipeline import CPU_PIPELINE


def build(mod: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Lower Relax to VM code and TIR to machine code.

    ``mod`` is what ``torch_tvm.schedules.schedule`` returned: calls to scheduled PrimFuncs.
    """
    lowering = tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
    tir_pipeline = CPU_PIPELINE if target.kind.name == "llvm" else "default"
    return tvm.compile(legalize_bfloat16(mod), target, relax_pipeline=lowering, tir_pipeline=tir_pipeline)
