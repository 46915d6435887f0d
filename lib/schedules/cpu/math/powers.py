"""General powers of float32 vectors: ``2 ** (y log2 x)``, in float64 so that the product keeps its bits."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.math.let_builder import Expr, LetBuilder

LOG2 = (
    1.4426950408666819,
    -0.7213475207461111,
    0.48089836256728397,
    -0.3606736995308643,
    0.28853719621556456,
    -0.24045172127146555,
    0.20617769037593048,
    -0.1803362126545003,
    0.15876192468382266,
    -0.1427621637037628,
    0.14446770973794618,
    -0.1444575795502239,
    0.07957290379303755,
)
"""``log2(1 + f) / f`` to 2e-11, by Lawson's algorithm."""

EXP2 = (
    0.9999999999595495,
    0.6931471805350217,
    0.24022651213584123,
    0.05550410976119423,
    0.009618025604185225,
    0.0013333422639499053,
    0.0001546973164411325,
    1.5316462686820742e-05,
)
"""``2 ** r`` for ``|r| <= 1/2`` to 4e-11."""


def pow(m: LetBuilder, x: Expr, y: Expr) -> Expr:
    """Zeros, infinities, NaN and negative bases as C has them: ``1 ** y`` and ``x ** 0`` are always 1."""
    one, zero = m.const(1.0), m.const(0.0)
    magnitude, sign = m.split_sign(x)
    value = m(tirx.Cast(m.dtype("float32"), _power(m.wide(), m.cast(magnitude, "float64"), m.cast(y, "float64"))))
    value = m(tirx.Select(magnitude == one, tirx.Select(m.is_nan(y), y, one), value))
    half = m(y * m.const(0.5))
    whole = tirx.floor(y) == y
    odd = tirx.all(whole, tirx.floor(half) != half)
    value = m(m.with_sign(value, m(tirx.Select(odd, sign, m.integer(0)))))
    invalid = tirx.all(x < zero, x > m.const(-math.inf), tirx.floor(y) != y)
    value = m(tirx.Select(invalid, m.const(math.nan), value))
    return tirx.Select(tirx.any(y == zero, x == one), one, value)


def _power(m: LetBuilder, x: Expr, y: Expr) -> Var:
    """``x ** y`` in float64 for ``x >= 0`` that was a float32, to 2e-8."""
    e, f = m.split_exponent(x)
    logarithm = m(f * m.horner(f, LOG2) + e)
    logarithm = m(tirx.Select(x == m.const(0.0), m.const(-math.inf), logarithm))
    logarithm = m(tirx.Select(x < m.const(math.inf), logarithm, x))
    t = m.clamp(y * logarithm, -200.0, 200.0)
    shifted, n = m.nearest(t)
    return m(m.horner(m(t - n), EXP2) * m.scale_of(shifted, 0))
