"""What a schedule knows of a CPU: a description that can be written down, for this machine or for any other.

A TVM target names the processor (``mcpu``, ``mtriple``, ``mattr``), for which LLVM knows the instructions, and the
cores (``num-cores``). What it has no word for stands in its ``model``, as ``l1=48K l2=2M l3=32M``; what is left out is
that of the processor's family (:data:`PROCESSORS`). Nothing is read from the machine that compiles, except by
:func:`host_target`, which describes it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import tvm
from tvm.target import codegen

from torch_tvm.schedules.instructions import arm, x86
from torch_tvm.schedules.instructions.instruction import Instruction, PackedDot
from torch_tvm.schedules.instructions.maxima import Extremum
from torch_tvm.support.errors import InvalidInput, Refusal
from torch_tvm.tir import bits_of

INSTRUCTIONS: tuple[Instruction, ...] = (*x86.INSTRUCTIONS, *arm.INSTRUCTIONS)
"""All that are known; of two that do the same, the first that a processor has."""

FEATURES = frozenset({"fma", *(feature for each in INSTRUCTIONS for feature in each.features)})
"""LLVM's names of the instruction sets that a description lists."""

CORES = 8
"""Cores of a target that does not say how many it has."""


class Processor(NamedTuple):
    """What LLVM does not tell of a processor: bytes of the caches (level 1 data, level 2 of a core, level 3 of all)
    and multiply-adds of whole vectors that a core starts in a cycle."""

    l1: int
    l2: int
    l3: int
    fma_per_cycle: int = 2


def _processor(l1: int, l2: int, l3: int, fma_per_cycle: int = 2) -> Processor:
    return Processor(l1 << 10, l2 << 10, l3 << 20, fma_per_cycle)


GENERIC = _processor(32, 1024, 16)

PROCESSORS: dict[str, Processor] = {
    **dict.fromkeys(("haswell", "broadwell", "skylake"), _processor(32, 256, 8)),
    **dict.fromkeys(("skylake-avx512", "cascadelake", "cooperlake"), _processor(32, 1024, 22)),
    **dict.fromkeys(("icelake-client", "tigerlake", "rocketlake"), _processor(48, 512, 16)),
    "icelake-server": _processor(48, 1280, 36),
    **dict.fromkeys(("sapphirerapids", "emeraldrapids", "graniterapids"), _processor(48, 2048, 60)),
    **dict.fromkeys(("alderlake", "raptorlake", "meteorlake"), _processor(48, 1280, 24)),
    **dict.fromkeys(("znver1", "znver2", "znver3"), _processor(32, 512, 32)),
    # The fourth generation of Zen works on the two halves of a 512-bit vector one after the other.
    "znver4": _processor(32, 1024, 32, fma_per_cycle=1),
    "znver5": _processor(48, 1024, 32),
    **dict.fromkeys(("cortex-a72", "cortex-a76"), _processor(32, 512, 2)),
    "neoverse-n1": _processor(64, 1024, 32),
    **dict.fromkeys(("neoverse-v1", "neoverse-n2"), _processor(64, 1024, 32)),
    **dict.fromkeys(("neoverse-v2", "neoverse-v3"), _processor(64, 2048, 36)),
    **dict.fromkeys(("apple-m1", "apple-m2", "apple-m3"), _processor(128, 4096, 16)),
}
"""By LLVM's name; sizes of a server's or desktop's usual model."""


