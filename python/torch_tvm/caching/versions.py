"""What changes when anything that makes code does."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def versions() -> str:
    """The versions of what this package is built on, and its own sources as they lie on the disk."""
    stamp = hashlib.sha256()
    root = Path(__file__).parent
    for folder, _, files in sorted(os.walk(root, followlinks=True)):
        for name in sorted(files):
            if name.endswith((".py", ".in")):
                path = Path(folder) / name
                status = path.stat()
                stamp.update(f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    built_on = [metadata.version(name) for name in ("torch", "torch-mlir", "apache-tvm")]
    return " ".join([*built_on, stamp.hexdigest()])


__all__ = ["versions"]
