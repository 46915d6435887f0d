"""The passes over every scheduled kernel, in order."""

from __future__ import annotations

import tvm

from torch_tvm.schedules.cpu.finish.temporaries import materialize_lets
from torch_tvm.schedules.cpu.finish.work_sharing import share_out
from torch_tvm.schedules.cpu.math.vector_math import vectorizable_math
from torch_tvm.schedules.storage import allow_any_address, in_root_block
from torch_tvm.schedules.target import CpuModel


def finish(func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc:
    """Vector math, temporaries in registers, any address, threads."""
    func = share_out(materialize_lets(vectorizable_math(func, cpu)), cpu)
    func = in_root_block(allow_any_address(func))
    return func.with_attr("tirx.is_scheduled", True)


__all__ = ["finish"]
