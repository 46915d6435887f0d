"""The Relax-to-Relax pipeline, in phases."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from torch_tvm.schedules.target import CpuModel
from torch_tvm.transforms.branch_sizes import keep_branch_sizes
from torch_tvm.transforms.convolution.blocked_layout import blocked_layout
from torch_tvm.transforms.convolution.fold_batch_norm import fold_batch_norm
from torch_tvm.transforms.convolution.pools import legalize_max_pools
from torch_tvm.transforms.fuse_attention import fuse_attention
from torch_tvm.transforms.limit_fusion import limit_fusion
from torch_tvm.transforms.matmul.fuse_siblings import fuse_sibling_matmuls
from torch_tvm.transforms.matmul.pack_weights import pack_matmul_weights
from torch_tvm.transforms.merge_kernels import merge_kernels
from torch_tvm.transforms.params.split import bundle_params, lift_params
from torch_tvm.transforms.params.weight_prepacking import take_host_work
from torch_tvm.transforms.quantized.products import quantized
from torch_tvm.transforms.recurrent import pack_recurrent_weights
from torch_tvm.transforms.reshapes import legalize_reshape, view_reshapes


def run(
    mod: tvm.IRModule, target: tvm.target.Target, graph_passes: Sequence[tvm.transform.Pass]
) -> tvm.IRModule:
    """Relax ops on whole tensors in, fused PrimFuncs and calls to them out (unscheduled)."""
    passes = [
        *graph_passes,
        lift_params(),
        take_host_work(),
        *_legalize_passes(),
        *_fusion_passes(),
        bundle_params(),
    ]
    with target:
        return tvm.transform.Sequential(passes)(mod)


def cpu_passes(cpu: CpuModel, accuracy: str) -> list[tvm.transform.Pass]:
    """Rewrites of Relax ops: batch-norm folding, recomposition, layout, weight packing."""
    return [
        quantized(cpu),
        fold_batch_norm(),
        blocked_layout(cpu, accuracy),
        fuse_sibling_matmuls(),
        fuse_attention(),
        pack_matmul_weights(cpu, accuracy),
        pack_recurrent_weights(cpu),
    ]


def _legalize_passes() -> list[tvm.transform.Pass]:
    return [
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        relax.transform.LegalizeOps({"relax.reshape": legalize_reshape, **legalize_max_pools}),
        relax.transform.AnnotateTIROpPattern(),
    ]


def _fusion_passes() -> list[tvm.transform.Pass]:
    return [
        relax.transform.DeadCodeElimination(),  # FuseOps fails on a dead value inside a branch
        keep_branch_sizes(),
        relax.transform.FuseOps(),
        limit_fusion,
        relax.transform.FuseTIR(),
        merge_kernels,
        name_results_apart,
        view_reshapes,
        # It recognises what else is a view by its blocks, so it comes before the schedules.
        relax.transform.RewriteDataflowReshape(),
        relax.transform.DeadCodeElimination(),
    ]


@relax.transform.function_pass(opt_level=0, name="NameResultsApart")
def name_results_apart(
    function: relax.Function, mod: tvm.IRModule, _: tvm.transform.PassContext
) -> relax.Function:
    """Kernels bind variables of their block, and what leaves it is another name of those.

    A reshape whose own variable leaves is no view for TVM, but a kernel that copies.
    """
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
