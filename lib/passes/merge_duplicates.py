"""``merge-duplicates``: one operation where several compute the same from the same operands.

Before::

    %1 = torch.aten.unsqueeze %0, %int0
    %2 = torch.aten.unsqueeze %0, %int0

After: one of them. Random ops and ops with regions stay.
"""

from __future__ import annotations

from typing import Any

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.passes.effects import has_effects


class MergeDuplicates(Pass):
    """Common subexpressions, within a block and the blocks inside it."""

    def run(self, module: TorchModule) -> None:
        for function in view.functions(module.mlir).values():
            for region in function.regions:
                for block in region.blocks:
                    self._block(block, {})

    def _block(self, block: ir.Block, seen: dict[Any, ir.Operation]) -> None:
        for op in list(block.operations):
            operation = op.operation
            if len(operation.regions):
                for region in operation.regions:
                    for inner in region.blocks:
                        self._block(inner, dict(seen))
                continue
            if not operation.results or has_effects(operation):
                continue
            key = (
                operation.name,
                tuple(operation.operands),
                _attributes(operation),
                tuple(str(result.type) for result in operation.results),
            )
            first = seen.setdefault(key, operation)
            if first is operation:
                continue
            for old, new in zip(operation.results, first.results, strict=True):
                old.replace_all_uses_with(new)
            operation.erase()


def _attributes(operation: ir.Operation) -> str:
    """Attributes as text; only constants, literals and named operators have any."""
    if not len(operation.attributes):
        return ""
    if operation.name == "torch.operator":
        return str(operation.attributes["name"])
    if operation.name.startswith("torch.constant."):
        return str(operation.attributes["value"])
    if operation.name == "torch.vtensor.literal":
        name = view.resource_name(operation)
        return name if name is not None else operation.get_asm(use_local_scope=True).split("=", 1)[1]
    return ", ".join(f"{key} = {operation.attributes[key]}" for key in sorted(operation.attributes))
