"""Transcendental functions as polynomials that LLVM keeps in vectors.

TVM lowers ``exp``, ``tanh``, ``erf`` and their like to one libm call for each element (2 to 16 ns). Here they
become range reductions and minimax polynomials in float32, fitted for this file by Lawson's algorithm, with
errors of a few units in the last place. NaN, infinities, denormals and huge arguments give what libm gives.
float16 and bfloat16 are computed in float32; float64 stays with libm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Var

LOG2E = 1.4426950408889634
LN2_HIGH = 0.693359375
LN2_LOW = -2.12194440e-4
SHIFT = 12582912.0
"""1.5 * 2**23: adding it to a small integer leaves that integer in the low bits of the float."""

EXP = (0.5, 0.16666515171527863, 0.04166845604777336, 0.008369418792426586, 0.0013813142431899905)
LOG = (
    0.3333333134651184,
    -0.250008225440979,
    0.20001226663589478,
    -0.16623356938362122,
    0.14201761782169342,
    -0.131601944565773,
    0.12761549651622772,
    -0.07634429633617401,
)
SIN = (-0.16666653752326965, 0.008332131430506706, -0.00019510839774738997)
COS = (0.04166664555668831, -0.0013887305976822972, 2.4431205019936897e-05)
ERF_LIMIT = 3.93
ERF_NUMERATOR = (
    1.1283791065216064,
    0.19076067209243774,
    0.052786849439144135,
    0.0037785228341817856,
    0.00028476896113716066,
    2.041945435848902e-06,
)
ERF_DENOMINATOR = (
    1.0,
    0.5023899674415588,
    0.11424762010574341,
    0.014995262026786804,
    0.001164921559393406,
    3.80017445422709e-05,
)
Expr: TypeAlias = tirx.Expr


class Lets:
    """Names the steps of a computation, so that each is computed once: ``close`` wraps them around the
    result."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.steps: list[tuple[Var, Expr]] = []

    def __call__(self, value: Expr) -> Var:
        var = Var("m", value.ty)
        self.steps.append((var, value))
        return var

    def close(self, result: Expr) -> Expr:
        for var, value in reversed(self.steps):
            result = tirx.Let(var, value, result)
        return result

    def const(self, value: float, dtype: str = "float32") -> Expr:
        scalar = tirx.FloatImm(dtype, value) if dtype.startswith("float") else tirx.IntImm(dtype, int(value))
        return scalar if self.lanes == 1 else tirx.Broadcast(scalar, self.lanes)

    def dtype(self, name: str) -> str:
        return name if self.lanes == 1 else f"{name}x{self.lanes}"

    def bits(self, value: Expr) -> Expr:
        return tirx.reinterpret(self.dtype("int32"), value)

    def floats(self, value: Expr) -> Expr:
        return tirx.reinterpret(self.dtype("float32"), value)

    def horner(self, x: Expr, coefficients: tuple[float, ...], dtype: str = "float32") -> Expr:
        result = self.const(coefficients[-1], dtype)
        for coefficient in reversed(coefficients[:-1]):
            result = result * x + self.const(coefficient, dtype)
        return self(result)

    def clamp(self, x: Expr, low: float, high: float) -> Var:
        """``x`` within bounds; NaN stays NaN."""
        upper = self(tirx.Select(x > self.const(high), self.const(high), x))
        return self(tirx.Select(upper < self.const(low), self.const(low), upper))

    def split_sign(self, x: Expr) -> tuple[Var, Var]:
        """The magnitude of ``x``, and its sign bit."""
        bits = self(self.bits(x))
        magnitude = self.floats(tirx.bitwise_and(bits, self.const(0x7FFFFFFF, "int32")))
        return self(magnitude), self(tirx.bitwise_and(bits, self.const(-(1 << 31), "int32")))

    def with_sign(self, magnitude: Expr, sign: Expr) -> Var:
        """The non-negative ``magnitude`` with the sign bit set as in ``sign``."""
        return self(self.floats(tirx.bitwise_or(self.bits(magnitude), sign)))

    def power_of_two(self, whole: Expr) -> Var:
        """``2 ** whole`` for an integral float from -126 to 127."""
        bits = self.bits(whole + self.const(SHIFT)) + self.const(127, "int32")
        return self(self.floats(tirx.shift_left(bits, self.const(23, "int32"))))

    def exact(self, value: Expr) -> Var:
        """``value`` rounded to float32 here: nothing is simplified across it."""
        return self(self.floats(self(self.bits(value))))


