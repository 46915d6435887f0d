"""Where files lie that a process leaves for the next ones."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

VARIABLE = "TORCH_TVM_CACHE"
_OFF = ("0", "off")


def cache_folder() -> Path | None:
    """``$TORCH_TVM_CACHE``, else the platform's folder for caches; ``None`` where the variable is ``0`` or ``off``."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() in _OFF:
        return None
    return Path(given) if given else platformdirs.user_cache_path("torch_tvm")


__all__ = ["VARIABLE", "cache_folder"]
