"""The Relax-to-Relax pipeline: the passes of a backend, then those that all targets share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm

from torch_tvm.transforms.base import Level, Transform, of_tvm, registry
from torch_tvm.transforms.convolution.blocked_layout import BlockLayout
from torch_tvm.transforms.convolution.fold_batch_norm import FoldBatchNorm
from torch_tvm.transforms.fuse_attention import FuseAttention
from torch_tvm.transforms.legalize_ops import LegalizeOps
from torch_tvm.transforms.limit_fusion import LimitFusion
from torch_tvm.transforms.matmul.fuse_siblings import FuseSiblingMatmuls
from torch_tvm.transforms.matmul.pack_weights import PackMatmulWeights
from torch_tvm.transforms.merge_kernels import MergeKernels
from torch_tvm.transforms.name_results_apart import NameResultsApart
from torch_tvm.transforms.params.split import BundleParams, LiftParams
from torch_tvm.transforms.params.weight_prepacking import PrepackWeights
from torch_tvm.transforms.quantized.products import MultiplyBytes
from torch_tvm.transforms.recurrent import PackRecurrentWeights
from torch_tvm.transforms.reshapes import RewriteDataflowReshape, ViewReshapes
from torch_tvm.transforms.sizes.branches import KeepBranchSizes
from torch_tvm.transforms.sizes.joins import JoinSizes
from torch_tvm.transforms.sizes.match import MatchSizes
from torch_tvm.transforms.sizes.order import OrderSizes

After = Callable[[Transform, tvm.IRModule], None]
"""Told of each transform that has run, with the module that it left."""

DEAD_CODE_ELIMINATION = of_tvm("DeadCodeElimination")


def cpu_passes(accuracy: str) -> tuple[Transform, ...]:
    """Rewrites of Relax ops for a CPU: batch-norm folding, recomposition, layout, weight packing."""
    return (
        MultiplyBytes(),
        FoldBatchNorm(),
        BlockLayout(accuracy),
        FuseSiblingMatmuls(),
        FuseAttention(),
        PackMatmulWeights(accuracy),
        PackRecurrentWeights(),
    )


COMMON: tuple[Transform, ...] = (
    # Work on weights alone leaves the program.
    LiftParams(),
    PrepackWeights(),
    # Ops become kernels.
    of_tvm("DispatchSampling"),
    of_tvm("DispatchSortScan"),
    LegalizeOps(),
    of_tvm("AnnotateTIROpPattern"),
    # Kernels are fused.
    DEAD_CODE_ELIMINATION,  # FuseOps fails on a dead value inside a branch
    KeepBranchSizes(),
    of_tvm("FuseOps", Level.FUSION),
    OrderSizes(),
    LimitFusion(),
    JoinSizes(),
    MatchSizes(),
    of_tvm("FuseTIR"),
    MergeKernels(),
    NameResultsApart(),
    ViewReshapes(),
    # It recognises what else is a view by its blocks, so it comes before the schedules.
    RewriteDataflowReshape(),
    DEAD_CODE_ELIMINATION,
    BundleParams(),
)
"""From ops on whole tensors to fused kernels and calls of them."""


def run(
    mod: tvm.IRModule, target: tvm.target.Target, transforms: Sequence[Transform], after: After | None = None
) -> tvm.IRModule:
    """The module after the transforms, in order."""
    with target:
        for transform in transforms:
            mod = transform.run(mod)
            if after is not None:
                after(transform, mod)
    return mod


def known() -> dict[str, type[Transform]]:
    """All transforms by name: those of this folder and TVM's own in the pipeline."""
    return {**{each.name: type(each) for each in COMMON}, **registry()}
