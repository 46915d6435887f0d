"""Values of one dtype as another, in TIR."""

from __future__ import annotations

import math

import numpy as np
import torch
import tvm
from tvm import tirx

from torch_tvm.tir import bits_of, is_float, is_integer


def held(value: float, dtype: str) -> float:
    """A Python number as a dtype holds it: integers wrap, as a C cast does, floats beyond the largest are infinite."""
    if is_float(dtype):
        is_beyond = abs(value) > torch.finfo(getattr(torch, dtype)).max
        return math.copysign(math.inf, value) if is_beyond else value
    if not is_integer(dtype):
        return bool(value)
    bits = bits_of(dtype)
    low = (int(value) if math.isfinite(value) else -(1 << 63)) & ((1 << bits) - 1)
    return low - (1 << bits) if not dtype.startswith("uint") and low >> (bits - 1) else low


def convert(value: tvm.ir.Expr, dtype: str) -> tvm.ir.Expr:
    """A TIR value as another dtype, with ATen's rules.

    Anything but zero is true; fractions are cut off; a small integer takes the low bits of a large float.
    """
    source = str(value.ty.dtype)
    if source == dtype:
        return value
    if dtype == "bool":
        value = convert(value, "float32") if source in ("bfloat16", "float16") else value
        return differs(value, tirx.const(0, str(value.ty.dtype)))
    if source == "bfloat16" and dtype != "float32":
        return convert(tirx.Cast("float32", value), dtype)
    if dtype == "bfloat16" and source != "float32":
        return tirx.Cast(dtype, convert(value, "float32"))
    if source.startswith("float") and dtype.startswith(("int", "uint")) and dtype not in ("int64", "int32"):
        return tirx.Cast(dtype, tirx.Cast("int32", value))
    return tirx.Cast(dtype, value)


def same(x: tvm.ir.Expr, y: tvm.ir.Expr) -> tvm.ir.Expr:
    """``x == y`` (Python's own operator is not an expression yet)."""
    return tirx.EQ(x, y)


def differs(x: tvm.ir.Expr, y: tvm.ir.Expr) -> tvm.ir.Expr:
    """``x != y``, true when a float is NaN (TVM's own comparison is false there)."""
    dtype = str(x.ty.dtype)
    if dtype == "bool":
        return tirx.any(tirx.all(x, tirx.Not(y)), tirx.all(tirx.Not(x), y))
    if not dtype.startswith(("float", "bfloat")):
        return tirx.NE(x, y)
    return tirx.any(x < y, x > y, is_nan(x), is_nan(y))


def power(base: tvm.ir.Expr, exponent: tvm.ir.Expr) -> tvm.ir.Expr:
    """``base ** exponent`` of floats. TVM prints a line wherever it meets a constant exponent of 3 or more, so that is
    given by its bits.
    """
    dtype = str(base.ty.dtype)
    if isinstance(exponent, tirx.FloatImm) and dtype in _WORDS:
        word = _WORDS[dtype]
        bits = np.asarray(exponent.value, dtype).view(word)
        exponent = tirx.reinterpret(dtype, tirx.const(int(bits), word))
    return tirx.call_intrin(base.ty, "tirx.pow", base, exponent)


_WORDS = {"float16": "uint16", "float32": "uint32", "float64": "uint64"}


def is_nan(value: tvm.ir.Expr) -> tvm.ir.Expr:
    """Whether a float is NaN (TVM's own test has no form for bfloat16)."""
    return tirx.isnan(convert(value, "float32") if str(value.ty.dtype) == "bfloat16" else value)


def loaded(value: tvm.ir.Expr) -> tvm.ir.Expr:
    """An element as it is computed with: a boolean is tested anew, since its buffer may turn into one of bytes."""
    if str(value.ty.dtype) != "bool":
        return value
    return tirx.NE(tirx.Cast("int32", value), tirx.const(0, "int32"))


def rounded(value: tvm.ir.Expr) -> tvm.ir.Expr:
    """A float32 with the nearest value that bfloat16 has, the even one of two; NaN stays NaN.

    TVM computes bfloat16 in float32 and drops a conversion there and back, ``float32(bfloat16(x))``. Where a program
    asks for one, the bits are rounded first; what is dropped then changes nothing.
    """
    bits = tirx.reinterpret("uint32", value)
    word = lambda number: tirx.const(number, "uint32")
    last = tirx.bitwise_and(bits >> word(16), word(1))
    near = tirx.bitwise_and(bits + word(0x7FFF) + last, word(0xFFFF0000))
    return tirx.Select(tirx.isnan(value), value, tirx.reinterpret("float32", near))