def _reduced(m: Lets, x: Expr) -> tuple[Var, Var]:
    """``n`` and ``exp(r) - 1`` with ``x = n ln 2 + r`` and ``|r| <= ln 2 / 2``."""
    _, n = _nearest(m, x * m.const(LOG2E))
    return n, _expm1_reduced(m, x, n)


def _nearest(m: Lets, x: Expr) -> tuple[Var, Var]:
    """The integer nearest to ``x``, once with :data:`SHIFT` added (for its bits) and once without."""
    shifted = m.exact(x + m.const(SHIFT))
    return shifted, m(shifted - m.const(SHIFT))


def _expm1_reduced(m: Lets, x: Expr, n: Expr) -> Var:
    r = m((x - n * m.const(LN2_HIGH)) - n * m.const(LN2_LOW))
    return m(r * r * m.horner(r, EXP) + r)


def _scaled(m: Lets, n: Expr, mantissa: Expr) -> Expr:
    """``mantissa * 2 ** n`` for n from -252 to 254, gradual underflow and overflow included."""
    half = m(tirx.floor(n * m.const(0.5)))
    return mantissa * m.power_of_two(half) * m.power_of_two(n - half)


def _exp(m: Lets, x: Expr) -> Expr:
    """Results below the smallest normal number are 0."""
    x = m(tirx.Select(x > m.const(89.0), m.const(89.0), x))
    shifted, n = _nearest(m, x * m.const(LOG2E))
    q = _expm1_reduced(m, x, n)
    bits = m.bits(shifted) + m.const(126, "int32")
    half_scale = m(m.floats(tirx.shift_left(bits, m.const(23, "int32"))))
    half = m(q * half_scale + half_scale)
    return tirx.Select(x < m.const(-87.0), m.const(0.0), half + half)


def _exp2(m: Lets, x: Expr) -> Expr:
    x = m.clamp(x, -151.0, 129.0)
    n = m(tirx.floor(x + m.const(0.5)))
    r = m((x - n) * m.const(math.log(2.0)))
    return _scaled(m, n, r * r * m.horner(r, EXP) + r + m.const(1.0))


def _exp10(m: Lets, x: Expr) -> Expr:
    x = m.clamp(x, -46.0, 39.0)
    n = m(tirx.floor(x * m.const(math.log2(10.0)) + m.const(0.5)))
    r = m((x - n * m.const(0.301025390625)) - n * m.const(4.6050389811952137e-6))
    r = m(r * m.const(math.log(10.0)))
    return _scaled(m, n, r * r * m.horner(r, EXP) + r + m.const(1.0))


def _log_parts(m: Lets, x: Expr) -> tuple[Var, Var, Var]:
    """``e``, ``f`` and ``log(1 + f) - f`` with ``x = 2 ** e * (1 + f)`` for positive finite ``x``."""
    tiny = x < m.const(1.1754943508222875e-38)
    scaled = m(tirx.Select(tiny, x * m.const(8388608.0), x))
    root_half = 0x3F3504F3
    bits = m(m.bits(scaled) - m.const(root_half, "int32"))
    whole = tirx.Cast(m.dtype("float32"), tirx.shift_right(bits, m.const(23, "int32")))
    e = m(whole - tirx.Select(tiny, m.const(23.0), m.const(0.0)))
    mantissa = m.floats(tirx.bitwise_and(bits, m.const(0x7FFFFF, "int32")) + m.const(root_half, "int32"))
    f = m(mantissa - m.const(1.0))
    z = m(f * f)
    return e, f, m(z * (f * m.horner(f, LOG)) - z * m.const(0.5))


