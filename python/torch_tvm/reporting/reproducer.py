"""Unforeseen exceptions become an :class:`InternalError` that names a file and the command that shows it again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tvm

from torch_tvm.dialect.module import TorchModule
from torch_tvm.schedules.target import host_target
from torch_tvm.support.errors import InternalError, TorchTvmError, bug_of

MOST_BYTES = 1 << 28
"""A module with larger weights is not written to disk."""


@contextmanager
def unforeseen(stage: str) -> Iterator[None]:
    """Any exception but ours is an :class:`InternalError` of this stage."""
    try:
        yield
    except TorchTvmError:
        raise
    except Exception as error:
        raise InternalError(
            bug_of(error), stage=stage, advice="report it with the traceback above and the program"
        ) from error


@contextmanager
def reproducible(module: TorchModule, target: tvm.target.Target, options: Any) -> Iterator[None]:
    """As :func:`unforeseen`; the error names a file with the module and the command that compiles it again."""
    try:
        yield
    except Exception as error:
        is_bug = not isinstance(error, TorchTvmError) or isinstance(error, InternalError)
        if not is_bug or options.is_extended:  # code of the user's raises what it likes
            raise
        known = error if isinstance(error, InternalError) else None
        raise InternalError(
            bug_of(error),
            subject=known.subject if known else "",
            location=known.location if known else None,
            stage=known.stage if known else "compiler",
            advice=_command(module, target, options.accuracy),
        ) from error


def _command(module: TorchModule, target: tvm.target.Target, accuracy: str) -> str:
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.weights.values())
    if size > MOST_BYTES:
        return "report it with the program; its weights are too large to be written to disk here"
    try:
        handle, path = tempfile.mkstemp(prefix="torch_tvm_bug_", suffix=".mlirbc")
        with os.fdopen(handle, "wb") as file:
            file.write(module.bytecode())
    except Exception:  # the module itself may be what is broken
        return "report it with the traceback above and the program"
    where = "" if target.kind.name == host_target().kind.name else f" --target {target.kind.name}"
    how = "" if accuracy == "default" else f" (with accuracy={accuracy!r})"
    return f"report it with {path}; this command shows it again: torch-tvm compile --no-fallback{where} {path}{how}"


__all__ = ["reproducible", "unforeseen"]
