"""Programs that seed PyTorch's generator: a trace would do it once, and no call of the compiled program again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from torch_tvm.importers.user_code import TORCH

SEEDED = "the program seeds the random generator, which compiled code cannot"
SEEDED_ADVICE = "call it before the compiled program instead"
_SETTERS = ("manual_seed", "seed", "set_rng_state", "fork_rng")


@contextmanager
def seeding_refused() -> Iterator[None]:
    """Inside, code that is not torch's gets a RuntimeError for seeding, in this thread."""
    places = [
        (module, name, getattr(module, name))
        for name in _SETTERS
        for module in (torch, torch.random)
        if hasattr(module, name)
    ]
    thread = threading.get_ident()
    try:
        for module, name, function in places:
            setattr(module, name, _refusing(function, thread))
        yield
    finally:
        for module, name, function in places:
            setattr(module, name, function)


def _refusing(function: Callable[..., Any], thread: int) -> Callable[..., Any]:
    @wraps(function)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        is_own = threading.get_ident() == thread
        if is_own and not sys._getframe(1).f_code.co_filename.startswith(TORCH):
            raise RuntimeError(SEEDED)
        return function(*args, **kwargs)

    return refuse


__all__ = ["SEEDED", "SEEDED_ADVICE", "seeding_refused"]
