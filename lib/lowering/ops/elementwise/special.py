"""Special functions: error functions and their inverses, the logarithm of gamma and its derivative."""

from __future__ import annotations

import functools
import math
from typing import TypeAlias

import tvm
from tvm import tirx

from torch_tvm.lowering.ops.elementwise.bessel import ratio, table
from torch_tvm.lowering.ops.elementwise.unary import scalar_unary
from torch_tvm.lowering.pointwise import libm, named
from torch_tvm.lowering.polynomials import constants, horner

Scalar: TypeAlias = tvm.ir.Expr


# -- the inverse error function ----------------------------------------------------------------------------
#
# erfinv(x) / x as polynomials in w = -log(1 - x²) and in √w (Giles, Approximating the erfinv function, 2010),
# interpolated for this file at Chebyshev points: for each dtype the end of a range of √w, its middle (of w in the
# first range) and the coefficients.

ERFINV = {
    "float32": (
        (
            math.sqrt(5),
            2.5,
            (
                1.501409351110792,
                0.2466407662672499,
                -0.004177346517287056,
                -0.001253758884835318,
                0.00021831297984101024,
                -4.38034671412375e-06,
                -3.454779514269784e-06,
                3.4222470899345687e-07,
                2.2605977741170975e-08,
            ),
        ),
        (
            math.inf,
            (math.sqrt(5) + 4.2) / 2,
            (
                3.0517571043482072,
                1.0049008932761003,
                0.005747640215025128,
                -0.004048067675200698,
                0.0027601788542849625,
                -0.0020259299961021934,
                0.0010954931738832842,
                -0.00015824447272840705,
                -9.046616354647206e-05,
            ),
        ),
    ),
    "float64": (
        (
            2.5,
            3.125,
            (
                1.6536545626831027,
                0.24015818242558845,
                -0.006033670871427489,
                -0.0007407025341574597,
                0.00018673420802268017,
                -1.3882523382209929e-05,
                -1.365469181267597e-06,
                4.2347879792718207e-07,
                -2.907038581874436e-08,
                -4.112644907577394e-09,
                1.0512200367259048e-09,
                -5.415046677124506e-11,
                -1.2977493703687756e-11,
                2.6327434449823037e-12,
                -8.105973917549821e-14,
                -4.0444283335958285e-14,
                6.580282043451331e-15,
                1.2744143881600212e-17,
                -1.2888083317762992e-16,
                1.1531711227035491e-17,
                1.0922303658470997e-18,
                -1.7578518227410067e-19,
            ),
        ),
        (
            4.0,
            3.25,
            (
                3.0838856104922208,
                1.0052589676941646,
                0.005370914553573593,
                -0.003751208508030541,
                0.0024914420969979908,
                -0.0016882755445265592,
                0.0009532893618552461,
                -0.00035503764895782253,
                2.4031286377073694e-05,
                6.828561398530996e-05,
                -4.7319187369358214e-05,
                1.2472740144742724e-05,
                2.9264777314239854e-06,
                -4.008956966932278e-06,
                1.497191022600222e-06,
                1.3250759477977463e-08,
                -2.697313682066162e-07,
                9.284332225420571e-08,
            ),
        ),
        (
            math.inf,
            5.05,
            (
                4.90042105144364,
                1.0102850175977565,
                -0.00016985809148478998,
                -0.00020031200599107476,
                7.124031504618646e-05,
                -1.837454495898178e-05,
                4.193858544647827e-06,
                -9.070354216083462e-07,
                2.0159168167983672e-07,
                -5.508576982359183e-08,
                2.1904751298638965e-08,
                -1.0942531106983762e-08,
                5.6634737260983445e-09,
                -2.890867401094419e-09,
                1.187619549458401e-09,
                -2.5176228666523e-10,
                5.180570547264701e-12,
            ),
        ),
    ),
}


def _erfinv(x: Scalar) -> Scalar:
    constant = constants(x)
    one = constant(1)
    (limit, middle, coefficients), *others = ERFINV[str(x.ty.dtype)]

    def ratio(w: Scalar) -> Scalar:
        near = named(w - constant(middle), lambda t: horner(t, coefficients))

        def far(root: Scalar) -> Scalar:
            parts = [
                (end, named(root - constant(mid), functools.partial(horner, coefficients=c))) for end, mid, c in others
            ]
            result = parts[-1][1]
            for end, value in reversed(parts[:-1]):
                result = tirx.Select(root < constant(end), value, result)
            return tirx.Select(root < constant(limit), near, result)

        return named(tirx.sqrt(w), far)

    inside = x * named(constant(0) - tirx.log((one - x) * (one + x)), ratio)
    edge = tirx.any(tirx.EQ(x, one), tirx.EQ(x, constant(-1)))
    return tirx.Select(edge, x * tirx.infinity(str(x.ty.dtype)), inside)


