"""Schedule rules for CPUs, most specific first."""

from torch_tvm.schedules.rule import Rule

RULES: tuple[Rule, ...] = ()
