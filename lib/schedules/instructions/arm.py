"""AArch64 with NEON: products of bytes and of bfloat16, and maxima that keep NaN.

Formulas are those of the Arm Architecture Reference Manual for A-profile.
"""

from __future__ import annotations

from torch_tvm.schedules.instructions.dots import body, dot_of_bytes, dot_of_pairs, splat
from torch_tvm.schedules.instructions.maxima import Extremum

ARCHITECTURE = "aarch64"
BITS = 128

USDOT = dot_of_bytes(
    "usdot",
    BITS,
    architecture=ARCHITECTURE,
    features=("i8mm",),
    intrinsic="llvm.aarch64.neon.usdot.v4i32.v16i8",
)

_DOT = "call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8"

SDOT = dot_of_bytes(
    "sdot",
    BITS,
    computes="total[i] + sum_j int8(left[i] ^ 0x80, j) * int8(right[i], j) + 128 * sum_j int8(right[i], j); j < 4",
    architecture=ARCHITECTURE,
    features=("dotprod",),
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
)

BFDOT = dot_of_pairs(
    "bfdot",
    BITS,
    architecture=ARCHITECTURE,
    features=("bf16",),
    intrinsic="llvm.aarch64.neon.bfdot.v4f32.v8bf16",
)

FMAX = Extremum("fmax", "max(a, b), NaN if either is", architecture=ARCHITECTURE, is_largest=True)
FMIN = Extremum("fmin", "min(a, b), NaN if either is", architecture=ARCHITECTURE, is_largest=False)

INSTRUCTIONS = (USDOT, SDOT, BFDOT, FMAX, FMIN)
