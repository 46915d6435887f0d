"""Choice of schedules by measurement: a few candidates of each heavy kernel are timed, the winner is kept.

``compile(…, options={"measure": True})`` uses it. What was found is stored in a directory, one small JSON file
for each kernel and target, so that the next compilation only looks it up. The directory is
``$TORCH_TVM_CACHE``, else that of the platform. Without the option nothing is read or written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import tvm

from torch_tvm.codegen.tir.pipeline import CPU_PIPELINE
from torch_tvm.profiling.interleaved import counted, time_interleaved
from torch_tvm.schedules.rule import Offer
from torch_tvm.support.cache_folder import cache_folder
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import write_whole
from torch_tvm.tir import static_sizes

ROUNDS = 12
"""Rounds in which every candidate is timed."""

ROUND_SECONDS = 0.003
"""How long one candidate is timed in a round, at least."""

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

    def choose(self, offer: Offer) -> tvm.tirx.PrimFunc:
        """The fastest candidate of a rule.

        Kernels with unknown sizes, and those without a choice, are not measured.
        """
        if not is_static(offer.original):
            return offer.own
        candidates = offer.candidates()
        if len(candidates) < 2:
            return offer.own
        key = key_of(offer.original, self.target, *candidates)
        if key not in self._known:
            name = offer.kernel
            self._known[key] = self._load(key, name, candidates) or self._measure(key, name, candidates)
            self.records.append(self._known[key])
        return candidates[self._known[key].choice]

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


def time_candidates(candidates: Mapping[str, tvm.tirx.PrimFunc], target: tvm.target.Target) -> dict[str, float]:
    """Seconds of one call of each candidate on random arguments: the least of several rounds, interleaved."""
    calls = {label: counted(_call(func, target)) for label, func in candidates.items()}
    return time_interleaved(calls, ROUNDS, ROUND_SECONDS)


def key_of(func: tvm.tirx.PrimFunc, target: tvm.target.Target, *more: str) -> str:
    """A hash of a kernel, whatever its name, of a target, of TVM's version and of ``more``."""
    parts = (tvm.__version__, str(target), func.without_attr("global_symbol").script(), *more)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _call(func: tvm.tirx.PrimFunc, target: tvm.target.Target) -> Callable[[], None]:
    module = tvm.IRModule({"kernel": func.with_attr("global_symbol", "kernel")})
    kernel = tvm.compile(module, target, tir_pipeline=CPU_PIPELINE)["kernel"]
    arguments = [random_tensor(list(map(int, p.shape)), getattr(torch, str(p.dtype))) for p in func.params]
    return lambda: kernel(*arguments)


def random_tensor(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Random numbers; zeros and ones for dtypes that are not floating."""
    if dtype.is_floating_point:
        return torch.randn(list(shape)).to(dtype)
    return torch.randint(0, 2, list(shape)).to(dtype)


def is_static(func: tvm.tirx.PrimFunc) -> bool:
    """Whether all sizes of a kernel's operands are known."""
    return all(
        isinstance(param.ty, tvm.tirx.BufferType) and static_sizes(param.shape) is not None for param in func.params
    )