# -- digamma -------------------------------------------------------------------------------------------------

SHIFT = 10
"""From here on the asymptotic series is exact; below, ψ(x) = ψ(x + SHIFT) - Σ 1 / (x + i)."""

BERNOULLI = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


COTANGENT = (
    math.pi**2 / 3,
    math.pi**4 / 45,
    *(2 * sum(n ** (-2.0 * k) for n in range(2000, 0, -1)) for k in range(3, 28)),
)
"""``π cot(πr) = 1 / r - r Σ 2 ζ(2k) r²⁽ᵏ⁻¹⁾``, for ``r`` up to a half."""


def digamma(x: Scalar) -> Scalar:
    """ψ(x) of a positive number; ψ(1 - x) - π / tan(πx) of a negative one."""
    constant = constants(x)
    zero, one = constant(0), constant(1)

    def positive(z: Scalar) -> Scalar:
        large = z >= constant(SHIFT)
        shares = functools.reduce(lambda total, i: total + one / (z + constant(i)), range(1, SHIFT), one / z)
        series = lambda w: named(one / (w * w), lambda t: tirx.log(w) - constant(0.5) / w - t * horner(t, BERNOULLI))
        asymptotic = named(tirx.Select(large, z, z + constant(SHIFT)), series)
        return asymptotic - tirx.Select(large, zero, shares)

    pole = tirx.all(x < zero, tirx.EQ(x, tirx.trunc(x)))
    mirrored = named(
        x - tirx.nearbyint(x),
        lambda r: tirx.Select(x < zero, one / r - r * named(r * r, lambda t: horner(t, COTANGENT)), zero),
    )
    value = named(tirx.Select(x < zero, one - x, x), positive) - mirrored
    value = tirx.Select(pole, constant(math.nan), value)
    return tirx.Select(tirx.EQ(x, zero), zero - tirx.copysign(tirx.infinity(str(x.ty.dtype)), x), value)


# -- the logarithm of gamma ----------------------------------------------------------------------------------

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
SINE = tuple((-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k + 1) for k in range(14))
"""``sin(πr) / (πr)`` in ``r²``, for ``r`` up to a half."""


def _lgamma(x: Scalar) -> Scalar:
    """Of a float32 in float64: Stirling's series beyond :data:`SHIFT`, and the reflection at a half.

    In float64 the series would lose digits near the zeros at 1 and 2: there it is libm's.
    """
    if str(x.ty.dtype) == "float64":
        return libm("lgamma", x)
    constant = functools.partial(tirx.const, dtype="float64")
    zero, one = constant(0), constant(1)

    def positive(z: Scalar) -> Scalar:
        large = z >= constant(SHIFT)
        passed = functools.reduce(lambda total, i: total * (z + constant(i)), range(1, SHIFT), z)
        series = lambda w: (
            (w - constant(0.5)) * tirx.log(w)
            - w
            + named(one / w, lambda t: t * named(t * t, lambda square: horner(square, STIRLING)))
        )
        value = named(tirx.Select(large, z, z + constant(SHIFT)), series) + constant(math.log(2 * math.pi) / 2)
        return value - tirx.log(tirx.Select(large, one, passed))

    def wide(u: Scalar) -> Scalar:
        sine = lambda r: tirx.abs(r) * named(r * r, lambda square: horner(square, SINE))
        mirrored = named(u - tirx.nearbyint(u), lambda r: zero - tirx.log(sine(r)))
        reflects = u < constant(0.5)
        value = named(tirx.Select(reflects, one - u, u), positive)
        finite = named(value, lambda v: tirx.Select(reflects, mirrored - v, v))
        return tirx.Select(tirx.isinf(u), tirx.abs(u), finite)

    return tirx.Cast(str(x.ty.dtype), named(tirx.Cast("float64", x), wide))


# -- the scaled complementary error function -----------------------------------------------------------------

ASYMPTOTIC = tuple((-1.0) ** k * math.prod(range(1, 2 * k, 2)) for k in range(12))
"""``erfcx(x) x √π`` in ``1 / 2x²``."""


