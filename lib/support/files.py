"""Reading the user's files, with one message where that fails."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from torch_tvm.support.errors import InvalidInput

_PARTIAL = ".partial"
_LONGEST_WRITE = 3600.0
"""Seconds."""


def read_bytes(path: str | os.PathLike[str], *, stage: str = "", advice: str = "") -> bytes:
    """The bytes of a file; raises :class:`InvalidInput` when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error), stage, advice) from error


def read_text(path: str | os.PathLike[str], *, stage: str = "") -> str:
    """The text of a UTF-8 file; raises :class:`InvalidInput` when it cannot be read or is no text."""
    try:
        return read_bytes(path, stage=stage).decode()
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"it is no UTF-8 text ({error.reason})", stage) from error


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which is at ``path`` when the context ends, all of it; after an exception nothing is.

    A link stays one. Raises :class:`InvalidInput` where that is not possible: a directory, a device.
    """
    whole = _target(path)
    partial = whole.with_name(f".{whole.name[:64]}.{secrets.token_hex(8)}{_PARTIAL}")
    try:
        file = partial.open("xb")
    except OSError as error:
        raise _unwritable(path, error.strerror) from error
    try:
        with file:
            yield file
        partial.replace(whole)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error.strerror) from error
        raise


def unfinished(folder: Path) -> list[Path]:
    """Files that a process began to write with :func:`whole_file`, and that nobody has written to for an hour: it was
    killed, or the machine was switched off.
    """
    oldest = time.time() - _LONGEST_WRITE
    found = []
    for path in folder.glob(f".*{_PARTIAL}"):
        with suppress(OSError):  # another process has just deleted or finished it
            if path.stat().st_mtime < oldest:
                found.append(path)
    return found


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, all of it or nothing; raises :class:`InvalidInput` where that is not possible."""
    with whole_file(path) as file:
        file.write(content)


def check_writable(path: str | os.PathLike[str] | None, subject: str = "") -> None:
    """Raise :class:`InvalidInput` before any work is done for a file that could not be written at its end."""
    if not path:
        return
    folder = _target(path).parent
    if not folder.is_dir():
        raise _unwritable(path, "there is no such folder", subject)
    if not os.access(folder, os.W_OK):
        raise _unwritable(path, "its folder cannot be written", subject)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file behind a path, which is there as a plain file or not at all."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise InvalidInput(f"expected a path, got {type(path).__name__}")
    try:
        whole = Path(os.path.realpath(path))
        exists, is_file = whole.exists(), whole.is_file()
    except (OSError, ValueError) as error:
        raise _unwritable(path, str(error)) from error
    if not os.fspath(path) or (exists and not is_file):
        raise _unwritable(path, "it is a directory" if whole.is_dir() else "it is no plain file")
    return whole


def _unwritable(path: str | os.PathLike[str], why: str | None, subject: str = "") -> InvalidInput:
    return InvalidInput(f"cannot write '{os.fspath(path)}': {why}", subject=subject)


def _unreadable(path: str | os.PathLike[str], why: str, stage: str, advice: str = "") -> InvalidInput:
    return InvalidInput(f"cannot read '{os.fspath(path)}': {why}", stage=stage, advice=advice)


__all__ = ["read_bytes", "read_text", "unfinished", "whole_file", "write_whole"]