def _log_ends(m: Lets, x: Expr, inside: Expr) -> Expr:
    """The values of a logarithm at its ends: 0, infinity, and nothing below."""
    infinity, nan = m.const(math.inf), m.const(math.nan)
    inside = m(tirx.Select(x == m.const(0.0), m.const(-math.inf), inside))
    inside = m(tirx.Select(x < m.const(0.0), nan, inside))
    return tirx.Select(x < infinity, inside, x)


def _natural_log(m: Lets, x: Expr) -> Expr:
    e, f, rest = _log_parts(m, x)
    return (rest + e * m.const(LN2_LOW)) + f + e * m.const(LN2_HIGH)


def _log(m: Lets, x: Expr) -> Expr:
    return _log_ends(m, x, m(_natural_log(m, x)))


def _log_base(base: float) -> Callable[[Lets, Expr], Expr]:
    scale, per_octave = 1.0 / math.log(base), math.log(2.0) / math.log(base)

    def build(m: Lets, x: Expr) -> Expr:
        e, f, rest = _log_parts(m, x)
        return _log_ends(m, x, m((f + rest) * m.const(scale) + e * m.const(per_octave)))

    return build


def _log1p(m: Lets, x: Expr) -> Expr:
    u = m.exact(x + m.const(1.0))
    lost = m(x - m.exact(u - m.const(1.0)))
    safe = m(tirx.Select(u > m.const(0.0), u, m.const(1.0)))
    inside = m(_natural_log(m, safe) + lost / safe)
    ends = m(_log_ends(m, u, inside))
    plain = m(tirx.Select(u < m.const(math.inf), ends, x))
    return tirx.Select(x == m.const(0.0), x, plain)


