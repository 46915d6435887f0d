"""The bits of bfloat16, which kernels keep as uint16.

TVM turns vectors of bfloat16 into float32 before code generation, and leaves integers and LLVM IR of our own alone.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir import broadcast


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
