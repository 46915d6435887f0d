"""Imports that happen when something is first used, in whichever thread that is."""

from __future__ import annotations

import importlib
import threading
from types import ModuleType

from torch_tvm.support.garbage import rare_collections
from torch_tvm.support.interrupts import deferred_interrupts

_importing = threading.RLock()
"""Threads that import modules which import each other would meet half of one."""


def first_import(name: str) -> ModuleType:
    """A module of ours and all that it imports, whole: Ctrl-C waits until it is there."""
    with _importing, deferred_interrupts(), rare_collections():
        return importlib.import_module(name)


__all__ = ["first_import"]
