"""``order-operations``: each block in the one order that its results ask for.

Operations stand in depth-first order of the terminator's operands, operations with effects in the order in
which they came. Two captures of one program that differ in nothing but order print the same text.
"""

from __future__ import annotations

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.passes.effects import has_effects


class OrderOperations(Pass):
    """Put operations in depth-first order of use."""

    def run(self, module: TorchModule) -> None:
        for function in view.functions(module.mlir).values():
            for region in function.regions:
                for block in region.blocks:
                    _order(block)


def _order(block: ir.Block) -> None:
    operations = [op.operation for op in block.operations]
    positions = {operation: index for index, operation in enumerate(operations)}
    needs = [_needed(operation, positions) for operation in operations]
    for operation in operations:
        for region in operation.regions:
            for inner in region.blocks:
                _order(inner)
    order: list[int] = []
    done: set[int] = set()
    roots = [index for index, operation in enumerate(operations[:-1]) if has_effects(operation)]
    for root in [*roots, len(operations) - 1]:
        _visit(root, needs, done, order)
    terminator = operations[-1]
    for index in order[:-1]:
        operations[index].move_before(terminator)


def _needed(operation: ir.Operation, positions: dict[ir.Operation, int]) -> list[int]:
    """Positions of the operations in the same block that this one, or a region of it, reads."""
    found: dict[int, None] = {}
    for reader in [operation, *view.walk(operation)]:
        for operand in reader.operands:
            owner = view.defining_op(operand)
            if owner is not None and owner in positions:
                found[positions[owner]] = None
    return list(found)


def _visit(root: int, needs: list[list[int]], done: set[int], order: list[int]) -> None:
    """Post-order without recursion: models are deeper than Python's stack."""
    stack = [(root, iter(needs[root]))]
    while stack:
        node, pending = stack[-1]
        if node in done:
            stack.pop()
            continue
        following = next((n for n in pending if n not in done), None)
        if following is None:
            done.add(node)
            order.append(node)
            stack.pop()
        else:
            stack.append((following, iter(needs[following])))
