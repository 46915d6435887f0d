"""What a schedule rule is, and what it decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import tvm

Choose = Callable[[str, tvm.tirx.PrimFunc, Mapping[str, tvm.tirx.PrimFunc]], str]
"""Given a kernel's name, the kernel and its schedules by label, the rule's own first: the label of one."""


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


__all__ = ["Choose", "KernelDecision", "Rule"]
