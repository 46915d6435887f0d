"""Schedules the kernels of a module: each is offered to the rules of a target, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm.tirx import PrimFunc

from torch_tvm.schedules.rule import Choose, KernelDecision, Offer, Rule
from torch_tvm.schedules.sizes import NamedSizes
from torch_tvm.support.errors import Refusal

Finish = Callable[[PrimFunc, Any], PrimFunc]


def offer(
    mod: tvm.IRModule,
    rules: Sequence[Rule],
    machine: Any,
    prepare: Callable[[PrimFunc], NamedSizes],
    finish: Finish,
    choose: Choose | None = None,
) -> tuple[tvm.IRModule, list[KernelDecision]]:
    """Schedule every PrimFunc of ``mod`` that is not scheduled yet; other functions stay as they are.

    Rules are asked in their order, with what they know the target by; the first that does not refuse takes the kernel.
    Kernels that are scheduled already are finished too. ``choose`` may take another schedule than the rule's.
    """
    decisions = []
    updates = {}
    for gvar, func in mod.functions_items():
        if not isinstance(func, PrimFunc):
            continue
        if func.attrs and "tirx.is_scheduled" in func.attrs:
            updates[gvar] = finish(func, machine)
            continue
        refusals: dict[str, str] = {}
        named = prepare(func)
        for rule in rules:
            try:
                scheduled = _apply(rule, gvar.name_hint, named, machine, finish, choose)
            except Refusal as refusal:
                refusals[rule.name] = refusal.reason
                continue
            updates[gvar] = scheduled
            decisions.append(KernelDecision(gvar.name_hint, rule.name, refusals))
            break
        else:
            updates[gvar] = finish(func, machine)
            decisions.append(KernelDecision(gvar.name_hint, "none", refusals))
    result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
    for gvar, func in updates.items():
        result.update_func(gvar, func)
    return result, decisions


def _apply(rule: Rule, name: str, named: NamedSizes, machine: Any, finish: Finish, choose: Choose | None) -> PrimFunc:
    own = finish(named.bound(rule.apply(named.func, machine)), machine)
    if choose is None:
        return own

    def candidates() -> dict[str, PrimFunc]:
        if not hasattr(rule, "candidates"):
            return {rule.name: own}
        schedules = rule.candidates(named.func, machine)
        return {label: finish(named.bound(each), machine) for label, each in schedules.items()}

    return choose(Offer(name, named.original, own, candidates, lambda func: finish(func, machine)))


__all__ = ["offer"]
