"""Kernels on bfloat16 made fit for vectorising.

TVM computes bfloat16 in float32 and rounds with a ``let``; where a kernel holds the same expression twice (a vector
loop and its tail, say) the names clash and its vectoriser stops. Here they become unique first.
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm_ffi.structural import structural_map, structural_walk

from torch_tvm.codegen.tir.flatten_buffers import flatten_buffers


def legalize_bfloat16(mod: tvm.IRModule) -> tvm.IRModule:
    """Lower the PrimFuncs that touch bfloat16 as far as float32 arithmetic, with every name bound once."""
    kernels = {gvar: func for gvar, func in mod.functions_items() if _uses_bfloat16(func)}
    if not kernels:
        return mod
    named = {gvar.name_hint: func.with_body(_without_lets(func.body)) for gvar, func in kernels.items()}
    lowered = _passes()(tvm.IRModule(named))
    result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
    for gvar in kernels:
        result.update_func(gvar, lowered[gvar.name_hint])
    return result


def _uses_bfloat16(func: tvm.ir.BaseFunc) -> bool:
    if not isinstance(func, tirx.PrimFunc):
        return False
    return any(str(getattr(p, "dtype", "")) == "bfloat16" for p in func.params)


def _without_lets(body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with the values of bfloat16 where lets name them: TVM makes such a value float32, but not its name."""

    def visit(let: tirx.Let) -> tvm.ir.Expr:
        if str(let.var.ty.dtype).partition("x")[0] != "bfloat16":
            return let
        return structural_map(let.body, (tvm.ir.Var, lambda var: let.value if var.same_as(let.var) else var))

    return structural_map(body, (tirx.Let, visit))


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
            t.LowerAutoCopy(),
            t.UnifyThreadBinding(),
            t.LowerMatchBuffer(),
            t.StmtSimplify(),
            t.AnnotateIrregularLoop(),
            t.LowerOpaqueBlock(),
            flatten_buffers,
            tirx.transform.StmtSimplify(),
            tirx.transform.BF16ComputeLegalize(),
            tirx.transform.ConvertSSA(),
            tirx.transform.StmtSimplify(),
            _serial_uniform_stores,
        ]
    )


@tirx.transform.prim_func_pass(opt_level=0, name="SerialUniformStores")
def _serial_uniform_stores(func: tirx.PrimFunc, _mod: object, _ctx: object) -> tirx.PrimFunc:
    """Plain loops where a vector of bfloat16 would hold one value: TVM cannot store such a vector."""
    return func.with_body(structural_map(func.body, (tirx.For, _serial_if_uniform)))


def _serial_if_uniform(loop: tirx.For) -> tirx.For:
    if loop.kind != tirx.ForKind.VECTORIZED:
        return loop
    found: list[bool] = []

    def visit(store: tirx.BufferStore) -> None:
        if str(store.value.ty.dtype) == "bfloat16" and not _reads(store.value, loop.loop_var):
            found.append(True)

    structural_walk(loop.body, (tirx.BufferStore, visit))
    if not found:
        return loop
    return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)


def _reads(value: tvm.ir.Expr, variable: tvm.ir.Var) -> bool:
    found: list[bool] = []
    structural_walk(value, (tvm.ir.Var, lambda var: found.append(True) if var.same_as(variable) else None))
    return bool(found)
