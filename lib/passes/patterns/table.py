"""The table of spelling rules: for each op the function that spells it as the canonical op set does."""

from __future__ import annotations

from collections.abc import Callable

from torch_tvm.dialect.mlir import ir
from torch_tvm.passes.patterns.rewriting import Rewriter

Rule = Callable[[Rewriter, ir.Operation], ir.Value | None]

RULES: dict[str, Rule] = {}


def respells(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ops; it returns the value that replaces the op's (first) result, or ``None``."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            assert f"torch.{name}" not in RULES, name
            RULES[f"torch.{name}"] = rule
        return rule

    return decorate
