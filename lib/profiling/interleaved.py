"""Interleaved timing of several calls: other processes only ever add time, and all calls meet the same ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

HOPELESS = 3.0
"""A kernel that takes this many times as long as the first one is not timed any further."""


def time_interleaved(
    calls: Mapping[str, Callable[[int], float]], rounds: int, round_seconds: float = 0.003
) -> dict[str, float]:
    """Seconds of a call of each: the least of ``rounds``. ``calls[label](n)`` makes n calls and gives their seconds."""
    once = {label: min(call(1), call(1)) for label, call in calls.items()}
    first = next(iter(once.values()), 0.0)
    going = {label: call for label, call in calls.items() if once[label] <= HOPELESS * first}
    best = dict(once)
    for _ in range(rounds):
        for label, call in going.items():
            count = max(1, min(1000, int(round_seconds / max(once[label], 1e-7))))
            best[label] = min(best[label], call(count) / count)
    return best


def counted(call: Callable[[], object]) -> Callable[[int], float]:
    """A call as :func:`time_interleaved` wants it."""

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - started

    return run


__all__ = ["counted", "time_interleaved"]
