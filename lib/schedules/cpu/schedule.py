"""Offers each kernel of a module to the CPU's rules."""

from __future__ import annotations

import tvm

from torch_tvm.schedules.cpu.finish.kernel import finish
from torch_tvm.schedules.cpu.rules import RULES
from torch_tvm.schedules.rule import Choose, KernelDecision, Rule
from torch_tvm.schedules.sizes import NamedSizes, name_sizes
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal


def schedule_cpu(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    *,
    choose: Choose | None = None,
) -> tuple[tvm.IRModule, list[KernelDecision]]:
    """Schedule every PrimFunc of ``mod`` that is not scheduled yet; other functions stay as they are.

    ``choose`` picks among the candidates of rules that have some; without it rules decide alone.
    """
    cpu = CpuModel.from_target(target)
    decisions = []
    updates = {}
    for gvar, func in mod.functions_items():
        if not isinstance(func, tvm.tirx.PrimFunc):
            continue
        if func.attrs and "tirx.is_scheduled" in func.attrs:
            updates[gvar] = finish(func, cpu)
            continue
        refusals: dict[str, str] = {}
        named = name_sizes(func)
        for rule in RULES:
            try:
                scheduled = _apply(rule, gvar.name_hint, named, cpu, choose)
            except Refusal as refusal:
                refusals[rule.name] = refusal.reason
                continue
            updates[gvar] = scheduled
            decisions.append(KernelDecision(gvar.name_hint, rule.name, refusals))
            break
        else:
            updates[gvar] = finish(func, cpu)
            decisions.append(KernelDecision(gvar.name_hint, "none", refusals))
    result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
    for gvar, func in updates.items():
        result.update_func(gvar, func)
    return result, decisions


def _apply(
    rule: Rule, name: str, named: NamedSizes, cpu: CpuModel, choose: Choose | None
) -> tvm.tirx.PrimFunc:
    func = named.func
    if choose is None or not hasattr(rule, "candidates"):
        return finish(named.bound(rule.apply(func, cpu)), cpu)
    schedules = rule.candidates(func, cpu)
    candidates = {label: finish(named.bound(scheduled), cpu) for label, scheduled in schedules.items()}
    return candidates[choose(name, named.original, candidates)]


__all__ = ["schedule_cpu"]
