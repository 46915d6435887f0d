"""``eliminate-dead``: operations whose results nobody reads.

The dialect marks few ops as free of effects, so MLIR's own canonicaliser keeps most dead ones.
"""

from __future__ import annotations

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.passes.effects import has_effects


class EliminateDead(Pass):
    """Remove value-semantic operations without uses."""

    def run(self, module: TorchModule) -> None:
        for operation in reversed(list(view.walk(module.mlir))):
            if operation.results and not has_effects(operation) and not any(view.is_used(r) for r in operation.results):
                operation.erase()
