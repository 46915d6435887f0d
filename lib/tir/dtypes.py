"""What the names of dtypes say."""

from __future__ import annotations

import tvm

HALF = ("float16", "bfloat16")


def is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def is_integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint"))


def compute_dtype(dtype: str) -> str:
    """The dtype that ATen computes and sums in for a result of ``dtype``: float32 for the half types."""
    return "float32" if dtype in HALF else dtype


def bits_of(dtype: object) -> int:
    """Bits of one element."""
    return tvm.DataType(str(dtype)).bits


def bytes_of(dtype: object) -> int:
    """Bytes of one element, at least one."""
    return max(1, bits_of(dtype) // 8)


def vector_of(dtype: str, lanes: int) -> str:
    """The dtype of ``lanes`` elements side by side."""
    return f"{dtype}x{lanes}" if lanes > 1 else dtype
