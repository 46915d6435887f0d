"""What the names of dtypes say."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: ``mantissa`` stored bits, exponents biased by ``bias``."""

    bits: int
    mantissa: int
    bias: int

    @property
    def shift(self) -> float:
        """Adding it to a small integer leaves that integer in the low bits of the float."""
        return 1.5 * 2.0**self.mantissa

    @property
    def smallest(self) -> float:
        """The smallest normal number."""
        return 2.0 ** (1 - self.bias)


FORMATS = {"float32": Format(32, 23, 127), "float64": Format(64, 52, 1023)}
