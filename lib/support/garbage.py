"""Python's search for garbage cycles, made rare while much is built that is not garbage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_BETWEEN = 100_000
"""Objects that are made between two collections; Python's own 700 are some thousand collections a compile."""

_lock = threading.Lock()
_inside = 0
_thresholds = (0, 0, 0)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect less often until the last thread leaves such a context; not at all where the user has turned it off.

    An import of torch.export, TVM and MLIR, and a compile, each spend a tenth of their time on collections that find
    nothing.
    """
    global _inside, _thresholds
    with _lock:
        _inside += 1
        if _inside == 1:
            _thresholds = gc.get_threshold()
            if _thresholds[0]:
                gc.set_threshold(max(_thresholds[0], _BETWEEN), *_thresholds[1:])
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                gc.set_threshold(*_thresholds)


__all__ = ["rare_collections"]
