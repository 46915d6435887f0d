"""What a schedule rule needs to know of a CPU, read from a TVM target through LLVM."""

from __future__ import annotations

import os
from dataclasses import dataclass

import tvm
from tvm.target import codegen

HALF_WIDTH = frozenset({"znver4"})
"""Processors, by LLVM's name, that work on the two halves of a 512-bit vector one after the other."""


@dataclass(frozen=True)
class CpuModel:
    """Vector width, registers, caches and cores of a target.

    ``vector_bits`` is the width of a vector register, ``vector_registers`` how many there are;
    cache sizes are in bytes (level 1 data, level 2 per core, level 3 shared); ``fma_per_cycle`` is how many
    multiply-adds of whole vectors a core starts in a cycle.
    """

    vector_bits: int
    vector_registers: int
    l1: int
    l2: int
    l3: int
    cores: int
    has_fma: bool
    has_vnni: bool
    has_bf16: bool
    fma_per_cycle: int = 2

    @property
    def folds_broadcast(self) -> bool:
        """Whether a multiply-add takes one element for all lanes: from memory in AVX-512, from a register in NEON."""
        return self.vector_registers == 32

    @property
    def has_nan_maximum(self) -> bool:
        """Whether one instruction takes a maximum that is NaN if either operand is, as NEON's does."""
        return self.vector_bits == 128 and self.folds_broadcast

    def lanes(self, dtype: str) -> int:
        """How many elements of ``dtype`` one vector register holds."""
        bits = tvm.DataType(dtype).bits
        return max(1, self.vector_bits // max(bits, 8))

    @classmethod
    def from_target(cls, target: tvm.target.Target) -> CpuModel:
        has = lambda *names: bool(codegen.llvm_cpu_has_features(list(names), target))
        triple = str(target.attrs.get("mtriple", "") or codegen.llvm_get_system_triple())
        if triple.startswith(("aarch64", "arm64")):
            bits, registers, fma = 128, 32, True
        elif has("avx512f"):
            bits, registers, fma = 512, 32, True
        elif has("avx"):
            bits, registers, fma = 256, 16, has("fma")
        else:
            bits, registers, fma = 128, 16, has("fma")
        return cls(
            vector_bits=bits,
            vector_registers=registers,
            l1=_cache_bytes("index0", 32 << 10),
            l2=_cache_bytes("index2", 1 << 20),
            l3=_cache_bytes("index3", 16 << 20),
            cores=int(target.attrs.get("num-cores", 0) or 0) or len(os.sched_getaffinity(0)),
            has_fma=fma,
            has_vnni=bits == 512 and has("avx512vnni"),
            has_bf16=bits == 512 and has("avx512bf16"),
            fma_per_cycle=1 if bits == 512 and str(target.attrs.get("mcpu", "")) in HALF_WIDTH else 2,
        )


def host_target() -> tvm.target.Target:
    """The machine that this process runs on: its CPU name and triple from LLVM, the cores it may use.

    Vectors of 512 bits stay whole: LLVM splits them for ``prefer-256-bit`` only in code that it
    vectorises by itself, never in the explicit vectors that our schedules make (a test reads the assembly).
    """
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mcpu": codegen.llvm_get_system_cpu(),
            "mtriple": codegen.llvm_get_system_triple(),
            "num-cores": len(os.sched_getaffinity(0)),
        }
    )


def _cache_bytes(index: str, default: int) -> int:
    try:
        with open(f"/sys/devices/system/cpu/cpu0/cache/{index}/size") as file:
            text = file.read().strip()
    except OSError:
        return default
    return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1] in "KM" else int(text)
