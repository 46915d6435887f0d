"""One program is imported and compiled at a time: torch.export, scripting, the lazy device and MLIR keep global state."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from torch_tvm.support.interrupts import deferred_interrupts

P = ParamSpec("P")
R = TypeVar("R")

_DYNAMO = "torch._dynamo.convert_frame"
_lock = threading.RLock()


@contextmanager
def compiling(*, exports: bool = True) -> Iterator[None]:
    """Wait until no other thread imports or compiles.

    dynamo holds a lock of its own when it calls our backend, and torch.export may take it: so it comes first
    everywhere. ``exports`` says that this program may be exported.
    """
    with ExitStack() as held:
        if exports and _DYNAMO not in sys.modules:
            with deferred_interrupts():
                import torch._dynamo.convert_frame
        if _DYNAMO in sys.modules:
            held.enter_context(sys.modules[_DYNAMO].compile_lock)
        held.enter_context(_lock)
        yield


def exclusive(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, one thread at a time."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with compiling():
            return function(*args, **kwargs)

    return call


__all__ = ["compiling", "exclusive"]
