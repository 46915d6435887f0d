"""What the machine can do: arithmetic and memory rates of its cores, each measured with a small kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tvm
from tvm.script import from_source
from tvm.target import codegen

from torch_tvm.codegen.llvm import compile_here, host_cpu
from torch_tvm.codegen.openmp import use_openmp
from torch_tvm.runtime.threads import configure_threads

_CHAINS = 12
"""Independent sums: as many fused multiply-adds as a core has in flight, fewer than its registers."""

_ARITHMETIC = """
@T.prim_func
def main(x: T.Buffer(({lanes},), "float32"), y: T.Buffer(({threads}, {chains}, {lanes}), "float32")):
    for thread in T.parallel({threads}):
        total = T.alloc_buffer(({chains}, {lanes}), "float32")
        for chain in T.unroll({chains}):
            for lane in T.vectorized({lanes}):
                total[chain, lane] = x[lane]
        for step in range({steps}):
            for chain in T.unroll({chains}):
                for lane in T.vectorized({lanes}):
                    total[chain, lane] = total[chain, lane] * x[lane] + x[lane]
        for chain in T.unroll({chains}):
            for lane in T.vectorized({lanes}):
                y[thread, chain, lane] = total[chain, lane]
"""

_READING = """
@T.prim_func
def main(x: T.Buffer(({threads}, {steps}, {chains}, {lanes}), "float32"),
         y: T.Buffer(({threads}, {chains}, {lanes}), "float32")):
    for thread in T.parallel({threads}):
        total = T.alloc_buffer(({chains}, {lanes}), "float32")
        for chain in T.unroll({chains}):
            for lane in T.vectorized({lanes}):
                total[chain, lane] = T.float32(0)
        for step in range({steps}):
            for chain in T.unroll({chains}):
                for lane in T.vectorized({lanes}):
                    total[chain, lane] = total[chain, lane] + x[thread, step, chain, lane]
        for chain in T.unroll({chains}):
            for lane in T.vectorized({lanes}):
                y[thread, chain, lane] = total[chain, lane]
"""

_COPYING = """
@T.prim_func
def main(x: T.Buffer(({threads}, {steps}, {lanes}), "float32"),
         y: T.Buffer(({threads}, {steps}, {lanes}), "float32")):
    for thread in T.parallel({threads}):
        for step in range({steps}):
            for lane in T.vectorized({lanes}):
                y[thread, step, lane] = x[thread, step, lane]
"""


@dataclass(frozen=True)
class Limits:
    """``gflops``: float32 multiplications and additions, ``gigabytes``: bytes between cores and
    memory; 1e9 a second.
    """

    gflops: float
    gigabytes: float


def measure_limits(megabytes: int = 256, repeats: int = 5) -> Limits:
    """The best of a few measurements, on as many threads as torch uses; ``megabytes`` of memory are read."""
    use_openmp()
    threads = configure_threads()
    lanes = _lanes()
    return Limits(_arithmetic(threads, lanes, repeats), _memory(threads, lanes, megabytes, repeats))


def _arithmetic(threads: int, lanes: int, repeats: int) -> float:
    steps = 1 << 18
    kernel = _build(_ARITHMETIC.format(threads=threads, chains=_CHAINS, lanes=lanes, steps=steps))
    x, y = torch.rand(lanes) * 0.5, torch.empty(threads, _CHAINS, lanes)
    return 2.0 * threads * _CHAINS * lanes * steps / _seconds(kernel, x, y, repeats) / 1e9


def _memory(threads: int, lanes: int, megabytes: int, repeats: int) -> float:
    """The better of reading alone and of copying, where a byte read and a byte written count alike."""
    chains = 8
    steps = max(1, (megabytes << 20) // (4 * lanes * chains * threads))
    kernel = _build(_READING.format(threads=threads, chains=chains, lanes=lanes, steps=steps))
    x = torch.ones(threads, steps, chains, lanes)
    reading = x.nbytes / _seconds(kernel, x, torch.empty(threads, chains, lanes), repeats)
    copied = x.view(threads, steps * chains, lanes)
    kernel = _build(_COPYING.format(threads=threads, lanes=lanes, steps=steps * chains))
    copying = 2 * x.nbytes / _seconds(kernel, copied, torch.empty_like(copied), repeats)
    return max(reading, copying) / 1e9


def _build(source: str) -> Callable[..., None]:
    return compile_here(tvm.IRModule({"main": from_source(source)}))


def _seconds(kernel: Callable[..., None], x: torch.Tensor, y: torch.Tensor, repeats: int) -> float:
    kernel(x, y)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        kernel(x, y)
        best = min(best, time.perf_counter() - started)
    return best


def _lanes() -> int:
    """Float32 elements of the widest vector register."""
    has = lambda name: bool(codegen.llvm_cpu_has_features([name], host_cpu()))
    return 16 if has("avx512f") else 8 if has("avx") else 4


__all__ = ["Limits", "measure_limits"]
