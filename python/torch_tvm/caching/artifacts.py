"""Code among the artifacts of ``torch.compiler.save_cache_artifacts``, for another machine of the same kind."""

from __future__ import annotations

import re
from pathlib import Path

from torch.compiler import _cache

_TYPE = "torch_tvm"
_KEY = re.compile("[0-9a-f]{64}")


class CodeArtifact(_cache.CacheArtifact):
    """One entry of the code cache: the bytes of its file, under its key."""

    def populate_cache(self) -> None:
        """Put the entry into the cache of this user, where there is none yet; where the cache is off, nothing is done.

        What the cache needs is imported only here: every process that imports PyTorch imports this file.
        """
        from torch_tvm.artifact.code_cache import code_cache

        cache = code_cache()
        if cache is not None and _KEY.fullmatch(self.key) and cache.find(self.key) is None:
            cache.add(self.key, lambda path: path.write_bytes(self.content))

    @staticmethod
    def type() -> str:
        return _TYPE


_cache.CacheArtifactFactory.register(CodeArtifact)


def record(key: str, path: Path) -> None:
    """Note an entry for the next ``torch.compiler.save_cache_artifacts``."""
    try:
        content = path.read_bytes()
    except OSError:  # another process has just deleted it, or the folder cannot be written
        return
    _cache.CacheArtifactManager.record_artifact(_TYPE, key, content)


__all__ = ["CodeArtifact", "record"]
