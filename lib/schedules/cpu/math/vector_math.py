"""Transcendental functions as polynomials that LLVM keeps in vectors.

TVM lowers ``exp``, ``tanh``, ``erf`` and their like to one libm call for each element (2 to 16 ns), and so do
explicit calls of libm. Both become range reductions and polynomials here. float16 and bfloat16 are computed in
float32; what has no float64 form stays with libm there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from torch_tvm.schedules.cpu.math import exponentials, powers, trigonometry
from torch_tvm.schedules.cpu.math.let_builder import Expr, LetBuilder
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import FORMATS, is_float

Function = Callable[..., Expr]


def _copysign(m: LetBuilder, magnitude: Expr, sign: Expr) -> Expr:
    return m.with_sign(m.split_sign(magnitude)[0], m.split_sign(sign)[1])


def _rsqrt(m: LetBuilder, x: Expr) -> Expr:
    return m.const(1.0) / tirx.sqrt(x)


FLOAT64: dict[str, Function] = {
    "rsqrt": _rsqrt,
    "exp": exponentials.exp,
    "exp2": exponentials.exp2,
    "expm1": exponentials.expm1,
    "log": exponentials.log,
    "log2": exponentials.log_base(2.0),
    "log10": exponentials.log_base(10.0),
    "log1p": exponentials.log1p,
    "tanh": exponentials.tanh,
    "sigmoid": exponentials.sigmoid,
    "sinh": exponentials.sinh,
    "cosh": exponentials.cosh,
    "asinh": exponentials.asinh,
    "acosh": exponentials.acosh,
    "atanh": exponentials.atanh,
    "round": exponentials.round_half_even,
    "nearbyint": exponentials.round_half_even,
    "copysign": _copysign,
}
"""The functions that have a float64 form."""

FUNCTIONS: dict[str, Function] = {
    **FLOAT64,
    "exp10": exponentials.exp10,
    "erf": exponentials.erf,
    "erfc": exponentials.erfc,
    "sin": trigonometry.sin,
    "cos": trigonometry.cos,
    "tan": trigonometry.tan,
    "asin": trigonometry.asin,
    "acos": trigonometry.acos,
    "atan": trigonometry.atan,
    "atan2": trigonometry.atan2,
    "pow": powers.pow,
}
"""The functions that have a float32 form, by the name of their TIR operator and of libm's function."""


