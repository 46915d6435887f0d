"""Exponentials, logarithms and what is made of them, in float32 and float64, without libm.

Cody and Waite's range reductions, then polynomials fitted for this file by Lawson's algorithm (float32) and
at Chebyshev points (float64); the float64 logarithm is fdlibm's (Sun Microsystems, ``e_log.c``). Errors are a
few units in the last place; NaN, infinities, denormals and huge arguments give what libm gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.math.let_builder import Expr, LetBuilder

LOG2E = 1.4426950408889634
LN2 = math.log(2.0)


@dataclass(frozen=True)
class Constants:
    """``exp`` has the coefficients of ``(exp(r) - 1 - r) / r²``; ``ln2`` is ``ln 2`` in two parts.

    ``top`` is where exp overflows for sure, ``bottom`` where its result stops being normal, ``tanh`` where
    tanh is 1; ``tiny`` is below what sinh changes.
    """

    exp: tuple[float, ...]
    ln2: tuple[float, float]
    top: float
    bottom: float
    tanh: float
    tiny: float


CONSTANTS = {
    "float32": Constants(
        exp=(0.5, 0.16666515171527863, 0.04166845604777336, 0.008369418792426586, 0.0013813142431899905),
        ln2=(0.693359375, -2.12194440e-4),
        top=89.0,
        bottom=-87.0,
        tanh=15.0,
        tiny=1e-4,
    ),
    "float64": Constants(
        exp=(
            0.5,
            0.16666666666666669,
            0.041666666666623824,
            0.008333333333330039,
            0.0013888888917367081,
            0.00019841269863171557,
            2.4801521057868204e-05,
            2.7557268276905696e-06,
            2.7620201591031547e-07,
            2.5100472505694996e-08,
        ),
        ln2=(0.6931471803691238, 1.9082149292705877e-10),
        top=710.0,
        bottom=-708.0,
        tanh=22.0,
        tiny=1e-8,
    ),
}
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
LOG_ODD = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
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


def expm1_reduced(m: LetBuilder, r: Expr) -> Var:
    """``exp(r) - 1`` for ``|r| <= ln 2 / 2``."""
    return m(r * r * m.horner(r, CONSTANTS[m.real].exp) + r)


def _reduced(m: LetBuilder, x: Expr) -> tuple[Var, Var, Var]:
    """``n``, once shifted and once plain, and ``exp(r) - 1`` with ``x = n ln 2 + r``, ``|r| <= ln 2 / 2``."""
    high, low = CONSTANTS[m.real].ln2
    shifted, n = m.nearest(x * m.const(LOG2E))
    return shifted, n, expm1_reduced(m, m((x - n * m.const(high)) - n * m.const(low)))


def _scaled(m: LetBuilder, n: Expr, mantissa: Expr) -> Expr:
    """``mantissa * 2 ** n`` beyond the exponents of normal numbers, gradual underflow and overflow included."""
    half = m(tirx.floor(n * m.const(0.5)))
    return mantissa * m.power_of_two(half) * m.power_of_two(n - half)


def exp(m: LetBuilder, x: Expr) -> Expr:
    """Results below the smallest normal number are 0."""
    limits = CONSTANTS[m.real]
    x = m(tirx.Select(x > m.const(limits.top), m.const(limits.top), x))
    shifted, _, q = _reduced(m, x)
    half_scale = m.scale_of(shifted, -1)
    half = m(q * half_scale + half_scale)
    return tirx.Select(x < m.const(limits.bottom), m.const(0.0), half + half)


def _exp_within(m: LetBuilder, x: Expr, sign: float = 1.0) -> Expr:
    """``exp(sign * x)`` in float32 for ``sign * x`` from -88 to 89: 0 below -87.7, infinity above 88.4.

    The exponent's bits are all zero at the one end, and all one at the other.
    """
    limits = CONSTANTS["float32"]
    high, low = (sign * part for part in limits.ln2)
    biased = m.const(m.format.shift + m.format.bias)
    shifted = m.exact(x * m.const(sign * LOG2E) + biased)
    n = m(shifted - biased)
    r = m((x - n * m.const(high)) - n * m.const(low))
    scale = m.floats(tirx.shift_left(m.bits(shifted), m.integer(m.format.mantissa)))
    return m.horner(r, [c * sign**k for k, c in enumerate((1.0, 1.0, *limits.exp))]) * scale


def exp_of_nonpositive(m: LetBuilder, x: Expr) -> Expr:
    """exp in float32 for ``x <= 0``: 0 below -87.7, NaN for NaN. It takes fewer steps than :func:`exp`."""
    return _exp_within(m, m(tirx.Select(x < m.const(-88.0), m.const(-88.0), x)))


def expm1(m: LetBuilder, x: Expr) -> Expr:
    limits = CONSTANTS[m.real]
    clamped = m.clamp(x, limits.bottom, limits.top)
    shifted, _, q = _reduced(m, clamped)
    half_scale = m.scale_of(shifted, -1)
    half = m(q * half_scale + (half_scale - m.const(0.5)))
    return tirx.Select(x == m.const(0.0), x, half + half)


def exp2(m: LetBuilder, x: Expr) -> Expr:
    bias = m.format.bias
    x = m.clamp(x, -bias - m.format.mantissa - 1.0, bias + 2.0)
    n = m(tirx.floor(x + m.const(0.5)))
    return _scaled(m, n, expm1_reduced(m, m((x - n) * m.const(LN2))) + m.const(1.0))


def exp10(m: LetBuilder, x: Expr) -> Expr:
    """``10 ** x``, of float32 only."""
    x = m.clamp(x, -46.0, 39.0)
    n = m(tirx.floor(x * m.const(math.log2(10.0)) + m.const(0.5)))
    r = m((x - n * m.const(0.301025390625)) - n * m.const(4.6050389811952137e-6))
    return _scaled(m, n, expm1_reduced(m, m(r * m.const(math.log(10.0)))) + m.const(1.0))


def _log_parts(m: LetBuilder, x: Expr) -> tuple[Var, Var, Var]:
    """``e``, ``f`` and ``log(1 + f) - f`` with ``x = 2 ** e * (1 + f)`` for positive finite ``x``."""
    tiny = x < m.const(m.format.smallest)
    lift = m.format.mantissa
    e, f = m.split_exponent(m(tirx.Select(tiny, x * m.const(2.0**lift), x)))
    e = m(e - tirx.Select(tiny, m.const(lift), m.const(0.0)))
    z = m(f * f)
    half = m(z * m.const(0.5))
    if m.real == "float32":
        return e, f, m(z * (f * m.horner(f, LOG)) - half)
    s = m(f / (f + m.const(2.0)))
    t = m(s * s)
    return e, f, m(s * (half + t * m.horner(t, LOG_ODD)) - half)


def _log_ends(m: LetBuilder, x: Expr, inside: Expr) -> Expr:
    """The values of a logarithm at its ends: 0, infinity, and nothing below."""
    infinity, nan = m.const(math.inf), m.const(math.nan)
    inside = m(tirx.Select(x == m.const(0.0), m.const(-math.inf), inside))
    inside = m(tirx.Select(x < m.const(0.0), nan, inside))
    return tirx.Select(x < infinity, inside, x)


def _natural_log(m: LetBuilder, x: Expr) -> Expr:
    high, low = CONSTANTS[m.real].ln2
    e, f, rest = _log_parts(m, x)
    return (rest + e * m.const(low)) + f + e * m.const(high)


def log(m: LetBuilder, x: Expr) -> Expr:
    return _log_ends(m, x, m(_natural_log(m, x)))


def log_base(base: float) -> Callable[[LetBuilder, Expr], Expr]:
    scale, per_octave = 1.0 / math.log(base), math.log(2.0) / math.log(base)

    def build(m: LetBuilder, x: Expr) -> Expr:
        e, f, rest = _log_parts(m, x)
        return _log_ends(m, x, m((f + rest) * m.const(scale) + e * m.const(per_octave)))

    return build


def log1p(m: LetBuilder, x: Expr) -> Expr:
    u = m.exact(x + m.const(1.0))
    lost = m(x - m.exact(u - m.const(1.0)))
    safe = m(tirx.Select(u > m.const(0.0), u, m.const(1.0)))
    inside = m(_natural_log(m, safe) + lost / safe)
    ends = m(_log_ends(m, u, inside))
    plain = m(tirx.Select(u < m.const(math.inf), ends, x))
    return tirx.Select(x == m.const(0.0), x, plain)


def tanh(m: LetBuilder, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    shifted, _, q = _reduced(m, m.clamp(magnitude * m.const(-2.0), -2 * CONSTANTS[m.real].tanh, 0.0))
    scale = m.scale_of(shifted, 0)
    t = m((m.const(1.0) - scale) - scale * q)
    return m.with_sign(t / (m.const(2.0) - t), sign)


def sigmoid(m: LetBuilder, x: Expr) -> Expr:
    if m.real == "float32":
        return m.const(1.0) / (m.const(1.0) + _exp_within(m, m.clamp(x, -89.0, 88.0), -1.0))
    return m.const(1.0) / (m.const(1.0) + exp(m, m(m.const(0.0) - x)))


def erf(m: LetBuilder, x: Expr) -> Expr:
    """The error function, of float32 only."""
    x = m.clamp(x, -ERF_LIMIT, ERF_LIMIT)
    z = m(x * x)
    value = m(x * m.horner(z, ERF_NUMERATOR) / m.horner(z, ERF_DENOMINATOR))
    return m.clamp(value, -1.0, 1.0)


ERFC_MIDDLE = -0.22900763358778628
ERFC = (
    0.26860767877541447,
    -0.46613569725232157,
    0.374381665655736,
    -0.22949279160184552,
    0.10254074523645994,
    -0.029070222509520217,
    0.0022500870910917045,
    0.0017781427817156223,
    -0.0005191283307735851,
    -9.855566339802353e-05,
    5.383138972991302e-05,
)
"""``exp(a²) erfc(a)`` for ``a`` up to 10.1 in ``(a - 3) / (a + 3)``, counted from :data:`ERFC_MIDDLE`."""


def erfc(m: LetBuilder, x: Expr) -> Expr:
    """``1 - erf(x)``, of float32 only. The square is taken in two parts, so that its exponential is exact."""
    a, _ = m.split_sign(x)
    a = m.clamp(a, 0.0, 10.1)
    high = m(m.floats(tirx.bitwise_and(m.bits(a), m.integer(-(1 << 12)))))
    rest = m((a - high) * (a + high))
    scale = m(exp(m, m(m.const(0.0) - high * high)) * exp(m, m(m.const(0.0) - rest)))
    t = m((a - m.const(3.0)) / (a + m.const(3.0)) - m.const(ERFC_MIDDLE))
    tail = m(scale * m.horner(t, ERFC))
    return tirx.Select(x < m.const(0.0), m.const(2.0) - tail, tail)


def sinh(m: LetBuilder, x: Expr) -> Expr:
    limits = CONSTANTS[m.real]
    magnitude, sign = m.split_sign(x)
    _, n, q = _reduced(m, m.clamp(magnitude, 0.0, limits.top + 0.5))
    scale = m.power_of_two(n - m.const(2.0))
    quarter = m(scale * q + (scale - m.const(0.25)))
    other = m(m.const(0.25) / (m.const(0.25) / quarter + m.const(1.0)))
    signed = m.with_sign((quarter + other) * m.const(2.0), sign)
    return tirx.Select(magnitude < m.const(limits.tiny), x, signed)


def cosh(m: LetBuilder, x: Expr) -> Expr:
    magnitude, _ = m.split_sign(x)
    _, n, q = _reduced(m, m.clamp(magnitude, 0.0, CONSTANTS[m.real].top + 0.5))
    half = m((q + m.const(1.0)) * m.power_of_two(n - m.const(2.0)))
    return half * m.const(2.0) + m.const(0.125) / half


def asinh(m: LetBuilder, x: Expr) -> Expr:
    """``log1p(a + a² / (1 + √(a² + 1)))``, or ``log 2a`` where the square would swamp the 1."""
    a, sign = m.split_sign(x)
    big = a > m.const(2.0 ** (m.format.mantissa // 2 + 2))
    small = m(tirx.Select(big, m.const(1.0), a))
    square = m(small * small)
    inner = m(small + square / (tirx.sqrt(square + m.const(1.0)) + m.const(1.0)))
    value = _log1p_or_log(m, big, inner, a)
    return tirx.Select(x == m.const(0.0), x, m.with_sign(value, sign))


def acosh(m: LetBuilder, x: Expr) -> Expr:
    """``log1p(t + √(2t + t²))`` with ``t = x - 1``, or ``log 2x``."""
    big = x > m.const(2.0 ** (m.format.mantissa // 2 + 2))
    t = m(tirx.Select(big, m.const(1.0), x) - m.const(1.0))
    inner = m(t + tirx.sqrt(t * m.const(2.0) + t * t))
    value = _log1p_or_log(m, big, inner, x)
    return tirx.Select(x < m.const(1.0), m.const(math.nan), value)


def _log1p_or_log(m: LetBuilder, big: Expr, inner: Expr, x: Expr) -> Var:
    """``log1p(inner)``, and ``log 2x`` where ``big``."""
    u = m.exact(inner + m.const(1.0))
    lost = m((inner - m.exact(u - m.const(1.0))) / u)
    natural = m(_natural_log(m, m(tirx.Select(big, x, u))))
    finite = m(natural + tirx.Select(big, m.const(LN2), lost))
    return m(tirx.Select(x < m.const(math.inf), finite, x))


def atanh(m: LetBuilder, x: Expr) -> Expr:
    a, sign = m.split_sign(x)
    value = m(log1p(m, m(m.const(2.0) * a / (m.const(1.0) - a))) * m.const(0.5))
    value = m(tirx.Select(a > m.const(1.0), m.const(math.nan), value))
    return tirx.Select(x == m.const(0.0), x, m.with_sign(value, sign))


def round_half_even(m: LetBuilder, x: Expr) -> Expr:
    """To the nearest integer, halves to even."""
    whole = 2.0**m.format.mantissa
    magnitude, sign = m.split_sign(x)
    rounded = m.exact(m.exact(magnitude + m.const(whole)) - m.const(whole))
    return tirx.Select(magnitude < m.const(whole), m.with_sign(rounded, sign), x)
