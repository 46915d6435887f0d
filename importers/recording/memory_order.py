"""In which order a random op fills memory: numbers are drawn along it, so a transposed tensor gets others.

Values of the dialect have no strides. A random op whose operands are not contiguous says how they lie: an attribute
with, per operand, the axes from the outermost in memory to the innermost, and for a tensor that is drawn into in place
a last number: -1 where it has gaps, else -2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch._prims_common import (
    compute_elementwise_output_logical_to_physical_perm,
    is_non_overlapping_and_dense_or_false,
)

from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import MEMORY_ORDER
from torch_tvm.importers.recording.argument_strides import is_dense

_FILLED = frozenset(
    f"aten::{name}" for name in "cauchy exponential geometric log_normal normal_functional random uniform".split()
)
"""Nobody but PyTorch calls these: they stand for the in-place op in a graph that was made functional."""


def note_memory_order(
    overload: torch._ops.OpOverload,
    values: Sequence[Any],
    operands: Sequence[Any],
    *,
    in_place: bool = False,
    is_guarded: bool = False,
) -> bool:
    """Put the attribute on the op that gave ``values``, which draws; ``operands`` are fake tensors and others.

    Returns whether what it draws depends on the strides of an argument of the program, and nothing but the caller's
    care makes the next call's the same: with ``is_guarded`` PyTorch compiles anew for other strides, and has turned
    ``bernoulli_`` into ``bernoulli``.
    """
    name = overload._schema.name
    is_filled = in_place or name in _FILLED or (is_guarded and overload is torch.ops.aten.bernoulli.p)
    orders = [_order(operand, is_filled and index == 0, is_guarded) for index, operand in enumerate(operands)]
    if not values or not isinstance(values[0], ir.Value):
        return False
    op = values[0].owner
    if any(orders):
        arrays = [ir.DenseI64ArrayAttr.get(order, op.context) for order in orders]
        op.attributes[MEMORY_ORDER] = ir.ArrayAttr.get(arrays, op.context)
    return not is_guarded and _reads_arguments(op)


def _reads_arguments(op: ir.Operation) -> bool:
    """Whether a tensor that the op reads is made of an argument, whose strides it may have."""
    seen: set[int] = set()
    left = list(op.operands)
    while left:
        value = left.pop()
        if "vtensor" not in str(value.type):
            continue
        if isinstance(value.owner, ir.Block):
            if not str(value.type).startswith("!torch.vtensor<[],"):
                return True
            continue
        if hash(value.owner) in seen:
            continue
        seen.add(hash(value.owner))
        if len(value.owner.regions):
            return True
        left += value.owner.operands
    return False


def _order(operand: Any, is_target: bool, is_guarded: bool) -> list[int]:
    """The axes from the outermost in memory to the innermost; empty where the tensor is contiguous."""
    if not isinstance(operand, torch.Tensor):
        return []
    is_open = any(isinstance(number, torch.SymInt) for number in (*operand.shape, *operand.stride()))
    may_ask = is_guarded or not is_open  # a question about such a size would become a condition
    if may_ask and is_dense(operand):
        return []
    if is_open:
        order = _order_of_unknown_sizes(operand, is_guarded)
    else:
        order = list(compute_elementwise_output_logical_to_physical_perm(operand)[0])
    if not order or not is_target:
        return order
    has_gaps = may_ask and not is_non_overlapping_and_dense_or_false(operand)
    return [*order, -1 if has_gaps else -2]


def _order_of_unknown_sizes(operand: torch.Tensor, is_guarded: bool) -> list[int]:
    """The order at the sizes of the example: a condition where those are guarded, else no question becomes one."""
    hints = [_hint(stride) for stride in operand.stride()]
    if None in hints:
        return []
    strides = operand.stride()
    order = sorted(range(operand.dim()), key=lambda axis: -(hints[axis] or 0))
    if is_guarded:
        assert all(strides[outer] >= strides[inner] for outer, inner in pairwise(order))
        return order
    return [] if order == list(range(operand.dim())) else order


def _hint(number: int | torch.SymInt) -> int | None:
    hint = number if isinstance(number, int) else number.node.hint
    return None if hint is None else int(hint)


__all__ = ["note_memory_order"]
