"""From a target to the rules that know it."""

from __future__ import annotations

import tvm

from torch_tvm.schedules.cpu.schedule import schedule_cpu
from torch_tvm.schedules.rule import Choose, KernelDecision


def schedule(
    mod: tvm.IRModule, target: tvm.target.Target, *, choose: Choose | None = None
) -> tuple[tvm.IRModule, list[KernelDecision]]:
    """Schedule every PrimFunc of ``mod`` that is not scheduled yet; other functions stay as they are.

    ``choose`` picks among the candidates of a CPU's rules that have some; without it rules decide alone.
    """
    if target.kind.name == "llvm":
        return schedule_cpu(mod, target, choose=choose)
    from torch_tvm.schedules.gpu import schedule_gpu  # imports DLight

    return schedule_gpu(mod, target)


__all__ = ["schedule"]
