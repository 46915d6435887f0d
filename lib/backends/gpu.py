"""GPUs: one set of schedule rules over one model of a GPU, and TVM's code generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tvm

from torch_tvm.backends.backend import Backend, Executable
from torch_tvm.codegen.build import build_for_device
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.gpu.rules import RULES
from torch_tvm.schedules.rule import Rule
from torch_tvm.transforms.base import Transform
from torch_tvm.transforms.convolution.fold_batch_norm import FoldBatchNorm
from torch_tvm.transforms.fuse_attention import FuseAttention
from torch_tvm.transforms.scans_as_loops import ScansAsLoops


class Gpu(Backend):
    """A GPU of any kind that TVM generates code for; without a runtime of its own, this machine cannot run it."""

    many_threads: ClassVar[bool] = True

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def why_not_runnable(self, target: tvm.target.Target) -> str:
        return f"it has no {self.kind} device"

    def graph_passes(self, target: tvm.target.Target, accuracy: str) -> Sequence[Transform]:
        return [FoldBatchNorm(), FuseAttention(), ScansAsLoops()]

    def machine(self, target: tvm.target.Target) -> GpuModel:
        return GpuModel.from_target(target)

    def rules(self) -> Sequence[Rule]:
        return RULES

    def build(self, mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True) -> Executable:
        return build_for_device(mod, target)
