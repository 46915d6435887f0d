"""Values of one dtype as another, in TIR."""

from __future__ import annotations

import tvm
from tvm import tirx


def convert(value: tvm.ir.Expr, dtype: str) -> tvm.ir.Expr:
    """A TIR value as another dtype, with ATen's rules.

    Anything but zero is true; fractions are cut off; a small integer takes the low bits of a large float;
    bfloat16 rounds to nearest even (spelled out in bits: TVM's own form does not vectorise).
    """
    source = str(value.ty.dtype)
    if source == dtype:
        return value
    if dtype == "bool":
        value = convert(value, "float32") if source in ("bfloat16", "float16") else value
        return differs(value, tirx.const(0, str(value.ty.dtype)))
    if source == "bfloat16":
        return convert(_from_bfloat16(value), dtype)
    if dtype == "bfloat16":
        return _to_bfloat16(convert(value, "float32"))
    if source.startswith("float") and dtype.startswith(("int", "uint")) and dtype != "int64":
        return tirx.Cast(dtype, tirx.Cast("int64", value))
    return tirx.Cast(dtype, value)


def _from_bfloat16(value: tvm.ir.Expr) -> tvm.ir.Expr:
    bits = tirx.Cast("uint32", tirx.reinterpret("uint16", value))
    return tirx.reinterpret("float32", bits << tirx.const(16, "uint32"))


def _to_bfloat16(value: tvm.ir.Expr) -> tvm.ir.Expr:
    bits = tirx.reinterpret("uint32", value)
    upper = bits >> tirx.const(16, "uint32")
    rounded = (bits + (upper & tirx.const(1, "uint32")) + tirx.const(0x7FFF, "uint32")) >> tirx.const(16, "uint32")
    kept = tirx.Select(tirx.isnan(value), tirx.const(0x7FC0, "uint32"), rounded)
    return tirx.reinterpret("bfloat16", tirx.Cast("uint16", kept))


def differs(x: tvm.ir.Expr, y: tvm.ir.Expr) -> tvm.ir.Expr:
    """``x != y``, true when a float is NaN (TVM's own comparison is false there)."""
    dtype = str(x.ty.dtype)
    if dtype == "bool":
        return tirx.any(tirx.all(x, tirx.Not(y)), tirx.all(tirx.Not(x), y))
    if not dtype.startswith("float"):
        return x != y
    return tirx.any(x < y, x > y, tirx.isnan(x), tirx.isnan(y))
