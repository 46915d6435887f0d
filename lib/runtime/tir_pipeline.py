"""The TIR passes that CPU kernels need, from loops (or blocks, for what no rule took) to packed functions.

TVM's default pipeline also looks for thread bindings, shared memory, software pipelines and common
subexpressions, which takes longer than everything else together; CPU kernels have none of the former, and
LLVM finds the latter.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import pipeline as default

CPU_PIPELINE = "torch_tvm_cpu"


def _passes() -> list[tvm.transform.Pass]:
    s, t = s_tir.transform, tirx.transform
    return [
        s.CanonicalizeLoop(),
        s.LowerInitBlock(),
        s.PlanAndUpdateBufferAllocationLocation(),
        s.ConvertBlocksToOpaque(),
        s.LowerMatchBuffer(),
        s.StmtSimplify(),
        s.LowerOpaqueBlock(),
        t.FlattenBuffer(),
        t.BF16ComputeLegalize(),
        t.NarrowDataType(32),
        t.VectorizeLoop(True),
        t.StorageRewrite(),
        t.UnrollLoop(),
        t.StmtSimplify(),
        s.RewriteUnsafeSelect(),
        t.FP8ComputeLegalize(),
        t.VerifyMemory(),
        t.AnnotateEntryFunc(),
        t.SplitHostDevice(),
        t.MakePackedAPI(),
        t.FP8StorageLegalize(),
        t.BF16StorageLegalize(),
    ]


def _factory() -> tuple[tvm.transform.Pass, object, object]:
    return tvm.transform.Sequential(_passes()), default.finalize_host_passes, default.finalize_device_passes


tirx.register_tir_pipeline(CPU_PIPELINE, _factory)
