"""What changes when anything that makes code does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def versions() -> str:
    """The versions of what this package is built on, and its own sources."""
    root = Path(__file__).parents[1]
    sources = dict(_sources(root))
    built_on = [metadata.version(name) for name in ("torch", "torch-mlir", "apache-tvm")]
    return " ".join([*built_on, _as_installed(sources) or _as_they_lie(sources)])


def _sources(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, _, files in sorted(os.walk(root, followlinks=True)):
        for name in sorted(files):
            if name.endswith((".py", ".in")):
                path = Path(folder) / name
                yield path.relative_to(root.parent).as_posix(), path.stat()


def _as_installed(sources: Mapping[str, os.stat_result]) -> str | None:
    """A hash of what the installed wheel says of its sources, the same on every machine; ``None`` where they are none
    of a wheel, or were changed after.
    """
    try:
        files = metadata.files("torch-tvm") or []
    except metadata.PackageNotFoundError:
        return None
    listed = {file.as_posix(): file.hash.value for file in files if file.hash and file.as_posix() in sources}
    record = next((file for file in files if file.name == "RECORD"), None)
    if record is None or listed.keys() != sources.keys():
        return None
    installed = os.stat(record.locate()).st_mtime
    if any(status.st_mtime > installed + _SECONDS_OF_AN_INSTALL for status in sources.values()):
        return None
    return hashlib.sha256(repr(sorted(listed.items())).encode()).hexdigest()


def _as_they_lie(sources: Mapping[str, os.stat_result]) -> str:
    """A hash of the sizes and times of sources."""
    lines = [f"{name} {status.st_size} {status.st_mtime_ns}\n" for name, status in sources.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


_SECONDS_OF_AN_INSTALL = 60.0

__all__ = ["versions"]
