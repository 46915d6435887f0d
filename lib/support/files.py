"""Reading the user's files, with one message where that fails."""

from __future__ import annotations

import os
from pathlib import Path

from torch_tvm.support.errors import InvalidInput


def read_bytes(path: str | os.PathLike[str], *, stage: str = "", advice: str = "") -> bytes:
    """The bytes of a file; raises :class:`InvalidInput` when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error), stage, advice) from error


def read_text(path: str | os.PathLike[str], *, stage: str = "", advice: str = "") -> str:
    """The text of a UTF-8 file; raises :class:`InvalidInput` when it cannot be read or is no text."""
    try:
        return read_bytes(path, stage=stage, advice=advice).decode()
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"it is no UTF-8 text ({error.reason})", stage, advice) from error


def _unreadable(path: str | os.PathLike[str], why: str, stage: str, advice: str) -> InvalidInput:
    return InvalidInput(f"cannot read '{os.fspath(path)}': {why}", stage=stage, advice=advice)


__all__ = ["read_bytes", "read_text"]
