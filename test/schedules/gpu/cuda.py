"""What nvcc says of the CUDA code of a compiled program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch_tvm
from torch_tvm.backends import build


@dataclass(frozen=True)
class Resources:
    """The most that a kernel takes: registers of a thread, bytes of shared memory of a block, bytes that spill."""

    registers: int
    shared: int
    spilled: int


def resources(compiled: torch_tvm.CompiledModule, arch: str, folder: Path) -> Resources:
    """Compiles the kernels of a program with nvcc, which must take them."""
    origin: Any = compiled.origin
    built: Any = build(compiled.tir_module, origin.target, is_native=False)
    (text,) = sources(built.mod)
    path = folder / "kernels.cu"
    path.write_text(text)
    output = ["-o", str(folder / "kernels.cubin"), str(path)]
    command = ["nvcc", f"-arch={arch}", "-cubin", "-Xptxas", "-v", *output]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    most = lambda pattern: max(map(int, re.findall(pattern, found.stderr)), default=0)
    assert "bytes spill" in found.stderr, found.stderr
    return Resources(most(r"Used (\d+) registers"), most(r"(\d+) bytes smem"), most(r"(\d+) bytes spill stores"))


def sources(module: Any) -> Iterator[str]:
    """The CUDA code in a module and in what it imports."""
    try:
        text = module.inspect_source()
    except Exception:  # code of the host has no source
        text = ""
    if "__global__" in text:
        yield text
    for part in module.imports:
        yield from sources(part)