def bounded_erfcx(u: Scalar) -> Scalar:
    """``erfcx(u) = exp(u²) erfc(u)`` for ``u >= 0``."""
    constant = constants(u)

    def of_ratio(y: Scalar) -> Scalar:
        piece = lambda name, middle: named(
            (y - constant(middle)) * constant(8), functools.partial(table, f"ERFCX_{name}")
        )
        middle = tirx.Select(y > constant(0.5), piece("MIDDLE", 0.625), piece("FAR", 0.375))
        return y * tirx.Select(y > constant(0.75), piece("NEAR", 0.875), middle)

    far = named(constant(0.5) / (u * u), lambda w: horner(w, ASYMPTOTIC)) * constant(1 / math.sqrt(math.pi)) / u
    return tirx.Select(u < constant(12), named(constant(4) / (constant(4) + u), of_ratio), far)


def _erfcx(x: Scalar) -> Scalar:
    constant = constants(x)
    mirrored = lambda v: tirx.Select(x < constant(0), constant(2) * tirx.exp(x * x) - v, v)
    return named(named(tirx.abs(x), bounded_erfcx), mirrored)


# -- the normal distribution ---------------------------------------------------------------------------------


def _normal_distribution(x: Scalar) -> Scalar:
    constant = constants(x)
    return libm("erfc", x * constant(-math.sqrt(0.5))) * constant(0.5)


def _log_normal_distribution(x: Scalar) -> Scalar:
    constant = constants(x)
    half, zero = constant(0.5), constant(0)

    def of_scaled(t: Scalar) -> Scalar:
        low = tirx.log(named(tirx.abs(t), bounded_erfcx) * half) - t * t
        high = libm("log1p", libm("erfc", t) * (zero - half))
        return tirx.Select(x < constant(-1), low, high)

    return named(x * constant(math.sqrt(0.5)), of_scaled)


def _normal_quantile(p: Scalar) -> Scalar:
    constant = constants(p)
    zero, one, tail = constant(0), constant(1), constant(math.exp(-2))
    infinity = tirx.infinity(str(p.ty.dtype))
    is_upper = p > one - tail

    def middle(d: Scalar) -> Scalar:
        rise = named(d * d, lambda s: s * ratio("NDTRI_P0", "NDTRI_Q0", s))
        return (d + d * rise) * constant(math.sqrt(2 * math.pi))

    def tails(r: Scalar) -> Scalar:
        correction = lambda z: (
            z * tirx.Select(r < constant(8), ratio("NDTRI_P1", "NDTRI_Q1", z), ratio("NDTRI_P2", "NDTRI_Q2", z))
        )
        value = r - tirx.log(r) / r - named(one / r, correction)
        return named(value, lambda v: tirx.Select(is_upper, v, zero - v))

    def body(y: Scalar) -> Scalar:
        outer = named(tirx.sqrt(constant(-2) * tirx.log(y)), tails)
        return tirx.Select(y > tail, named(y - constant(0.5), middle), outer)

    value = named(tirx.Select(is_upper, one - p, p), body)
    value = tirx.Select(tirx.any(p < zero, p > one), constant(math.nan), value)
    value = tirx.Select(tirx.EQ(p, zero), zero - infinity, value)
    return tirx.Select(tirx.EQ(p, one), infinity, value)


# -- the ops -------------------------------------------------------------------------------------------------


def _sinc(x: Scalar) -> Scalar:
    constant = constants(x)
    ratio = named(x * constant(math.pi), lambda angle: tirx.sin(angle) / angle)
    return tirx.Select(tirx.EQ(x, constant(0)), constant(1), ratio)


def _entropy(x: Scalar) -> Scalar:
    """``-x log x``; 0 at 0 and -inf below."""
    zero, infinity = constants(x)(0), tirx.infinity(str(x.ty.dtype))
    outside = tirx.Select(x < zero, zero - infinity, x)
    return tirx.Select(x > zero, (zero - x) * tirx.log(x), outside)


scalar_unary("torch.aten.erfinv", _erfinv)
for _name, _body in (
    ("erfc", lambda u: libm("erfc", u)),
    ("lgamma", _lgamma),
    ("digamma", digamma),
    ("sinc", _sinc),
    ("special_entr", _entropy),
    ("special_ndtr", _normal_distribution),
    ("special_log_ndtr", _log_normal_distribution),
    ("special_ndtri", _normal_quantile),
    ("special_erfcx", _erfcx),
):
    scalar_unary(f"torch.aten.{_name}", _body, custom=True)
