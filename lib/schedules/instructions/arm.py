"""AArch64 with NEON: products of bytes and of bfloat16, and maxima that keep NaN.

Formulas are those of the Arm Architecture Reference Manual for A-profile.
"""

from __future__ import annotations

from torch_tvm.schedules.instructions.dots import (
    BYTES_SYMBOL,
    GROUP,
    PAIR,
    PAIRS_SYMBOL,
    body,
    plain_bytes,
    plain_pairs,
    splat,
)
from torch_tvm.schedules.instructions.instruction import PackedDot
from torch_tvm.schedules.instructions.maxima import Extremum

ARCHITECTURE = "aarch64"
BITS = 128
LANES = BITS // 32

USDOT = PackedDot(
    name="usdot",
    computes="total[i] + sum_j uint8(left[i], j) * int8(right[i], j), modulo 2**32; j < 4",
    architecture=ARCHITECTURE,
    features=("i8mm",),
    bits=BITS,
    size=GROUP,
    symbol=BYTES_SYMBOL,
    result="i32",
    operands=("i8", "i8"),
    intrinsic="llvm.aarch64.neon.usdot.v4i32.v16i8",
    plain=plain_bytes(LANES),
)

_DOT = "call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8"

SDOT = PackedDot(
    name="sdot",
    computes="total[i] + sum_j int8(left[i] ^ 0x80, j) * int8(right[i], j) + 128 * sum_j int8(right[i], j); j < 4",
    architecture=ARCHITECTURE,
    features=("dotprod",),
    bits=BITS,
    size=GROUP,
    symbol=BYTES_SYMBOL,
    result="i32",
    operands=("i8", "i8"),
    intrinsic="llvm.aarch64.neon.sdot.v4i32.v16i8",
    # It takes signed bytes on both sides: a is (a - 128) + 128. Rows of a tile share the sums of b.
    native=body(
        [
            "%u = bitcast <4 x i32> %a to <16 x i8>",
            f"%x = xor <16 x i8> %u, {splat(-128, 16, 'i8')}",
            "%y = bitcast <4 x i32> %b to <16 x i8>",
            f"%ones = {_DOT}(<4 x i32> zeroinitializer, <16 x i8> {splat(1, 16, 'i8')}, <16 x i8> %y)",
            f"%more = shl <4 x i32> %ones, {splat(7, 4)}",
            f"%dot = {_DOT}(<4 x i32> %sum, <16 x i8> %x, <16 x i8> %y)",
            "%r = add <4 x i32> %dot, %more",
        ],
        "<4 x i32> %r",
    ),
    plain=plain_bytes(LANES),
)

BFDOT = PackedDot(
    name="bfdot",
    computes="total[i] + sum_j bfloat16(left[i], j) * bfloat16(right[i], j), in float32; j < 2",
    architecture=ARCHITECTURE,
    features=("bf16",),
    bits=BITS,
    size=PAIR,
    symbol=PAIRS_SYMBOL,
    result="float",
    operands=("bfloat", "bfloat"),
    intrinsic="llvm.aarch64.neon.bfdot.v4f32.v8bf16",
    plain=plain_pairs(LANES),
)

FMAX = Extremum("fmax", "max(a, b), NaN if either is", architecture=ARCHITECTURE, is_largest=True)
FMIN = Extremum("fmin", "min(a, b), NaN if either is", architecture=ARCHITECTURE, is_largest=False)

INSTRUCTIONS = (USDOT, SDOT, BFDOT, FMAX, FMIN)
