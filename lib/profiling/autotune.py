"""Choice of schedules by measurement: a few candidates of each heavy kernel are timed, the winner is kept.

``compile(…, options={"measure": True})`` uses it. What was found is stored in a directory, one small JSON file
for each kernel and target, so that the next compilation only looks it up. The directory is
``$TORCH_TVM_CACHE``, else that of the platform. Without the option nothing is read or written.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
import tvm

from torch_tvm.codegen.tir_pipeline import CPU_PIPELINE
from torch_tvm.support.cache_folder import cache_folder
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import write_whole
from torch_tvm.tir import static_sizes

ROUNDS = 12
"""Turns that every candidate takes."""

ROUND_SECONDS = 0.003
"""How long one turn of one candidate lasts at least."""

MARGIN = 0.97
"""Another candidate replaces the rule's own choice when it takes no more than this share of its time."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one call by candidate, and which one was chosen; ``is_stored`` when read from the disk."""

    kernel: str
    choice: str
    seconds: Mapping[str, float]
    is_stored: bool = False


class Autotuner:
    """Times candidates on ``target``, which must be this machine; ``records`` is what it found."""

    def __init__(self, target: tvm.target.Target) -> None:
        self.target = target
        self.directory = cache_folder()
        self.records: list[Measured] = []
        self._known: dict[str, Measured] = {}

    def choose(self, name: str, func: tvm.tirx.PrimFunc, candidates: Mapping[str, tvm.tirx.PrimFunc]) -> str:
        """The label of the fastest candidate; the first one is the rule's own.

        Kernels with unknown sizes, and those without a choice, are not measured.
        """
        first = next(iter(candidates))
        if len(candidates) < 2 or not _is_static(func):
            return first
        key = self._key(func, candidates)
        if key in self._known:
            return self._known[key].choice
        measured = self._load(key, name, candidates) or self._measure(key, name, candidates)
        self._known[key] = measured
        self.records.append(measured)
        return measured.choice

    def _key(self, func: tvm.tirx.PrimFunc, candidates: Mapping[str, tvm.tirx.PrimFunc]) -> str:
        anonymous = func.without_attr("global_symbol")
        parts = (tvm.__version__, str(self.target), anonymous.script(), *candidates)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _load(self, key: str, name: str, candidates: Mapping[str, tvm.tirx.PrimFunc]) -> Measured | None:
        """What an earlier compilation stored; a file that cannot be read counts as none."""
        if self.directory is None:
            return None
        try:
            fields = json.loads((self.directory / f"{key}.json").read_text())
            choice, seconds = fields["choice"], dict(fields["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Measured(name, choice, seconds, True) if choice in candidates else None

    def _measure(self, key: str, name: str, candidates: Mapping[str, tvm.tirx.PrimFunc]) -> Measured:
        seconds = time_candidates(candidates, self.target)
        first, best = next(iter(candidates)), min(seconds, key=lambda label: seconds[label])
        choice = best if seconds[best] <= MARGIN * seconds[first] else first
        measured = Measured(name, choice, seconds)
        self._store(key, measured)
        return measured

    def _store(self, key: str, measured: Measured) -> None:
        """Write atomically; a directory that cannot be written keeps the result in this process only."""
        if self.directory is None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_whole(self.directory / f"{key}.json", json.dumps(asdict(measured)).encode())
        except (InvalidInput, OSError):
            return


def time_candidates(
    candidates: Mapping[str, tvm.tirx.PrimFunc], target: tvm.target.Target
) -> dict[str, float]:
    """Seconds of one call of each candidate on random arguments: the least of several turns.

    Candidates take turns, and other processes only ever add time.
    """
    calls = {label: _call(func, target) for label, func in candidates.items()}
    repeats = {}
    for label, call in calls.items():
        call()
        started = time.perf_counter()
        call()
        repeats[label] = max(1, int(ROUND_SECONDS / max(time.perf_counter() - started, 1e-7)))
    times: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(ROUNDS):
        for label, call in calls.items():
            started = time.perf_counter()
            for _ in range(repeats[label]):
                call()
            times[label].append((time.perf_counter() - started) / repeats[label])
    return {label: min(values) for label, values in times.items()}


def _call(func: tvm.tirx.PrimFunc, target: tvm.target.Target) -> Callable[[], None]:
    module = tvm.IRModule({"kernel": func.with_attr("global_symbol", "kernel")})
    kernel = tvm.compile(module, target, tir_pipeline=CPU_PIPELINE)["kernel"]
    arguments = [_argument(param) for param in func.params]
    return lambda: kernel(*arguments)


def _argument(param: tvm.ir.Var) -> torch.Tensor:
    shape, dtype = [int(size) for size in param.shape], getattr(torch, str(param.dtype))
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 2, shape).to(dtype)


def _is_static(func: tvm.tirx.PrimFunc) -> bool:
    return all(
        isinstance(param.ty, tvm.tirx.BufferType) and static_sizes(param.shape) is not None
        for param in func.params
    )