@dataclass(frozen=True)
class CpuModel:
    """Vector width, registers, caches, cores and instructions of a processor.

    ``vector_bits`` is the width of a vector register, ``vector_registers`` how many there are;
    cache sizes are in bytes (level 1 data, level 2 per core, level 3 shared); ``fma_per_cycle`` is how many
    multiply-adds of whole vectors a core starts in a cycle. ``features`` are those of :data:`FEATURES` that it has.
    With ``portable``, instructions are spelled in operations that every processor has, so that kernels made for
    this one run on any.
    """

    vector_bits: int
    vector_registers: int
    l1: int
    l2: int
    l3: int
    cores: int
    features: frozenset[str] = frozenset()
    fma_per_cycle: int = 2
    architecture: str = x86.ARCHITECTURE
    portable: bool = False

    @property
    def folds_broadcast(self) -> bool:
        """Whether a multiply-add takes one element for all lanes: from memory in AVX-512, from a register in NEON."""
        is_avx512 = self.vector_bits == 512 or "avx512vl" in self.features
        return self.architecture == arm.ARCHITECTURE or is_avx512

    def lanes(self, dtype: str) -> int:
        """How many elements of ``dtype`` one vector register holds."""
        bits = bits_of(dtype)
        return max(1, self.vector_bits // max(bits, 8))

    def instructions(self) -> Iterator[Instruction]:
        """Those of :data:`INSTRUCTIONS` that it has, as kernels for it spell them."""
        for each in INSTRUCTIONS:
            if each.fits(self.architecture, self.features, self.vector_bits):
                yield each.portable() if self.portable else each

    def dot(self, size: int) -> PackedDot | None:
        """The instruction that multiplies and adds words of ``size`` elements, if there is one."""
        found = (each for each in self.instructions() if isinstance(each, PackedDot) and each.size == size)
        return next(found, None)

    def required_dot(self, size: int) -> PackedDot:
        """As :meth:`dot`; a :class:`Refusal` names the instructions that would do."""
        found = self.dot(size)
        if found is None:
            dots = (each for each in INSTRUCTIONS if isinstance(each, PackedDot) and each.size == size)
            names = dict.fromkeys(each.name for each in dots if each.architecture == self.architecture)
            raise Refusal(f"the target has no {' or '.join(names)}")
        return found

    def extremum(self, is_largest: bool) -> Extremum:
        """Maxima or minima that are NaN if either operand is: one instruction, or the operations that do the same."""
        kept = (each for each in self.instructions() if isinstance(each, Extremum))
        same = (each for each in kept if each.is_largest == is_largest)
        return next(same, (arm.FMAX if is_largest else arm.FMIN).portable())

    def __str__(self) -> str:
        """The description as one line, as a target's ``model`` has it."""
        return " ".join(f"{field.name.replace('_', '-')}={_text(getattr(self, field.name))}" for field in fields(self))

    @classmethod
    def from_target(cls, target: tvm.target.Target) -> CpuModel:
        """The processor that a target names, with what its ``model`` says in place of what is usual."""
        found = {str(name) for name in codegen.llvm_get_cpu_features(target)}
        triple = str(target.attrs.get("mtriple", "") or codegen.llvm_get_system_triple())
        is_arm = triple.startswith(("aarch64", "arm64"))
        if is_arm:
            bits, registers = 128, 32
        elif "avx512f" in found:
            bits, registers = 512, 32
        else:
            bits, registers = (256 if "avx" in found else 128), 16
        known = PROCESSORS.get(str(target.attrs.get("mcpu", "")), GENERIC)
        usual: dict[str, Any] = {
            "vector_bits": bits,
            "vector_registers": registers,
            "cores": int(target.attrs.get("num-cores", 0) or 0) or CORES,
            "features": frozenset(found & FEATURES),
            "architecture": arm.ARCHITECTURE if is_arm else x86.ARCHITECTURE,
            **known._asdict(),
        }
        if bits != 512:
            usual["fma_per_cycle"] = 2
        return cls(**{**usual, **read_description(str(target.attrs.get("model", "")))})


def read_description(text: str) -> dict[str, Any]:
    """What a target's ``model`` says of the fields of :class:`CpuModel`: ``l2=1M features=avx512vnni,avx512vl``.

    Words without ``=`` are names of machines and say nothing. Raises :class:`InvalidInput` for what cannot be read.
    """
    said = {}
    for word in text.split():
        name, has_value, value = word.partition("=")
        if has_value:
            said[name.replace("-", "_")] = value
    return {name: _value(name, value) for name, value in said.items()}


def describe(values: Mapping[str, Any]) -> str:
    """The text that :func:`read_description` reads."""
    return " ".join(f"{name.replace('_', '-')}={_text(value)}" for name, value in values.items())


_NAMES = frozenset(field.name for field in fields(CpuModel))
_WORDS = {"architecture": f"{x86.ARCHITECTURE} or {arm.ARCHITECTURE}", "portable": "true or false"}


def _value(name: str, text: str) -> Any:
    subject = f"target['{name.replace('_', '-')}']"
    if name not in _NAMES:
        known = ", ".join(sorted(each.replace("_", "-") for each in _NAMES))
        raise InvalidInput("a processor has no such property", subject=subject, advice=f"known: {known}")
    if name == "architecture" and text in (arm.ARCHITECTURE, x86.ARCHITECTURE):
        return text
    if name == "features":
        return frozenset(filter(None, text.split(",")))
    if name == "portable" and text in ("true", "false"):
        return text == "true"
    number = re.fullmatch(r"(\d+)([KM]?)", text)
    if name in _WORDS or number is None:
        wanted = _WORDS.get(name, "a number, such as 64, 32K or 2M")
        raise InvalidInput(f"got '{text}'", subject=subject, advice=f"write {wanted}")
    return int(number[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[number[2]]


def _text(value: Any) -> str:
    if isinstance(value, (frozenset, set, tuple, list)):
        return ",".join(sorted(value))
    if isinstance(value, bool):
        return str(value).lower()
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if isinstance(value, int) and value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def host_target() -> tvm.target.Target:
    """The machine that this process runs on: its CPU name and triple from LLVM, its caches, the cores it may use.

    Vectors of 512 bits stay whole: LLVM splits them for ``prefer-256-bit`` only in code that it
    vectorises by itself, never in the explicit vectors that our schedules make (a test reads the assembly).
    """
    caches = {name: _cache_bytes(index) for name, index in (("l1", 0), ("l2", 2), ("l3", 3))}
    known = {name: size for name, size in caches.items() if size is not None}
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mcpu": codegen.llvm_get_system_cpu(),
            "mtriple": codegen.llvm_get_system_triple(),
            "num-cores": len(os.sched_getaffinity(0)),
            **({"model": describe(known)} if known else {}),
        }
    )


def _cache_bytes(index: int) -> int | None:
    """Bytes of a cache of the first core, as Linux tells."""
    try:
        with open(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1] in "KM" else int(text)
