"""Sums, differences and products of integers that wrap around, as ATen's do.

TVM and LLVM take it that integers of 32 and 64 bits never overflow: ``(x * 2) // 2`` is ``x`` for them, ``x + 1 > x``
true. So 32 bits are computed in 64, and 64 bits in halves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tvm
from tvm import tirx

Expr: TypeAlias = tvm.ir.Expr
_LOW = (1 << 32) - 1


def plus(x: Expr, y: Expr) -> Expr:
    """``x + y``."""
    return _computed(x, y, lambda u, v: u + v, _sum)


def minus(x: Expr, y: Expr) -> Expr:
    """``x - y``."""
    return _computed(x, y, lambda u, v: u - v, lambda u, v: _sum(_sum(u, ~v), tirx.const(1, "int64")))


def product(x: Expr, y: Expr) -> Expr:
    """``x * y``."""
    return _computed(x, y, lambda u, v: u * v, _product)


def negative(x: Expr) -> Expr:
    """``-x``, which is ``x`` for the least integer."""
    return minus(tirx.const(0, str(x.ty.dtype)), x)


def magnitude(x: Expr) -> Expr:
    """``abs(x)``, which is ``x`` for the least integer."""
    return tirx.Select(x < tirx.const(0, str(x.ty.dtype)), negative(x), x)


def may_overflow(dtype: str) -> bool:
    """Whether the compilers take it that arithmetic of a dtype does not overflow."""
    return dtype in ("int32", "int64")


def _computed(x: Expr, y: Expr, plain: Callable[[Expr, Expr], Expr], in_halves: Callable[[Expr, Expr], Expr]) -> Expr:
    dtype = str(x.ty.dtype)
    if not may_overflow(dtype):
        return plain(x, y)
    if dtype == "int32":
        return plain(x.astype("int64"), y.astype("int64")).astype("int32")
    return in_halves(x, y)


def _low(x: Expr) -> Expr:
    return x & tirx.const(_LOW, "int64")


def _joined(high: Expr, low: Expr) -> Expr:
    """The lower halves of both, side by side."""
    return (high << tirx.const(32, "int64")) | _low(low)


def _sum(x: Expr, y: Expr) -> Expr:
    low = _low(x) + _low(y)
    shift = tirx.const(32, "int64")
    return _joined((x >> shift) + (y >> shift) + (low >> shift), low)


def _product(x: Expr, y: Expr) -> Expr:
    shift = tirx.const(32, "int64")
    halves = [_low(x), _low(x >> shift), _low(y), _low(y >> shift)]
    low_x, high_x, low_y, high_y = (half.astype("uint64") for half in halves)
    low = low_x * low_y
    carry = (low >> tirx.const(32, "uint64")).astype("int64")
    crossed = [_low((a * b).astype("int64")) for a, b in ((high_x, low_y), (low_x, high_y))]
    return _joined(carry + crossed[0] + crossed[1], low.astype("int64"))


__all__ = ["magnitude", "may_overflow", "minus", "negative", "plus", "product"]
