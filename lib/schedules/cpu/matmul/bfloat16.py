"""Products of bfloat16 matrices with ``vdpbf16ps``: two products are added to a float32 at once.

    C[b, m, n] = epilogue(sum_k widen(round(A[b, m, k])) * widen(packed[n // NR, k // 2, n % NR * 2 + k % 2]))

A is float32 and rounded as its rows are copied, the weights came packed as the bits of bfloat16
(:mod:`torch_tvm.transforms.matmul.packed_products`). The loop nest is that of
:mod:`torch_tvm.schedules.cpu.matmul.int8` with two elements of the reduction in an iteration.
"""

from __future__ import annotations

import tvm_ffi
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.matmul.bfloat16_bits import rounded_bits
from torch_tvm.schedules.cpu.matmul.contraction import Contraction
from torch_tvm.schedules.cpu.matmul.int8 import Int8Emitter, Operands, PackedDotMatmul, packed_width
from torch_tvm.schedules.cpu.matmul.tiling import MatmulTiling
from torch_tvm.schedules.instructions.dots import PAIR
from torch_tvm.schedules.instructions.instruction import PackedDot
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import loads, variables


class Bfloat16Matmul(PackedDotMatmul):
    """Products with weights packed in pairs of bfloat16, where the target has ``vdpbf16ps``."""

    name, word, dtype = "bfloat16_matmul", PAIR, "uint16"
    is_absent = "no operand is packed as bfloat16"

    def operands(self, c: Contraction) -> Operands:
        return read_bfloat16_operands(c)

    def emitter(self, c: Contraction, operands: Operands, tiling: MatmulTiling, dot: PackedDot) -> Int8Emitter:
        return Bfloat16Emitter(c, operands, tiling, dot)


def read_bfloat16_operands(c: Contraction) -> Operands:
    """What the product multiplies, or :class:`Refusal`."""
    if c.acc_dtype != "float32" or not c.rows or not c.reduce.size:
        raise Refusal("no float32 sums of constant length for at least one row")
    lhs, rhs = _one_load(c.lhs), _one_load(c.rhs)
    if str(lhs.source.dtype) != "float32" or str(rhs.source.dtype) != "uint16":
        raise Refusal(f"operands of {lhs.source.dtype} and {rhs.source.dtype}")
    *outer, last = lhs.indices
    if not last.same_as(c.reduce.var) or any(c.reduce.var in variables(i) for i in outer):
        raise Refusal("the left operand is not contiguous along the reduction")
    width = packed_width(c, PAIR)
    if not width:
        raise Refusal("the weights are not packed in pairs")
    return Operands(lhs, rhs, False, width)


def _one_load(value: Expr) -> TensorLoad:
    found = loads(value)
    if not found or any(not tvm_ffi.structural_equal(load, found[0]) for load in found):
        raise Refusal("an operand is more than the rounding of one tensor")
    return found[0]


class Bfloat16Emitter(Int8Emitter):
    """The loop nest of a product with pairs of bfloat16."""

    group = PAIR
    sum_dtype = "float32"

    def must_copy(self) -> bool:
        return True

    def left_dtype(self) -> str:
        return "uint16"

    def converted(self, value: Expr, count: int) -> Expr:
        return rounded_bits(value, count)
