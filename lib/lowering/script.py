"""Kernels written with TVM's script builder."""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T


def allocate(count: Any, dtype: str, scope: str = "global") -> Any:
    """``count`` elements of memory, read and written by ``[i]``; of each thread's own where ``scope`` is "local"."""
    return T.buffer_proxy(T.alloc_buffer((count,), dtype, scope=scope))
