"""Bisection of a program that does not compile, to the few ops that have to run in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 4
_SECONDS = 60.0


def narrowed(
    items: Sequence[Item], attempt: Callable[[Sequence[Item]], Result], *, seconds: float = _SECONDS
) -> Result:
    """What ``attempt`` returns for as few items as are found to be enough; it raises where they are not.

    Each item is found by halving: the last of the shortest prefix that is enough. Where four items are not enough, or
    where the time is up, it is called with all of them, and what it raises then is raised.
    """
    ends = time.monotonic() + seconds
    found: list[Item] = []
    while items and len(found) < _MOST:
        low, high = 0, len(items)
        while high - low > 1:
            if time.monotonic() > ends:
                return attempt(items)
            middle = (low + high) // 2
            if _succeeds(attempt, [*found, *items[:middle]]) is not None:
                high = middle
            else:
                low = middle
        found.append(items[high - 1])
        result = _succeeds(attempt, found)
        if result is not None:
            return result
    return attempt(items)


def _succeeds(attempt: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> Result | None:
    try:
        return attempt(items)
    except Exception:
        return None


__all__ = ["narrowed"]
