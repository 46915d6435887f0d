"""What a schedule rule is, and what it decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import tvm


@dataclass(frozen=True)
class Offer:
    """A kernel that a rule takes: as it was, and as the rule schedules it, finished.

    ``candidates()`` are the rule's schedules by label, its own first; one where the rule has no others. ``finish``
    gives a schedule of somebody else's what every kernel needs.
    """

    kernel: str
    original: tvm.tirx.PrimFunc
    own: tvm.tirx.PrimFunc
    candidates: Callable[[], Mapping[str, tvm.tirx.PrimFunc]]
    finish: Callable[[tvm.tirx.PrimFunc], tvm.tirx.PrimFunc]


Choose = Callable[[Offer], tvm.tirx.PrimFunc]
"""Given what a rule makes of a kernel, the schedule to use."""


class Rule(Protocol):
    """One workload: ``apply`` returns the scheduled function or raises :class:`Refusal` with its reason.

    ``machine`` is how the backend describes its target: a :class:`CpuModel`, or the target itself.
    A rule may have ``candidates(func, machine)`` as well: a few schedules by label, that of ``apply`` first.
    """

    name: str

    def apply(self, func: tvm.tirx.PrimFunc, machine: Any, /) -> tvm.tirx.PrimFunc: ...


@dataclass(frozen=True)
class KernelDecision:
    """Which rule took a kernel, and why the ones before it refused."""

    kernel: str
    rule: str
    refusals: dict[str, str] = field(default_factory=dict)


__all__ = ["Choose", "KernelDecision", "Offer", "Rule"]
