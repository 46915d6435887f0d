"""Which operations do more than compute their results."""

from __future__ import annotations

from functools import lru_cache

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir

_EFFECTFUL = {"torch.symbolic_int", "torch.bind_symbolic_shape", "torch.prim.RaiseException"}


@lru_cache(maxsize=4096)
def is_random(name: str) -> bool:
    """Whether an ATen op draws from torch's generator."""
    parts = name.split(".")
    packet = (
        getattr(torch.ops.aten, parts[2], None) if name.startswith("torch.aten.") and len(parts) > 2 else None
    )
    if packet is None:
        return False
    overload = ".".join(parts[3:]) or "default"
    found = getattr(packet, overload, None)
    return found is not None and torch.Tag.nondeterministic_seeded in found.tags


def has_effects(operation: ir.Operation) -> bool:
    """Terminators, metadata, raising, random draws, ops outside ATen, and whatever holds one of these."""
    name = view.op_name(operation)
    if name in _EFFECTFUL or not name.startswith("torch."):
        return True
    if len(operation.results) == 0 or is_random(name):
        return True
    if operation.name == "torch.operator" and not name.startswith("torch.aten."):
        return True
    inner = [
        op for region in operation.regions for block in region.blocks for op in list(block.operations)[:-1]
    ]
    return any(has_effects(op.operation) for op in inner)
