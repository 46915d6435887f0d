"""The schedule rules for GPUs, most specific first: those of TVM's DLight, then plain loops."""

from __future__ import annotations

import tvm
from tvm.s_tir import Schedule, dlight

from torch_tvm.schedules.gpu.plain_loops import bind_plain_loops
from torch_tvm.schedules.rule import Rule
from torch_tvm.support.errors import Refusal


class Dlight:
    """A rule of DLight. It refuses without a reason, or by an error, whose text is then the reason."""

    def __init__(self, rule: type) -> None:
        self.name = f"dlight {rule.__name__}"
        self._rule = rule

    def apply(self, func: tvm.tirx.PrimFunc, target: tvm.target.Target) -> tvm.tirx.PrimFunc:
        try:
            with target:
                found = self._rule().apply(func, target, False)
        except Exception as error:
            raise Refusal(str(error).splitlines()[-1] if str(error) else type(error).__name__) from error
        if found is None:
            raise Refusal("not its workload")
        chosen = found if isinstance(found, Schedule) else found[0]
        return chosen.mod["main"]


class PlainLoops:
    """Kernels that are loops already: see :mod:`torch_tvm.schedules.gpu.plain_loops`."""

    name = "plain loops"

    def apply(self, func: tvm.tirx.PrimFunc, target: tvm.target.Target) -> tvm.tirx.PrimFunc:
        return bind_plain_loops(func)


RULES: tuple[Rule, ...] = (
    Dlight(dlight.gpu.Matmul),
    Dlight(dlight.gpu.GEMV),
    Dlight(dlight.gpu.Reduction),
    Dlight(dlight.gpu.GeneralReduction),
    Dlight(dlight.gpu.Fallback),
    PlainLoops(),
)
