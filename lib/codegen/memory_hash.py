"""A hash of memory, at the rate at which memory can be read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import tvm
from tvm.script import from_source

from torch_tvm.codegen.llvm import compile_here
from torch_tvm.runtime.threads import configure_threads

_LANES = 16
_CHAINS = 8
_STEP = _LANES * _CHAINS
_CHUNK = 1 << 16
"""Words that one thread hashes at a time: 256 KB."""

_SOURCE = """
@T.prim_func
def main(anchor: T.Buffer((1,), "uint32"), rows: T.handle, hashes: T.handle):
    count = T.int64()
    row = T.match_buffer(rows, (count, 2), "int64")
    hash = T.match_buffer(hashes, (count, {lanes}), "uint32")
    for index in T.{loop}(count):
        state = T.alloc_buffer(({chains}, {lanes}), "uint32")
        for chain in T.unroll({chains}):
            for lane in T.vectorized({lanes}):
                state[chain, lane] = T.uint32(0)
        for step in range(row[index, 1] // {step}):
            for chain in T.unroll({chains}):
                for lane in T.vectorized({lanes}):
                    state[chain, lane] = state[chain, lane] + anchor[
                        row[index, 0] + step * {step} + chain * {lanes} + lane
                    ] * T.uint32(2246822519)
                for lane in T.vectorized({lanes}):
                    state[chain, lane] = (
                        (state[chain, lane] << T.uint32(13)) | (state[chain, lane] >> T.uint32(19))
                    ) * T.uint32(2654435761)
        for rest in range(row[index, 1] % {step}):
            state[rest // {lanes}, rest % {lanes}] = state[rest // {lanes}, rest % {lanes}] + anchor[
                row[index, 0] + row[index, 1] // {step} * {step} + rest
            ] * T.uint32(2246822519)
            state[rest // {lanes}, rest % {lanes}] = (
                (state[rest // {lanes}, rest % {lanes}] << T.uint32(13))
                | (state[rest // {lanes}, rest % {lanes}] >> T.uint32(19))
            ) * T.uint32(2654435761)
        for lane in T.vectorized({lanes}):
            hash[index, lane] = state[0, lane]
        for chain in range({chains} - 1):
            for lane in T.vectorized({lanes}):
                hash[index, lane] = (hash[index, lane] + state[chain + 1, lane]) * T.uint32(2246822519)
            for lane in T.vectorized({lanes}):
                hash[index, lane] = (
                    (hash[index, lane] << T.uint32(13)) | (hash[index, lane] >> T.uint32(19))
                ) * T.uint32(2654435761)
"""
"""The rounds of xxHash32 on each of 128 lanes, then across the eight lanes that make one word of the result.
A round is a bijection of its state and of what it reads, so no change of a single word can be missed; others are
missed with a probability of 2**-32 for each of the 16 words that they reach."""


class MemoryHash:
    """Hashes of ranges of this process's memory, each ``(address, bytes)``; whole words around them are read.

    A large range has several hashes; ``of`` is the position of the range that each is of.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._anchor = torch.empty(1, dtype=torch.int32).view(torch.uint32)
        rows = []
        self.of: list[int] = []
        for position, (address, size) in enumerate(ranges):
            first, end = address // 4, -(-(address + size) // 4)
            rows += [(s, min(_CHUNK, end - s)) for s in range(first, end, _CHUNK)]
            self.of += [position] * (len(rows) - len(self.of))
        words = sum(count for _, count in rows)
        start = self._anchor.data_ptr() // 4
        self._rows = torch.tensor([(first - start, count) for first, count in rows], dtype=torch.int64)
        self._rows = self._rows.view(-1, 2)
        self._is_parallel = words > _CHUNK

    def __call__(self) -> torch.Tensor:
        """Hashes of what the ranges hold now: uint32 ``[hashes, lanes]``."""
        hashes = torch.empty(len(self._rows), _LANES, dtype=torch.uint32)
        if self._is_parallel:
            configure_threads()
        if len(self._rows):
            _kernel("parallel" if self._is_parallel else "serial")(self._anchor, self._rows, hashes)
        return hashes


_lock = threading.Lock()


def _kernel(loop: str) -> Callable[..., None]:
    with _lock:
        return _compiled(loop)


@lru_cache(maxsize=2)
def _compiled(loop: str) -> Callable[..., None]:
    source = _SOURCE.format(lanes=_LANES, chains=_CHAINS, step=_STEP, loop=loop)
    return compile_here(tvm.IRModule({"main": from_source(source)}))


__all__ = ["MemoryHash"]
