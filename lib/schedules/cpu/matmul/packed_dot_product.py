"""Words: the 32 bits of one lane that ``vpdpbusd`` and ``vdpbf16ps`` multiply and add at once.

A word is four bytes or two bfloat16. The bits of a bfloat16 are kept as uint16: TVM turns vectors of bfloat16 into
float32 before code generation, and leaves integers and LLVM IR of our own alone.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.emit import with_llvm
from torch_tvm.tir import broadcast

PAIR = 2
"""bfloat16 values of a word."""

GROUP = 4
"""Bytes of a word."""

_NAME = {PAIR: "torch_tvm_dot_pairs", GROUP: "torch_tvm_dot_bytes"}


def _definition(size: int, total: str, elements: str, intrinsic: str) -> str:
    return f"""
declare {total} @{intrinsic}({total}, {elements}, {elements})
define linkonce_odr {total} @{_NAME[size]}({total} %sum, <16 x i32> %a, <16 x i32> %b) alwaysinline {{
  %x = bitcast <16 x i32> %a to {elements}
  %y = bitcast <16 x i32> %b to {elements}
  %r = call {total} @{intrinsic}({total} %sum, {elements} %x, {elements} %y)
  ret {total} %r
}}
"""


_DEFINITION = {
    PAIR: _definition(PAIR, "<16 x float>", "<32 x bfloat>", "llvm.x86.avx512bf16.dpbf16ps.512"),
    GROUP: _definition(GROUP, "<16 x i32>", "<64 x i8>", "llvm.x86.avx512.vpdpbusd.512"),
}


def dot(size: int, total: Expr, left: Expr, right: Expr) -> Expr:
    """``total + left · right``, lane by lane; ``left`` and ``right`` are vectors of words (int32) of ``size`` elements.

    Of a :data:`PAIR`, both are bfloat16 and ``total`` is float32; of a :data:`GROUP`, ``left`` is uint8, ``right`` int8
    and ``total`` int32. A body with this in it goes through :func:`with_dot`.
    """
    return tirx.call_pure_extern(str(total.ty.dtype), _NAME[size], total, left, right)


def with_dot(size: int, body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with the definition that :func:`dot` calls."""
    return with_llvm(_DEFINITION[size], body)


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
