"""Products of bfloat16 matrices with ``vdpbf16ps``: two products are added to a float32 at once.

    C[b, m, n] = epilogue(sum_k widen(round(A[b, m, k])) * widen(packed[n // NR, k // 2, n % NR * 2 + k % 2]))

A is float32 and rounded as its rows are copied, the weights came packed as the bits of bfloat16
(:mod:`torch_tvm.transforms.bfloat16_weights`). The loop nest is that of
:mod:`torch_tvm.schedules.cpu.int8_matmul` with two elements of the reduction in a turn.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.contraction import Contraction, loads, read_contraction, variables
from torch_tvm.schedules.cpu.emit import broadcast, with_llvm
from torch_tvm.schedules.cpu.int8_matmul import Int8Emitter, Operands, choose_int8_tiling, packed_width
from torch_tvm.schedules.cpu.vector_math import vectorizable_math
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal

PAIR = 2
"""bfloat16 values that one lane of the instruction multiplies and adds."""

FUNCTION = "torch_tvm_dot_bf16"

WRAPPER = f"""
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define linkonce_odr <16 x float> @{FUNCTION}(<16 x float> %sum, <16 x i32> %a, <16 x i32> %b) alwaysinline {{
  %x = bitcast <16 x i32> %a to <32 x bfloat>
  %y = bitcast <16 x i32> %b to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> %sum, <32 x bfloat> %x, <32 x bfloat> %y)
  ret <16 x float> %r
}}
"""
"""TVM turns vectors of bfloat16 into float32 before code generation; LLVM IR of our own is left alone."""


class Bfloat16Matmul:
    """Products with weights packed in pairs of bfloat16, where the target has ``vdpbf16ps``."""

    name = "bfloat16_matmul"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        if not any(str(getattr(param, "dtype", "")) == "uint16" for param in func.params):
            raise Refusal("no operand is packed as bfloat16")
        if not cpu.has_bf16:
            raise Refusal("the target has no vdpbf16ps")
        contraction = read_contraction(func)
        operands = read_bfloat16_operands(contraction)
        tiling = choose_int8_tiling(contraction, operands, cpu)
        body = Bfloat16Emitter(contraction, operands, tiling).emit()
        imported = with_llvm(WRAPPER, body)
        return vectorizable_math(func.with_body(imported))


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
    width = packed_width(rhs, c, PAIR, extra=0)
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

    def dot(self, total: Expr, left: Expr, right: Expr) -> Expr:
        return tirx.call_pure_extern(str(total.ty.dtype), FUNCTION, total, left, right)


def rounded_bits(value: Expr, lanes: int = 1) -> Expr:
    """A float32 (or ``lanes`` of them) as the bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    constant = lambda number: broadcast(tirx.const(number, "uint32"), lanes)
    suffix = f"x{lanes}" if lanes > 1 else ""
    bits = tirx.reinterpret(f"uint32{suffix}", value)
    half = constant(0x7FFF) + ((bits >> constant(16)) & constant(1))
    nan = (bits & constant(0x7FFFFFFF)) > constant(0x7F800000)
    rounded = tirx.Select(nan, bits | constant(0x400000), bits + half)
    return (rounded >> constant(16)).astype(f"uint16{suffix}")


def widened(bits: Expr) -> Expr:
    """The bits of a bfloat16 as a float32, exactly."""
    return tirx.reinterpret("float32", bits.astype("uint32") << tirx.const(16, "uint32"))
