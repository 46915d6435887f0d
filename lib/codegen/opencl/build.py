"""From scheduled PrimFuncs and Relax functions to a program for an OpenCL device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tvm
from tvm import relax, tirx

from torch_tvm.codegen.opencl.kernels import HostFunction, split
from torch_tvm.codegen.opencl.program import DeviceFunction
from torch_tvm.codegen.opencl.text import source
from torch_tvm.codegen.tir.bfloat16 import legalize_bfloat16
from torch_tvm.codegen.tir.float_differences import keep_differences
from torch_tvm.runtime.opencl.devices import why_no_device
from torch_tvm.runtime.opencl.program import Program
from torch_tvm.support.errors import InvalidInput


@dataclass(frozen=True)
class OpenClExecutable:
    """A program for a device; ``jit`` makes it ready on this machine, as ``relax.VMExecutable.jit`` does."""

    program: Program

    @property
    def mod(self) -> tvm.runtime.Module:
        """Machine code of a CPU; raises :class:`InvalidInput`, for there is none."""
        raise InvalidInput("code for opencl cannot be saved yet", subject="save", advice="compile for a CPU")

    def jit(self) -> Program:
        return self.program


def build_for_opencl(mod: tvm.IRModule, target: tvm.target.Target, device: str = "") -> OpenClExecutable:
    """Scheduled kernels and calls of them as OpenCL C and Python; ``device`` is the one to run on, by name or index."""
    mod = tvm.transform.Sequential([relax.transform.ToNonDataflow(), relax.transform.RemovePurityChecking()])(
        legalize_bfloat16(keep_differences(mod))
    )
    functions = {gvar.name_hint: function for gvar, function in mod.functions_items()}
    kernels = {gvar: function for gvar, function in mod.functions_items() if isinstance(function, tirx.PrimFunc)}
    host, on_device = split(tvm.IRModule(kernels), target) if kernels else ({}, {})
    constants: list[tvm.runtime.Tensor] = []
    parts = [HostFunction(name, function, on_device).source for name, function in sorted(host.items())]
    parts += [
        DeviceFunction(name, function, constants).source
        for name, function in functions.items()
        if isinstance(function, relax.Function)
    ]
    sources = {name: source(name, kernel, target) for name, kernel in sorted(on_device.items())}
    return OpenClExecutable(Program("\n\n".join(parts), sources, [_as_torch(value) for value in constants], device))


def _as_torch(value: tvm.runtime.Tensor) -> torch.Tensor:
    if str(value.dtype) == "bfloat16":
        return torch.from_numpy(value.numpy().view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(value.numpy().copy())


__all__ = ["OpenClExecutable", "build_for_opencl", "why_no_device"]
