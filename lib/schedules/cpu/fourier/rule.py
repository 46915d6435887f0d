"""Takes the kernels that a :class:`~torch_tvm.workloads.fourier.FourierWorkload` describes."""

from __future__ import annotations

from tvm import tirx

from torch_tvm.schedules.cpu.fourier.kernel import Kernel
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import elements, flat_sequence
from torch_tvm.workloads.fourier import FourierWorkload


class Fourier:
    """See the text of :mod:`torch_tvm.schedules.cpu.fourier.kernel`."""

    name = "fourier"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        workload = FourierWorkload.from_attr(func.attrs)
        if workload is None:
            raise Refusal("no Fourier transform")
        buffers = [p for p in func.params if isinstance(p.ty, tirx.BufferType)]
        source, roots, target = buffers[0], buffers[1], buffers[-1]
        twiddles = buffers[2] if workload.twiddles else None
        flat = {
            buffer: tirx.decl_buffer((elements(buffer.shape),), str(buffer.dtype), f"{buffer.name}_flat")
            for buffer in buffers
        }
        kernel = Kernel(
            workload,
            flat[source],
            flat[roots],
            flat[twiddles] if twiddles is not None else None,
            flat[target],
            outer=source.shape[0],
            count=source.shape[1 if workload.rows_in else 2],
            lanes=cpu.lanes(str(source.dtype)),
            widest=8 if cpu.vector_registers >= 32 else 4,
        )
        views = [tirx.DeclBuffer(view, data=buffer.data) for buffer, view in flat.items()]
        return func.with_body(flat_sequence([*views, kernel.body()])).without_attr(FourierWorkload.ATTRIBUTE)
