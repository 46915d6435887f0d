"""Schedules for GPUs: the default rules of TVM's DLight, most specific first."""

from __future__ import annotations

import tvm
from tvm.s_tir import Schedule, dlight

from torch_tvm.schedules.gpu.plain_loops import bind_plain_loops
from torch_tvm.schedules.rule import KernelDecision
from torch_tvm.support.errors import Refusal

PLAIN_LOOPS = "plain loops"

RULES = (
    dlight.gpu.Matmul,
    dlight.gpu.GEMV,
    dlight.gpu.Reduction,
    dlight.gpu.GeneralReduction,
    dlight.gpu.Fallback,
)


def schedule_gpu(mod: tvm.IRModule, target: tvm.target.Target) -> tuple[tvm.IRModule, list[KernelDecision]]:
    """Schedule every PrimFunc of ``mod`` that is not scheduled yet, and say which rule took it.

    A rule of DLight refuses without a reason, or by an error, whose text is then the reason.
    """
    result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
    decisions = []
    for gvar, func in mod.functions_items():
        if not isinstance(func, tvm.tirx.PrimFunc) or (func.attrs and "tirx.is_scheduled" in func.attrs):
            continue
        scheduled, decision = _schedule_kernel(gvar.name_hint, func, target)
        result.update_func(gvar, scheduled.with_attr("tirx.is_scheduled", True))
        decisions.append(decision)
    return result, decisions


def _schedule_kernel(
    name: str, func: tvm.tirx.PrimFunc, target: tvm.target.Target
) -> tuple[tvm.tirx.PrimFunc, KernelDecision]:
    refusals = {}
    for rule in RULES:
        try:
            with target:
                found = rule().apply(func, target, False)
        except Exception as error:
            refusals[_name(rule)] = str(error).splitlines()[-1] if str(error) else type(error).__name__
            continue
        if found is None:
            refusals[_name(rule)] = "not its workload"
            continue
        chosen = found if isinstance(found, Schedule) else found[0]
        return chosen.mod["main"], KernelDecision(name, _name(rule), refusals)
    try:
        return bind_plain_loops(func), KernelDecision(name, PLAIN_LOOPS, refusals)
    except Refusal as refusal:
        refusals[PLAIN_LOOPS] = refusal.reason
    return func, KernelDecision(name, "none", refusals)


def _name(rule: type) -> str:
    return f"dlight {rule.__name__}"


__all__ = ["RULES", "schedule_gpu"]
