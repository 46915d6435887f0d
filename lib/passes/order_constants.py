"""``order-constants``: constants and literals at the start of the function, in order of first use.

Two captures of one program then print their constants in the same order.
"""

from __future__ import annotations

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass


class OrderConstants(Pass):
    """Move constants in front of everything else."""

    def run(self, module: TorchModule) -> None:
        for function in view.functions(module.mlir).values():
            if not function.regions[0].blocks:
                continue
            used: dict[ir.Value, ir.Operation] = {}
            for operation in view.walk(function):
                for operand in operation.operands:
                    owner = view.defining_op(operand)
                    if owner is not None and operand not in used and _is_constant(owner):
                        used[operand] = owner
            block = function.regions[0].blocks[0]
            ordered = list(used.values())
            for operation in reversed(ordered):
                first = block.operations[0].operation
                if first != operation:
                    operation.move_before(first)


def _is_constant(operation: ir.Operation) -> bool:
    return operation.name.startswith("torch.constant.") or operation.name == "torch.vtensor.literal"
