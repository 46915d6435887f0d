"""Timing of several things by turns: other processes only ever add time, and all meet the same ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

HOPELESS = 3.0
"""A kernel that takes this many times as long as the first one does not take more turns."""


def take_turns(
    calls: Mapping[str, Callable[[int], float]], rounds: int, round_seconds: float = 0.003
) -> dict[str, float]:
    """Seconds of a call: the least of several turns. ``calls[label](n)`` makes n calls and says how long they took."""
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
    """A call as :func:`take_turns` wants it."""

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - started

    return run


__all__ = ["counted", "take_turns"]
