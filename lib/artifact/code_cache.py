"""Compiled code on disk, for the next process that compiles the same program.

An entry is one archive (``archive.py``) named after a hash of all that its code depends on. Entries are native code:
they are read from a folder that nobody but its owner can write, and a damaged one is deleted and never loaded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch_tvm.artifact.archive import Archive
from torch_tvm.support.cache_folder import cache_folder
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import unfinished

LIMIT = "TORCH_TVM_CACHE_SIZE"
DEFAULT_LIMIT = 2 << 30
_SUFFIX = ".ttvm"


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds: ``size`` and ``limit`` in bytes."""

    folder: Path
    entries: int
    size: int
    limit: int


class CodeCache:
    """Entries by key in a folder, those used last; several processes may use it at once."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def find(self, key: str) -> Archive | None:
        """The entry of a key, checked; ``None`` where there is none that may be loaded."""
        path = self.path(key)
        try:
            if not (path.is_file() and _is_own(self.folder) and _is_own(path)):
                return None
            archive = Archive(path)
            os.utime(path)
        except InvalidInput:
            self.drop(key)
            return None
        except OSError:
            return None
        return archive

    def add(self, key: str, write: Callable[[Path], object]) -> None:
        """Keep the file that ``write`` writes, all of it or nothing, as the entry of a key.

        A folder that cannot be written, or that somebody else can write, keeps nothing.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (_is_own(self.folder) and os.access(self.folder, os.W_OK)):
                return
        except OSError:
            return
        write(self.path(key))
        self._shrink()

    def drop(self, key: str) -> None:
        """Forget an entry."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError:
            return

    def info(self) -> CacheInfo:
        """The folder, the number of its entries, their bytes together and the limit."""
        sizes = [size for _, size, _ in self._entries()]
        return CacheInfo(self.folder, len(sizes), sum(sizes), self.limit)

    def clear(self) -> CacheInfo:
        """Delete every entry; what there was."""
        before = self.info()
        for path in [*(path for _, _, path in self._entries()), *unfinished(self.folder)]:
            path.unlink(missing_ok=True)
        return before

    def _shrink(self) -> None:
        """Delete the entries that were not used for longest, until the others fit, and what ended processes left."""
        for path in unfinished(self.folder):
            path.unlink(missing_ok=True)
        entries = sorted(self._entries())
        size = sum(size for _, size, _ in entries)
        for _, own, path in entries[:-1]:
            if size <= self.limit:
                return
            path.unlink(missing_ok=True)
            size -= own

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                status = path.stat()
            except OSError:  # another process has just deleted it
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found

    def path(self, key: str) -> Path:
        """The file of a key, whether or not it is there."""
        return self.folder / f"{key}{_SUFFIX}"


def code_cache() -> CodeCache | None:
    """The cache of this user, ``None`` where the environment turns it off.

    ``$TORCH_TVM_CACHE_SIZE`` is its size in bytes, ``500M`` or ``2G``. Raises :class:`InvalidInput` for another text.
    """
    folder = cache_folder()
    return None if folder is None else CodeCache(folder / "code", _limit(os.environ.get(LIMIT, "")))


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    scale = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit)
    if scale is None or not number.isascii() or not number.isdigit():
        raise InvalidInput(f"'{text}' is no size", subject=LIMIT, advice="write bytes, 500M or 2G")
    return int(number) * scale


def _is_own(path: Path) -> bool:
    """Whether this user owns a file or folder that nobody else can write."""
    if not hasattr(os, "geteuid"):  # Windows: a user's folders are the user's
        return True
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


__all__ = ["CacheInfo", "CodeCache", "code_cache"]
