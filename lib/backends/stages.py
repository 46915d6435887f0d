"""The stages of a compile after lowering, by the backend of the target."""

from __future__ import annotations

from collections.abc import Sequence

import tvm

from torch_tvm.backends.backend import Executable
from torch_tvm.backends.registry import backend_of
from torch_tvm.schedules.offer import offer
from torch_tvm.schedules.rule import Choose, KernelDecision, Rule
from torch_tvm.transforms.base import Level, Transform
from torch_tvm.transforms.pipeline import COMMON, After, run


def optimize(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    *,
    accuracy: str = "default",
    level: int = Level.LAYOUTS,
    after: After | None = None,
) -> tvm.IRModule:
    """Relax ops on whole tensors in, fused PrimFuncs and calls to them out (unscheduled).

    ``level`` is the ``opt_level``. ``after`` is told of each transform that has run.
    """
    return run(mod, target, pipeline(target, accuracy, level), after)


def pipeline(target: tvm.target.Target, accuracy: str = "default", level: int = Level.LAYOUTS) -> tuple[Transform, ...]:
    """The transforms of :func:`optimize`, in order."""
    transforms = (*backend_of(target).graph_passes(target, accuracy), *COMMON)
    return tuple(transform for transform in transforms if transform.level <= level)


def schedule(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    *,
    choose: Choose | None = None,
    rules: Sequence[Rule] = (),
) -> tuple[tvm.IRModule, list[KernelDecision]]:
    """Schedule every PrimFunc of ``mod`` that is not scheduled yet; other functions stay as they are.

    ``choose`` may take another schedule than a rule's; without it rules decide alone. ``rules`` are asked before those
    of the target.
    """
    backend = backend_of(target)
    return offer(mod, [*rules, *backend.rules()], backend.machine(target), backend.prepare, backend.finish, choose)


def build(mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True) -> Executable:
    """Lower Relax to VM code and TIR to machine code: ``mod`` is what :func:`schedule` returned.

    Code for another machine is not ``is_native``.
    """
    return backend_of(target).build(mod, target, is_native=is_native)
