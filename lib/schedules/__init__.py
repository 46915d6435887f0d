"""Deterministic TIR schedule rules.

``offer`` offers each kernel of a module to the rules of its target in order; the first that does not refuse takes it.
The decisions come back for the report.
"""

from torch_tvm.schedules.offer import offer
from torch_tvm.schedules.rule import KernelDecision, Rule

__all__ = ["KernelDecision", "Rule", "offer"]
