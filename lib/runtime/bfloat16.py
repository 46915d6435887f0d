"""Kernels on bfloat16 made fit for vectorising.

TVM computes bfloat16 in float32 and rounds with a ``let``; where a kernel holds the same expression twice (a vector
loop and its tail, say) the names clash and its vectoriser stops. Here they become unique first.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx


def legalize_bfloat16(mod: tvm.IRModule) -> tvm.IRModule:
    """Lower the PrimFuncs that touch bfloat16 as far as float32 arithmetic, with every name bound once."""
    kernels = {gvar: func for gvar, func in mod.functions_items() if _uses_bfloat16(func)}
    if not kernels:
        return mod
    lowered = _passes()(tvm.IRModule({gvar.name_hint: func for gvar, func in kernels.items()}))
    result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
    for gvar in kernels:
        result.update_func(gvar, lowered[gvar.name_hint])
    return result


def _uses_bfloat16(func: tvm.ir.BaseFunc) -> bool:
    if not isinstance(func, tirx.PrimFunc):
        return False
    return any(str(getattr(p, "dtype", "")) == "bfloat16" for p in func.params)


def _passes() -> tvm.transform.Pass:
    """The head of TVM's own pipeline, up to the float32 arithmetic; what follows there leaves it alone."""
    t = s_tir.transform
    return tvm.transform.Sequential(
        [
            t.CanonicalizeLoop(),
            t.LowerCrossThreadReduction(),
            t.LowerInitBlock(),
            t.PlanAndUpdateBufferAllocationLocation(),
            t.ConvertBlocksToOpaque(),
            t.LiftThreadBinding(),
            t.ManifestSharedMemoryLocalStage(),
            t.CompactBufferAllocation(),
            t.LowerAutoCopy(),
            t.UnifyThreadBinding(),
            t.LowerMatchBuffer(),
            t.StmtSimplify(),
            t.AnnotateIrregularLoop(),
            t.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.StmtSimplify(),
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.ConvertSSA(),
        ]
    )
