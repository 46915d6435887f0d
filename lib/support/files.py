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


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, all of it or nothing; raises :class:`InvalidInput` where that is not possible."""
    whole = Path(path)
    partial = whole.with_name(f".{whole.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(whole)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InvalidInput(f"cannot write '{os.fspath(path)}': {error.strerror}") from error


def _unreadable(path: str | os.PathLike[str], why: str, stage: str, advice: str) -> InvalidInput:
    return InvalidInput(f"cannot read '{os.fspath(path)}': {why}", stage=stage, advice=advice)


__all__ = ["read_bytes", "read_text", "write_whole"]
