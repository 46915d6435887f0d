"""x86-64: products of bytes (AVX-512 VNNI and AVX-VNNI) and of bfloat16 (AVX-512 BF16).

Formulas are those of Intel's Software Developer's Manual, volume 2.
"""

from __future__ import annotations

from torch_tvm.schedules.instructions.dots import dot_of_bytes, dot_of_pairs
from torch_tvm.schedules.instructions.instruction import PackedDot

ARCHITECTURE = "x86_64"


def vpdpbusd(bits: int, *features: str) -> PackedDot:
    """Four products of bytes."""
    intrinsic = f"llvm.x86.avx512.vpdpbusd.{bits}"
    return dot_of_bytes("vpdpbusd", bits, architecture=ARCHITECTURE, features=features, intrinsic=intrinsic)


def vdpbf16ps(bits: int, *features: str) -> PackedDot:
    """Two products of bfloat16; subnormal numbers count as zero."""
    intrinsic = f"llvm.x86.avx512bf16.dpbf16ps.{bits}"
    return dot_of_pairs("vdpbf16ps", bits, architecture=ARCHITECTURE, features=features, intrinsic=intrinsic)


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
