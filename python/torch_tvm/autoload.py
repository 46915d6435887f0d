"""What PyTorch runs at the end of its own import, by the entry point ``torch.backends``."""

from __future__ import annotations

import importlib


def autoload() -> None:
    """Make our kind of cache artifact known, so that ``torch.compiler.load_cache_artifacts`` reads it in a process that
    imports nothing of ours. Neither TVM nor MLIR is imported.
    """
    importlib.import_module("torch_tvm.caching.artifacts")  # it may be what imports PyTorch


__all__ = ["autoload"]
