"""The table of canonicalization patterns: for each op the function that writes it in ops of the canonical set."""

from __future__ import annotations

from collections.abc import Callable

from torch_tvm.dialect.mlir import ir
from torch_tvm.passes.patterns.rewriting import Rewriter

Pattern = Callable[[Rewriter, ir.Operation], ir.Value | None]

PATTERNS: dict[str, Pattern] = {}


def pattern_for(*names: str) -> Callable[[Pattern], Pattern]:
    """Register a pattern for ops; it returns the value that replaces the op's (first) result, or ``None``."""

    def decorate(pattern: Pattern) -> Pattern:
        for name in names:
            assert f"torch.{name}" not in PATTERNS, name
            PATTERNS[f"torch.{name}"] = pattern
        return pattern

    return decorate
