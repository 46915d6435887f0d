"""Which processor code is for, and whether this one is such a one: without a compiler."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch

_TORCH_NAMES = {
    "fma": "fma3",
    "dotprod": "dot",
    "fullfp16": "fp16arith",
    "lse": "atomics",
    "fparmv8": "neon",
}
"""Where torch has another name than LLVM for an instruction set."""


def machine() -> str:
    """Architecture and system of this process: ``x86_64-linux``."""
    return f"{architecture(platform.machine())}-{sys.platform}"


def architecture(name: str) -> str:
    """One name for each architecture."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name.lower())


def instruction_sets() -> list[str]:
    """What this processor has, as far as torch and the system say."""
    return sorted(_known())


def missing(features: Iterable[str]) -> list[str]:
    """The instruction sets, by LLVM's names, that this processor has not."""
    known = _known()
    return [name for name in features if known and not _has(known, name)]


def _has(known: frozenset[str], feature: str) -> bool:
    plain = _plain(feature)
    return plain in known or _plain(_TORCH_NAMES.get(plain, plain)) in known


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """What torch and the system say that the processor has; empty where neither says anything."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    names = [name for name, value in capabilities.items() if value is True]
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    flags: Sequence[str] = next((line.split() for line in lines if line.startswith(("flags", "Features"))), ())
    aliases = {"abm": "lzcnt", "bmi1": "bmi", "pni": "sse3", "asimddp": "dotprod", "asimdhp": "fullfp16"}
    return frozenset(_plain(aliases.get(name, name)) for name in [*names, *flags])


def _plain(name: str) -> str:
    return name.translate(str.maketrans("", "", "._-"))


__all__ = ["architecture", "instruction_sets", "machine", "missing"]
