"""Direct convolution: any kernel, stride, padding, dilation and group count, transposed too."""

from __future__ import annotations

import tvm

from torch_tvm.schedules.conv_workload import ANNOTATION, ConvWorkload
from torch_tvm.schedules.cpu.conv_kernel import DirectKernel
from torch_tvm.schedules.cpu.fused import read_fused
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


class DirectConv:
    """``conv; epilogue`` becomes ``parallel (n, chunk of channels, row): tile of columns x vectors of channels``."""

    name = "direct-convolution"

    def apply(self, func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc:
        kernel = read_fused(func, ANNOTATION)
        conv = ConvWorkload.from_json(str(kernel.anchors[0].annotations[ANNOTATION]))
        if conv.algorithm != "direct":
            raise Refusal(f"the algorithm is {conv.algorithm}")
        return kernel.rebuilt(DirectKernel(kernel, conv, cpu).body())
