"""The TIR passes that CPU kernels need, from loops (or blocks, for what no rule took) to packed functions.

TVM's default pipeline also looks for thread bindings, shared memory, software pipelines and common
subexpressions, which takes longer than everything else together; CPU kernels have none of the former, and
LLVM finds the latter.
"""

from __future__ import annotations

import math

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir import pipeline as default

from torch_tvm.codegen.tir.bindings import hide_bindings, show_bindings
from torch_tvm.codegen.tir.flatten_buffers import flatten_buffers
from torch_tvm.support.attributes import CHECKS_ELIDED
from torch_tvm.tir import static_sizes

CPU_PIPELINE = "torch_tvm_cpu"

PACKED = 1
"""``calling_conv`` of a function whose parameters and symbol are to stay as they are."""

STACK_BYTES = 16 << 10
"""The largest temporary that is kept on the stack."""


@tirx.transform.prim_func_pass(opt_level=0, name="KeepOnStack")
def _keep_on_stack(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
    """Small temporaries stay on the stack, where LLVM turns what it can into registers.

    TVM by itself moves 1 KiB and more, and all of scope ``local``, to a workspace on the heap, with a call before
    and after. LLVM keeps sums there in memory wherever the loop around them has a side effect, be it a prefetch.
    StorageRewrite drops the annotation, so it is set after that pass.
    """

    def annotate(alloc: tirx.AllocBuffer) -> tirx.AllocBuffer:
        sizes, dtype = list(alloc.buffer.ty.shape), tvm.DataType(str(alloc.buffer.ty.dtype))
        if static_sizes(sizes) is None:
            return alloc
        size = math.prod(map(int, sizes)) * dtype.itemsize
        if size > STACK_BYTES:
            return alloc
        return tirx.AllocBuffer(alloc.buffer, {"disable_lower_builtin": tirx.const(True, "bool")})

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, annotate)))


@tirx.transform.prim_func_pass(opt_level=0, name="DropScopes")
def _drop_scopes(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
    """Without the marks of the IR builder's ``seq_scope``: code generation warns of each on stderr."""

    def visit(mark: tirx.AttrStmt) -> tirx.Stmt:
        return mark.body if mark.attr_key == "pragma_scope" else mark

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.AttrStmt, visit)))


@tvm.transform.module_pass(opt_level=0, name="SkipChecks")
def _skip_checks(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Leave out the conditions on arguments of kernels that need none, which are packed functions by now."""
    functions = dict(mod.functions_items())
    elided = {gvar: function for gvar, function in functions.items() if CHECKS_ELIDED in function.attrs}
    unchecked = tirx.transform.SkipAssert()(tvm.IRModule(elided))
    return tvm.IRModule({**functions, **dict(unchecked.functions_items())}, attrs=mod.attrs)


def _passes() -> list[tvm.transform.Pass]:
    s = s_tir.transform
    t = tirx.transform
    return [
        _drop_scopes,
        s.CanonicalizeLoop(),
        s.LowerInitBlock(),
        s.PlanAndUpdateBufferAllocationLocation(),
        s.ConvertBlocksToOpaque(),
        s.LowerMatchBuffer(),
        hide_bindings,
        s.StmtSimplify(),
        s.LowerOpaqueBlock(),
        flatten_buffers,
        t.BF16ComputeLegalize(),
        t.NarrowDataType(32),
        t.VectorizeLoop(True),
        t.StorageRewrite(),
        t.UnrollLoop(),
        t.StmtSimplify(),
        show_bindings,
        _keep_on_stack,
        s.RewriteUnsafeSelect(),
        t.FP8ComputeLegalize(),
        t.VerifyMemory(),
        t.AnnotateEntryFunc(),
        t.SplitHostDevice(),
        t.MakePackedAPI(),
        _skip_checks,
        t.FP8StorageLegalize(),
        t.BF16StorageLegalize(),
    ]


def _factory() -> tuple[tvm.transform.Pass, object, object]:
    return tvm.transform.Sequential(_passes()), default.finalize_host_passes, default.finalize_device_passes


tirx.register_tir_pipeline(CPU_PIPELINE, _factory)