def _tanh(m: Lets, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    n, q = _reduced(m, m.clamp(magnitude * m.const(-2.0), -30.0, 0.0))
    scale = m.power_of_two(n)
    t = m((m.const(1.0) - scale) - scale * q)
    return m.with_sign(t / (m.const(2.0) - t), sign)


def _sigmoid(m: Lets, x: Expr) -> Expr:
    return m.const(1.0) / (m.const(1.0) + _exp(m, m(m.const(0.0) - x)))


def _erf(m: Lets, x: Expr) -> Expr:
    x = m.clamp(x, -ERF_LIMIT, ERF_LIMIT)
    z = m(x * x)
    value = m(x * m.horner(z, ERF_NUMERATOR) / m.horner(z, ERF_DENOMINATOR))
    return m.clamp(value, -1.0, 1.0)


def _sinh(m: Lets, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    n, q = _reduced(m, m.clamp(magnitude, 0.0, 89.5))
    scale = m.power_of_two(n - m.const(2.0))
    quarter = m(scale * q + (scale - m.const(0.25)))
    other = m(m.const(0.25) / (m.const(0.25) / quarter + m.const(1.0)))
    signed = m.with_sign((quarter + other) * m.const(2.0), sign)
    return tirx.Select(magnitude < m.const(1e-4), x, signed)


def _cosh(m: Lets, x: Expr) -> Expr:
    magnitude, _ = m.split_sign(x)
    n, q = _reduced(m, m.clamp(magnitude, 0.0, 89.5))
    half = m((q + m.const(1.0)) * m.power_of_two(n - m.const(2.0)))
    return half * m.const(2.0) + m.const(0.125) / half


def _round(m: Lets, x: Expr) -> Expr:
    """To the nearest integer, halves to even."""
    magnitude, sign = m.split_sign(x)
    rounded = m.exact(m.exact(magnitude + m.const(8388608.0)) - m.const(8388608.0))
    signed = m.with_sign(rounded, sign)
    return tirx.Select(magnitude < m.const(8388608.0), signed, x)


FUNCTIONS: dict[str, Callable[[Lets, Expr], Expr]] = {
    "exp": _exp,
    "exp2": _exp2,
    "exp10": _exp10,
    "log": _log,
    "log2": _log_base(2.0),
    "log10": _log_base(10.0),
    "log1p": _log1p,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "sinh": _sinh,
    "cosh": _cosh,
    "round": _round,
    "nearbyint": _round,
}


def vectorizable_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with the calls that :data:`FUNCTIONS` knows replaced by polynomials.

    ``T[i] = exp(a[i])`` becomes ``T[i] = let n = floor(a[i] * 1.44 + 0.5) in ... p(r) * 2 ** n``.
    """

    def visit(call: tvm.ir.Call) -> Expr:
        name = getattr(call.op, "name", "").rpartition(".")[2]
        if name == "pow":
            return _small_power(call)
        build = FUNCTIONS.get(name)
        if build is None or not getattr(call.op, "name", "").startswith(("tirx.", "prim.")):
            return call
        return _in_float32(build, call)

    callbacks = [(tvm.ir.Call, visit), ((tirx.Max, tirx.Min), _keep_nan)]
    return func.with_body(tvm_ffi.structural_map(func.body, callbacks))


def _keep_nan(node: tirx.Max | tirx.Min) -> Expr:
    """``max`` and ``min`` of floats as PyTorch has them: NaN if either side is (TVM's drop it)."""
    dtype = str(node.ty.dtype).partition("x")[0]
    if not dtype.startswith(("float", "bfloat")) or dtype.startswith("float8"):
        return node
    above = isinstance(node, tirx.Max)
    m = Lets(tvm.DataType(str(node.ty.dtype)).lanes)
    if dtype == "bfloat16":
        wide = [tirx.Cast(m.dtype("float32"), side) for side in (node.a, node.b)]
        return tirx.Cast(str(node.ty.dtype), _keep_nan(type(node)(*wide)))
    if _is_plain(node.b):
        a = m(node.a)
        return m.close(tirx.Select(a < node.b if above else a > node.b, node.b, a))
    name = "llvm.maximum" if above else "llvm.minimum"
    return tirx.call_llvm_pure_intrin(str(node.ty.dtype), name, node.a, node.b)


def _is_plain(expr: Expr) -> bool:
    """Whether ``expr`` is a constant, and not NaN."""
    inner = expr.value if isinstance(expr, tirx.Broadcast) else expr
    return isinstance(inner, tirx.FloatImm) and not math.isnan(inner.value)


def _small_power(call: tvm.ir.Call) -> Expr:
    """Powers that PyTorch takes by multiplication or a root: 2, 3, -1, -2, 0.5, -0.5; others stay with
    libm."""
    base, exponent = call.args
    inner = exponent.value if isinstance(exponent, tirx.Broadcast) else exponent
    power = float(inner.value) if isinstance(inner, (tirx.FloatImm, tirx.IntImm)) else None
    if power not in POWERS or not str(call.ty.dtype).startswith(("float32", "float64")):
        return call
    dtype = tvm.DataType(str(call.ty.dtype))
    m = Lets(dtype.lanes)
    return m.close(POWERS[power](m(base), m.const(1.0, f"float{dtype.bits}")))


POWERS: dict[float, Callable[[Expr, Expr], Expr]] = {
    2.0: lambda x, _: x * x,
    3.0: lambda x, _: x * x * x,
    -1.0: lambda x, one: one / x,
    -2.0: lambda x, one: one / (x * x),
    0.5: lambda x, _: tirx.sqrt(x),
    -0.5: lambda x, one: one / tirx.sqrt(x),
}


def _in_float32(build: Callable[[Lets, Expr], Expr], call: tvm.ir.Call) -> Expr:
    dtype = tvm.DataType(str(call.ty.dtype))
    if str(call.ty.dtype).partition("x")[0] not in ("float32", "float16", "bfloat16"):
        return call
    m = Lets(dtype.lanes)
    argument = call.args[0]
    if dtype.bits != 32:
        argument = tirx.Cast(m.dtype("float32"), argument)
    result = build(m, m(argument))
    if dtype.bits != 32:
        result = tirx.Cast(str(call.ty.dtype), result)
    return m.close(result)
