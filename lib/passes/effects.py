"""Which operations do more than compute their results."""

from __future__ import annotations

from torch_tvm.aten.calls import is_random
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir

_EFFECTFUL = {"torch.symbolic_int", "torch.bind_symbolic_shape", "torch.prim.RaiseException"}


def has_effects(operation: ir.Operation) -> bool:
    """Terminators, metadata, raising, random draws, ops outside ATen, and whatever holds one of these."""
    name = view.op_name(operation)
    if name in _EFFECTFUL or not name.startswith("torch."):
        return True
    if len(operation.results) == 0 or is_random(name):
        return True
    if operation.name == "torch.operator" and not name.startswith("torch.aten."):
        return True
    inner = [op for region in operation.regions for block in region.blocks for op in list(block.operations)[:-1]]
    return any(has_effects(op.operation) for op in inner)
