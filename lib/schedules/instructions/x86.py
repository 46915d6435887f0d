"""x86-64: products of bytes (AVX-512 VNNI and AVX-VNNI) and of bfloat16 (AVX-512 BF16).

Formulas are those of Intel's Software Developer's Manual, volume 2.
"""

from __future__ import annotations

from torch_tvm.schedules.instructions.dots import (
    BYTES_SYMBOL,
    GROUP,
    PAIR,
    PAIRS_SYMBOL,
    plain_bytes,
    plain_pairs,
)
from torch_tvm.schedules.instructions.instruction import PackedDot

ARCHITECTURE = "x86_64"


def vpdpbusd(bits: int, *features: str) -> PackedDot:
    """Four products of bytes."""
    return PackedDot(
        name="vpdpbusd",
        computes="total[i] + sum_j uint8(left[i], j) * int8(right[i], j), modulo 2**32; j < 4",
        architecture=ARCHITECTURE,
        features=features,
        bits=bits,
        size=GROUP,
        symbol=BYTES_SYMBOL,
        result="i32",
        operands=("i8", "i8"),
        intrinsic=f"llvm.x86.avx512.vpdpbusd.{bits}",
        plain=plain_bytes(bits // 32),
    )


def vdpbf16ps(bits: int, *features: str) -> PackedDot:
    """Two products of bfloat16; subnormal numbers count as zero."""
    return PackedDot(
        name="vdpbf16ps",
        computes="total[i] + sum_j bfloat16(left[i], j) * bfloat16(right[i], j), in float32; j < 2",
        architecture=ARCHITECTURE,
        features=features,
        bits=bits,
        size=PAIR,
        symbol=PAIRS_SYMBOL,
        result="float",
        operands=("bfloat", "bfloat"),
        intrinsic=f"llvm.x86.avx512bf16.dpbf16ps.{bits}",
        plain=plain_pairs(bits // 32),
    )


INSTRUCTIONS = (
    vpdpbusd(512, "avx512vnni"),
    vpdpbusd(256, "avxvnni"),
    vpdpbusd(256, "avx512vnni", "avx512vl"),
    vpdpbusd(128, "avxvnni"),
    vpdpbusd(128, "avx512vnni", "avx512vl"),
    vdpbf16ps(512, "avx512bf16"),
    vdpbf16ps(256, "avx512bf16", "avx512vl"),
    vdpbf16ps(128, "avx512bf16", "avx512vl"),
)