def vectorizable_math(func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
    """``func`` with the calls that :data:`FUNCTIONS` knows replaced by polynomials.

    ``T[i] = exp(a[i])`` becomes ``T[i] = let n = floor(a[i] * 1.44 + 0.5) in ... p(r) * 2 ** n``.
    """
    callbacks = [(tvm.ir.Call, _vector_call), ((tirx.Max, tirx.Min), lambda node: _keep_nan(node, cpu))]
    return func.with_body(tvm_ffi.structural_map(func.body, callbacks))


def _vector_call(call: tvm.ir.Call) -> Expr:
    dtype = str(getattr(call.ty, "dtype", "")).partition("x")[0]
    name, operands = called(call, dtype)
    if name in ("isnan", "isfinite"):
        return _classified(call, name, operands[0])
    if name == "pow" and (small := _small_power(call)) is not None:
        return small
    build = (FLOAT64 if dtype == "float64" else FUNCTIONS).get(name)
    if build is None or dtype not in ("float64", "float32", "float16", "bfloat16"):
        return call
    return _computed(build, operands, str(call.ty.dtype))


def _classified(call: tvm.ir.Call, name: str, operand: Expr) -> Expr:
    dtype = tvm.DataType(str(operand.ty.dtype))
    m = LetBuilder(dtype.lanes, str(operand.ty.dtype).partition("x")[0])
    if m.real not in FORMATS:
        return call
    return m.is_nan(operand) if name == "isnan" else m.is_finite(operand)


def called(call: tvm.ir.Call, dtype: str) -> tuple[str, list[Expr]]:
    """The function that ``call`` computes and its operands; an empty name where it is none of those here."""
    name, operands = getattr(call.op, "name", ""), list(call.args)
    if name == "tirx.call_pure_extern":
        symbol = str(operands[0].value)
        return symbol.removesuffix("f") if dtype == "float32" else symbol, operands[1:]
    prefix, _, plain = name.rpartition(".")
    return (plain, operands) if prefix in ("tirx", "prim") else ("", operands)


def _keep_nan(node: tirx.Max | tirx.Min, cpu: CpuModel) -> Expr:
    """``max`` and ``min`` of floats as PyTorch has them: NaN if either side is (TVM's drop it)."""
    dtype = str(node.ty.dtype).partition("x")[0]
    if not is_float(dtype) or dtype.startswith("float8"):
        return node
    above = isinstance(node, tirx.Max)
    m = LetBuilder(tvm.DataType(str(node.ty.dtype)).lanes, dtype)
    if dtype in ("bfloat16", "float16"):
        wide = type(node)(_widened(node.a, m), _widened(node.b, m))
        return tirx.Cast(str(node.ty.dtype), _keep_nan(wide, cpu))
    beyond = (lambda x, y: x > y) if above else (lambda x, y: x < y)
    if _is_plain(node.b):
        a = m(node.a)
        return m.close(tirx.Select(beyond(node.b, a), node.b, a))
    extremum = cpu.extremum(above)
    if not extremum.is_portable:
        return extremum(node.a, node.b)
    return m.close(extremum(m(node.a), m(node.b)))


def _widened(expr: Expr, m: LetBuilder) -> Expr:
    """``expr`` in float32; a constant stays one."""
    inner = _of_all_lanes(expr)
    if not isinstance(inner, tirx.FloatImm) or not _is_plain(inner):
        return tirx.Cast(m.dtype("float32"), expr)
    return LetBuilder(m.lanes).const(inner.value)


def _is_plain(expr: Expr) -> bool:
    """Whether ``expr`` is a constant, and not NaN."""
    inner = _of_all_lanes(expr)
    return isinstance(inner, tirx.FloatImm) and not math.isnan(inner.value)


def _of_all_lanes(expr: Expr) -> Expr:
    """The scalar that ``expr`` repeats, if it does; otherwise ``expr``."""
    return expr.value if isinstance(expr, tirx.Broadcast) else expr


def _small_power(call: tvm.ir.Call) -> Expr | None:
    """Powers that PyTorch takes by multiplication or a root: 2, 3, -1, -2, 0.5, -0.5."""
    base, exponent = call.args
    inner = _of_all_lanes(exponent)
    power = float(inner.value) if isinstance(inner, (tirx.FloatImm, tirx.IntImm)) else None
    if power not in POWERS or not str(call.ty.dtype).startswith(("float32", "float64")):
        return None
    dtype = tvm.DataType(str(call.ty.dtype))
    m = LetBuilder(dtype.lanes, f"float{dtype.bits}")
    return m.close(POWERS[power](m(base), m.const(1.0)))


POWERS: dict[float, Callable[[Expr, Expr], Expr]] = {
    2.0: lambda x, _: x * x,
    3.0: lambda x, _: x * x * x,
    -1.0: lambda x, one: one / x,
    -2.0: lambda x, one: one / (x * x),
    0.5: lambda x, _: tirx.sqrt(x),
    -0.5: lambda x, one: one / tirx.sqrt(x),
}


def _computed(build: Function, operands: list[Any], dtype: str) -> Expr:
    kind = tvm.DataType(dtype)
    m = LetBuilder(kind.lanes, "float64" if kind.bits == 64 else "float32")
    if kind.bits < 32:
        operands = [tirx.Cast(m.dtype("float32"), operand) for operand in operands]
    result = build(m, *(m(operand) for operand in operands))
    return m.close(result if kind.bits >= 32 else tirx.Cast(dtype, result))
