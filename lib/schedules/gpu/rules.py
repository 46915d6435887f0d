"""The schedule rules for GPUs, most specific first: our own, those of TVM's DLight, and what takes any kernel."""

from __future__ import annotations

import tvm
from tvm.s_tir import Schedule, dlight

from torch_tvm.schedules.gpu.attention import Attention
from torch_tvm.schedules.gpu.elementwise import Elementwise
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.gpu.plain_loops import bind_plain_loops
from torch_tvm.schedules.gpu.product import Product
from torch_tvm.schedules.gpu.reductions.reducers import checked_combiners, register_reducers
from torch_tvm.schedules.gpu.reductions.rows import Rows
from torch_tvm.schedules.gpu.reductions.scan import Scan
from torch_tvm.schedules.gpu.reductions.split_reduction import SplitReduction
from torch_tvm.schedules.gpu.spatial_loops import SpatialLoops
from torch_tvm.schedules.gpu.windows import Windows
from torch_tvm.schedules.rule import Rule
from torch_tvm.support.errors import Refusal


class Dlight:
    """A rule of DLight. It refuses without a reason, or by an error, whose text is then the reason."""

    def __init__(self, rule: type) -> None:
        self.name = f"dlight {rule.__name__}"
        self._rule = rule

    def apply(self, func: tvm.tirx.PrimFunc, gpu: GpuModel) -> tvm.tirx.PrimFunc:
        register_reducers()
        try:
            with gpu.target:
                found = self._rule().apply(func, gpu.target, False)
            if found is None:
                raise Refusal("not its workload")
            chosen: Schedule = found if isinstance(found, Schedule) else found[0]
            scheduled = checked_combiners(chosen.mod["main"])
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(str(error).splitlines()[-1] if str(error) else type(error).__name__) from error
        return scheduled


class PlainLoops:
    """Kernels that are loops already: see :mod:`torch_tvm.schedules.gpu.plain_loops`."""

    name = "plain loops"

    def apply(self, func: tvm.tirx.PrimFunc, gpu: GpuModel) -> tvm.tirx.PrimFunc:
        return bind_plain_loops(func, gpu)


RULES: tuple[Rule, ...] = (
    Attention(),
    Elementwise(),
    SplitReduction(),
    Product(),
    Rows(),
    Windows(),
    Dlight(dlight.gpu.Matmul),
    Dlight(dlight.gpu.GEMV),
    Dlight(dlight.gpu.Reduction),
    Dlight(dlight.gpu.GeneralReduction),
    SpatialLoops(),
    Scan(),
    PlainLoops(),
)
