"""``torch-tvm cache info|clear``: the compiled code that is kept on disk."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from torch_tvm.artifact.code_cache import code_cache


def run(command: argparse.Namespace) -> int:
    """Say what the cache holds, or delete it."""
    cache = code_cache()
    found = None if cache is None else cache.clear() if command.what == "clear" else cache.info()
    if command.json:
        values = None if found is None else {**asdict(found), "folder": str(found.folder)}
        print(json.dumps({"is_on": found is not None, "done": command.what, "cache": values}, indent=1))
        return 0
    if found is None:
        print("the cache is off (TORCH_TVM_CACHE)")
        return 0
    done = "deleted " if command.what == "clear" else ""
    size = f"{found.size / (1 << 20):.1f} of {found.limit / (1 << 20):.0f} MB"
    print(f"{found.folder}: {done}{found.entries} {'entry' if found.entries == 1 else 'entries'}, {size}")
    return 0


__all__ = ["run"]
