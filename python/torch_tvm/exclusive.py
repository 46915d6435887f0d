"""One program is imported and compiled at a time: torch.export, scripting, the lazy device and MLIR
keep global state.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from torch_tvm.support.garbage import rare_collections
from torch_tvm.support.interrupts import deferred_interrupts

P = ParamSpec("P")
R = TypeVar("R")

_DYNAMO = "torch._dynamo.convert_frame"
_lock, _importing, _thread = threading.RLock(), threading.RLock(), threading.local()


@contextmanager
def compiling(*, exports: bool) -> Iterator[None]:
    """Wait until no other thread imports or compiles.

    dynamo holds a lock of its own when it calls our backend, and torch.export may take it: so it comes first
    everywhere. ``exports`` says that this program may be exported.
    """
    if getattr(_thread, "compiles", False):  # taking dynamo's lock second could wait for ever
        yield
        return
    with ExitStack() as held:
        held.enter_context(rare_collections())
        if exports or _DYNAMO in sys.modules:
            with _importing, deferred_interrupts():
                dynamo = importlib.import_module(_DYNAMO)
            held.enter_context(dynamo.compile_lock)
        held.enter_context(_lock)
        _thread.compiles = True
        try:
            yield
        finally:
            _thread.compiles = False


def exclusive(*, exports: bool) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that runs in one thread at a time."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with compiling(exports=exports):
                return function(*args, **kwargs)

        return call

    return decorate


__all__ = ["compiling", "exclusive"]
