"""The next schedules of a kernel to try: proposed and built in a child process, since MetaSchedule may end it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import tirx

from torch_tvm.codegen.shared_library import link
from torch_tvm.codegen.tir.pipeline import CPU_PIPELINE
from torch_tvm.schedules.rule import Offer
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.sandbox import crash_of
from torch_tvm.tuning.database import Record
from torch_tvm.tuning.space import Space, Trace, label_of, scheduled

KERNEL = "kernel"
"""What the function of a library is called."""

SECONDS = 120.0
"""The longest that a batch of candidates may take to build."""

_ATTEMPTS = 8
"""Schedules that are drawn for each new one: most kernels have few that differ."""


@dataclass(frozen=True)
class Candidate:
    """A schedule of a kernel, as a label of its rule's or with the trace of MetaSchedule, and its code.

    There is no code where that could not be built.
    """

    label: str
    library: bytes
    trace: Trace | None = None


def propose(offer: Offer, target: tvm.target.Target, record: Record, count: int, seed: int) -> list[Candidate]:
    """At most ``count`` candidates that ``record`` has not tried: the rule's own others first."""
    with tempfile.TemporaryDirectory(prefix="torch_tvm_tune_") as name:
        folder = Path(name)

        def work() -> None:
            for index, (label, func, trace) in enumerate(_new(offer, target, record, count, seed)):
                try:
                    library = build(func, target)
                except Exception:  # TVM or the linker does not take it: tried, and out
                    library = b""
                (folder / f"{index}.so").write_bytes(library)
                (folder / f"{index}.json").write_text(json.dumps([label, trace]))

        crash_of(work, SECONDS)  # what was built before stays
        found = []
        for path in sorted(folder.glob("*.json"), key=lambda each: int(each.stem)):
            label, trace = json.loads(path.read_text())
            found.append(Candidate(label, path.with_suffix(".so").read_bytes(), trace))
        return found


def chosen(offer: Offer, record: Record) -> tirx.PrimFunc | None:
    """The schedule that a record chose, finished; ``None`` where it chose the rule's own, or one that is no more."""
    if not record.choice or record.own != own_hash(offer):
        return None
    if record.trace is not None:
        return offer.finish(scheduled(offer.original, record.trace))
    return offer.candidates().get(record.choice)


def own_hash(offer: Offer) -> str:
    """What changes when the rule's own schedule of a kernel does."""
    return hashlib.sha256(offer.own.without_attr("global_symbol").script().encode()).hexdigest()


def build(func: tirx.PrimFunc, target: tvm.target.Target) -> bytes:
    """A finished kernel as a library."""
    mod = tvm.IRModule({KERNEL: func.with_attr("global_symbol", KERNEL)})
    return link(tvm.compile(mod, target, tir_pipeline=CPU_PIPELINE).mod, target)


def _new(
    offer: Offer, target: tvm.target.Target, record: Record, count: int, seed: int
) -> Iterator[tuple[str, tirx.PrimFunc, Trace | None]]:
    known = set(record.tried)
    left = count
    for label, func in list(offer.candidates().items())[1:]:
        if left and label not in known:
            left -= 1
            yield label, func, None
    if not left:
        return
    for trace in _traces(Space(offer.original, target, seed), record, left):
        try:
            func = offer.finish(scheduled(offer.original, trace))
        except (InvalidInput, ValueError, RuntimeError):
            continue
        yield label_of(trace), func, trace


def _traces(space: Space, record: Record, count: int) -> Iterator[Trace]:
    """Half of them near the best ones that are known, half anywhere."""
    known, best = set(record.tried), list(record.traces.values())
    for attempt in range(count * _ATTEMPTS):
        is_near = bool(best) and attempt % 2 == 0
        trace = space.mutated(best[attempt // 2 % len(best)]) if is_near else space.draw()
        if trace is None or label_of(trace) in known:
            continue
        known.add(label_of(trace))
        yield trace
        count -= 1
        if not count:
            return


__all__ = ["KERNEL", "Candidate", "build", "chosen", "own_hash", "propose"]
