"""From a target to its backend."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from functools import cache

import tvm

from torch_tvm.backends.backend import Backend
from torch_tvm.support.errors import InvalidInput

_registered: dict[str, Backend] = {}


def register(backend: Backend) -> Backend:
    """Use ``backend`` for targets of its kind, in place of a folder here."""
    _registered[backend.kind] = backend
    return backend


def backend_named(kind: str) -> Backend | None:
    """The backend of a kind: the one registered for it, or the folder of that name; ``None`` if there is neither."""
    return _registered.get(kind) or (_of_folder(kind) if kind in kinds() else None)


def backend_of(target: tvm.target.Target) -> Backend:
    """The backend of a target; a GPU that has no folder of its own is one like all others."""
    kind = str(target.kind.name)
    found = backend_named(kind)
    if found is None and "gpu" in map(str, target.keys):
        from torch_tvm.backends.gpu import Gpu  # imports DLight

        return register(Gpu(kind))
    if found is None:
        raise InvalidInput(
            f"no backend makes code for '{kind}'",
            subject="target",
            advice=f"known: {', '.join(sorted({*kinds(), *_registered}))}; torch_tvm.backends.register adds one",
        )
    return found


@cache
def kinds() -> frozenset[str]:
    """The kinds that have a folder here."""
    package = sys.modules["torch_tvm.backends"]
    return frozenset(info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg)


@cache
def _of_folder(kind: str) -> Backend:
    found: Backend = importlib.import_module(f"torch_tvm.backends.{kind}").BACKEND
    return found
