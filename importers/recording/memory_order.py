"""In which order a random op fills memory: numbers are drawn along it, so a transposed tensor gets others.

Values of the dialect have no strides. A random op whose operands are not contiguous says how they lie: an attribute
with, per operand, the axes from the outermost in memory to the innermost, and a last -1 for a tensor with gaps that
is drawn into in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._prims_common import (
    compute_elementwise_output_logical_to_physical_perm,
    is_non_overlapping_and_dense_or_false,
)

from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import MEMORY_ORDER
from torch_tvm.importers.recording.aliasing import is_dense

_FILLED = frozenset(
    f"aten::{name}"
    for name in "cauchy exponential geometric log_normal normal_functional random uniform".split()
)
"""Nobody but PyTorch calls these: they stand for the in-place op in a graph that was made functional."""


def note_memory_order(
    overload: torch._ops.OpOverload, values: Sequence[Any], operands: Sequence[Any], *, in_place: bool = False
) -> None:
    """Put the attribute on the op that gave ``values``, if it draws; ``operands`` are fake tensors and others."""
    if torch.Tag.nondeterministic_seeded not in overload.tags:
        return
    is_filled = in_place or overload._schema.name in _FILLED
    orders = [_order(operand, is_filled and index == 0) for index, operand in enumerate(operands)]
    if not any(orders) or not values or not isinstance(values[0], ir.Value):
        return
    op = values[0].owner
    arrays = [ir.DenseI64ArrayAttr.get(order, op.context) for order in orders]
    op.attributes[MEMORY_ORDER] = ir.ArrayAttr.get(arrays, op.context)


def _order(operand: Any, is_target: bool) -> list[int]:
    """The axes from the outermost in memory to the innermost; empty where the tensor is contiguous."""
    if not isinstance(operand, torch.Tensor):
        return []
    if any(isinstance(number, torch.SymInt) for number in (*operand.shape, *operand.stride())):
        return _order_of_unknown_sizes(operand)
    if is_dense(operand):
        return []
    order = list(compute_elementwise_output_logical_to_physical_perm(operand)[0])
    has_gaps = is_target and not is_non_overlapping_and_dense_or_false(operand)
    return [*order, -1] if has_gaps else order


def _order_of_unknown_sizes(operand: torch.Tensor) -> list[int]:
    """The order at the sizes of the example, without a question that would become a condition on sizes."""
    strides = [_hint(stride) for stride in operand.stride()]
    if None in strides:
        return []
    order = sorted(range(operand.dim()), key=lambda axis: -(strides[axis] or 0))
    return [] if order == list(range(operand.dim())) else order


def _hint(number: int | torch.SymInt) -> int | None:
    hint = number if isinstance(number, int) else number.node.hint
    return None if hint is None else int(hint)


__all__ = ["note_memory_order"]
