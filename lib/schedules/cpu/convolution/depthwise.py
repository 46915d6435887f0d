"""Depthwise convolution: one filter a channel, vectors along the channels."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import tirx
from tvm.ir import Expr

from torch_tvm import tir
from torch_tvm.schedules.cpu.convolution.kernel import DirectKernel, Place, Tap
from torch_tvm.schedules.cpu.convolution.tiling import ConvTiling, choose_width
from torch_tvm.schedules.cpu.loops.producers.fused import FusedKernel, read_fused
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.workloads.convolution import ConvWorkload


class DepthwiseConv:
    """``conv; epilogue`` becomes ``parallel (n, block of channels, row): tile of columns, one vector each``."""

    name = "depthwise-convolution"

    def apply(self, func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc:
        kernel = read_fused(func, ConvWorkload)
        conv = kernel.workload
        if conv.algorithm != "depthwise":
            raise Refusal(f"the algorithm is {conv.algorithm}")
        return kernel.rebuilt(_DepthwiseKernel(kernel, conv, cpu).body())


class _DepthwiseKernel(DirectKernel):
    """A tile holds one accumulator a column; neighbouring taps share their loads of data."""

    def __init__(self, kernel: FusedKernel, conv: ConvWorkload, cpu: CpuModel) -> None:
        super().__init__(kernel, conv, cpu)
        self.groups, self.out_blocks, self.in_blocks = 1, tir.ceil_div(conv.out_channels, conv.lanes), 1

    def _choose_tiling(self, columns: Sequence[int]) -> ConvTiling:
        spare = self.conv.kernel[-1] + 2
        return ConvTiling(choose_width(columns, self.cpu.vector_registers // 2 - min(spare, 4)), 1)

    def _chunks_apart(self) -> int:
        return self.out_blocks

    def _taps(self, count: int, tap: tir.Body) -> tirx.Stmt:
        return tir.loop("kw", count, tap, kind="unrolled")

    def _reduction(self, acc: tir.Accumulators, place: Place, tap: Tap) -> tirx.Stmt:
        """One tap: every column adds its vector of data times the vector of weights."""
        conv, lanes = self.conv, self.conv.lanes
        weight = tir.load(self.weight, [place.block, *tap.kernel[3 - conv.rank :], 0], lanes)

        def column(m: Expr) -> tirx.Stmt:
            point = list(tap.at(m)[3 - conv.rank :])
            if self.is_flat:
                data, point = self._view(self.data), [tap.position[2] + m]
            else:
                data = self.data
            value = tir.load(data, [place.batch, place.block, *point, 0], lanes)
            return acc.set(m, acc.get(m) + value * weight)

        return tir.loop("m", len(tap.columns), column, start=tap.columns[0], kind="unrolled")
