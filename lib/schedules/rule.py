"""What a schedule rule is, and the one driver that offers kernels to rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import tvm

from torch_tvm.schedules.sizes import NamedSizes, name_sizes
from torch_tvm.schedules.storage import allow_any_address, in_root_block
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal

Choose = Callable[[str, tvm.tirx.PrimFunc, Mapping[str, tvm.tirx.PrimFunc]], str]
"""Given a kernel's name, the kernel and its schedules by label, the rule's own first: the label of one."""


class Rule(Protocol):
    """One workload: ``apply`` returns the scheduled function or raises :class:`Refusal` with its reason.

    A rule may have ``candidates(func, cpu)`` as well: a few schedules by label, that of ``apply`` first.
    """

    name: str

    def apply(self, func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc: ...


@dataclass(frozen=True)
class KernelDecision:
    """Which rule took a kernel, and why the ones before it refused."""

    kernel: str
    rule: str
    refusals: dict[str, str] = field(default_factory=dict)


def schedule(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    rules: Sequence[Rule] | None = None,
    *,
    choose: Choose | None = None,
) -> tuple[tvm.IRModule, list[KernelDecision]]:
    """Schedule every PrimFunc of ``mod`` that is not scheduled yet; other functions stay as they are.

    ``choose`` picks among the candidates of rules that have some; without it rules decide alone.
    """
    if target.kind.name != "llvm":
        from torch_tvm.schedules.gpu import schedule_gpu

        return schedule_gpu(mod, target)
    if rules is None:
        from torch_tvm.schedules.cpu import RULES

        rules = RULES
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
        for rule in rules:
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


def finish(func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc:
    """What every kernel needs, whoever scheduled it: vector math, temporaries in registers, any address, threads."""
    from torch_tvm.schedules.cpu.sharing import share_out
    from torch_tvm.schedules.cpu.temporaries import materialize_lets
    from torch_tvm.schedules.cpu.vector_math import vectorizable_math

    func = share_out(materialize_lets(vectorizable_math(func, cpu)), cpu)
    func = in_root_block(allow_any_address(func))
    return func.with_attr("tirx.is_scheduled", True)
