"""Pointwise kernels read back as an expression, and computed again on operands of another layout.

A PrimFunc with the attribute ``POINTWISE`` computes every element of its one result from the
elements at the same place of its operands, with NumPy's broadcasting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import te, tirx
from tvm.ir import TensorLoad
from tvm.tirx.buffer import is_buffer_var
from tvm_ffi.structural import structural_map, structural_walk

from torch_tvm.support.errors import Refusal
from torch_tvm.tir import broadcast_indices, broadcast_shape
from torch_tvm.workloads.workload import POINTWISE


@dataclass(frozen=True)
class Pointwise:
    """``value`` is the element's expression over loads of the buffers of ``operands``."""

    operands: tuple[tvm.ir.Var, ...]
    value: tvm.ir.Expr
    name: str

    def compute(self, *tensors: te.Tensor) -> te.Tensor:
        """The kernel over tensors that broadcast against each other; a rank-0 operand stays rank 0."""
        shape = broadcast_shape([list(tensor.shape) for tensor in tensors])

        def element(*indices: Any) -> tvm.ir.Expr:
            def swap(load: TensorLoad) -> tvm.ir.Expr:
                position = next(i for i, buffer in enumerate(self.operands) if buffer.same_as(load.source))
                return tensors[position](*broadcast_indices(tensors[position].shape, shape, indices))

            return structural_map(self.value, (TensorLoad, swap))

        return te.compute(shape, element, name="compute")


def read_pointwise(func: tirx.PrimFunc, name: str) -> Pointwise:
    """Read a kernel that :data:`POINTWISE` marks; :class:`Refusal` when it is none."""
    if not func.attrs or POINTWISE not in func.attrs:
        raise Refusal("the kernel is not marked as pointwise")
    if not all(is_buffer_var(parameter) for parameter in func.params):
        raise Refusal("the kernel takes sizes")
    stores: list[tirx.BufferStore] = []
    structural_walk(func.body, (tirx.BufferStore, stores.append))
    if len(stores) != 1 or not stores[0].buffer.same_as(func.params[-1]):
        raise Refusal("the kernel has several stages")
    return Pointwise(tuple(func.params[:-1]), stores[0].value, name)
