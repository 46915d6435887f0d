"""Direct convolution: any kernel, stride, padding, dilation and group count, transposed too."""

from __future__ import annotations

import tvm

from torch_tvm.schedules.cpu.convolution.kernel import DirectKernel
from torch_tvm.schedules.cpu.convolution.tiling import conv_tilings
from torch_tvm.schedules.cpu.loops.producers.fused import FusedKernel, read_fused
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.workloads.convolution import ConvWorkload


class DirectConv:
    """``conv; epilogue`` becomes ``parallel (n, chunk of channels, row): tile of columns x vectors of channels``."""

    name = "direct-convolution"

    def apply(self, func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc:
        kernel, conv = _read(func)
        return kernel.rebuilt(DirectKernel(kernel, conv, cpu).body())

    def candidates(self, func: tvm.tirx.PrimFunc, cpu: CpuModel) -> dict[str, tvm.tirx.PrimFunc]:
        """The schedule of :meth:`apply` and its neighbours, by a label that says what they are."""
        kernel, conv = _read(func)
        own = DirectKernel(kernel, conv, cpu)
        tilings = conv_tilings(own.tiling, own.out_blocks, cpu.vector_registers)
        return {
            label: kernel.rebuilt(DirectKernel(kernel, conv, cpu, tiling).body()) for label, tiling in tilings.items()
        }


def _read(func: tvm.tirx.PrimFunc) -> tuple[FusedKernel, ConvWorkload]:
    kernel = read_fused(func, ConvWorkload)
    conv = kernel.workload
    if conv.algorithm != "direct":
        raise Refusal(f"the algorithm is {conv.algorithm}")
    return kernel, conv
