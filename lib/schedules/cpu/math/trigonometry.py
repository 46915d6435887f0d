"""Trigonometric functions of float32 vectors and their inverses, without libm.

Arguments of any size are reduced exactly: Payne and Hanek's method ("Radian reduction for trigonometric
functions", 1983) in 64-bit integers, with the bits of 2/π that each lane needs. The polynomials were fitted for
this file by Lawson's algorithm. Errors are a few units in the last place.
"""

from __future__ import annotations

import itertools
import math
import struct

from tvm import tirx
from tvm.ir import Var

from torch_tvm.schedules.cpu.math.let_builder import Expr, LetBuilder

TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
"""A zero and the first 224 bits of 2/π."""

NEAR = 128.0
"""Up to here the three parts of π/2, of 17, 17 and 24 bits, are enough: each product with n is exact."""

HALF_PI = (1.5707855224609375, 1.0804273188114166e-05, 6.07710062827671e-11)

SIN = (-0.16666653752326965, 0.008332131430506706, -0.00019510839774738997)
COS = (0.04166664555668831, -0.0013887305976822972, 2.4431205019936897e-05)
ASIN = (
    0.16666659712791443,
    0.07500510662794113,
    0.04451572149991989,
    0.031817615032196045,
    0.014402597211301327,
    0.037565212696790695,
)
ATAN = (
    -0.33333301544189453,
    0.19998638331890106,
    -0.1426524519920349,
    0.10957576334476471,
    -0.0841945931315422,
    0.058234553784132004,
    -0.03145570307970047,
    0.011064441874623299,
    -0.001827213098295033,
)


def _reduced(m: LetBuilder, magnitude: Expr) -> tuple[Var, Var]:
    """``quadrant`` (int32) and ``r`` in ``[-π/4, π/4]`` with ``magnitude = quadrant * π/2 + r`` modulo 2π."""
    shifted, n = m.nearest(m.clamp(magnitude, 0.0, NEAR) * m.const(2 / math.pi))
    near = magnitude
    for part in HALF_PI:
        near = m(near - n * m.const(part))
    key = m(m.bits(magnitude))
    bound = struct.unpack("<i", struct.pack("<f", NEAR))[0]
    r = m.rarely(key, bound, near, lambda m: _reduced_exactly(m, magnitude)[1])
    low = m(tirx.bitwise_and(m.bits(shifted), m.integer(3)))
    return m.rarely(key, bound, low, lambda m: _reduced_exactly(m, magnitude)[0]), r


def _reduced_exactly(m: LetBuilder, magnitude: Expr) -> tuple[Expr, Expr]:
    """Payne and Hanek's reduction of magnitudes of 1 and more."""
    bits = m(m.bits(magnitude, "uint"))
    u32 = lambda value: m.integer(value, "uint32")
    mantissa = m(tirx.bitwise_or(tirx.bitwise_and(bits, u32(0x7FFFFF)), u32(0x800000)))
    first = m(tirx.Cast(m.dtype("int32"), tirx.shift_right(bits, u32(23))) - m.integer(120))
    windows = _window(m, first)
    wide = lambda value: tirx.Cast(m.dtype("uint64"), value)
    u64 = lambda value: m.integer(value, "uint64")
    top, middle, low = (m(mantissa * windows[0]), *(m(wide(mantissa) * wide(w)) for w in windows[1:]))
    turns = m(tirx.shift_left(wide(top), u64(32)) + middle + tirx.shift_right(low, u64(32)))
    quadrant = m(tirx.shift_right(turns + u64(1 << 61), u64(62)))
    rest = m(turns - tirx.shift_left(quadrant, u64(62)))
    high = m.cast(tirx.Cast(m.dtype("int32"), tirx.shift_right(rest, u64(32))), "float64")
    tail = m.cast(
        tirx.Cast(m.dtype("int32"), tirx.shift_right(tirx.bitwise_and(rest, u64(0xFFFFFFFF)), u64(1))),
        "float64",
    )
    double = m.wide()
    r = double((high + tail * double.const(2.0**-31)) * double.const(math.pi / 2 * 2.0**-30))
    reduced = tirx.Cast(m.dtype("float32"), r)
    finite = magnitude < m.const(math.inf)
    return tirx.Cast(m.dtype("int32"), quadrant), tirx.Select(finite, reduced, m.const(math.nan))


def _window(m: LetBuilder, first: Expr) -> list[Var]:
    """Three words of 2/π from bit ``first`` on (from -32 to 160; below 0 the result is not used)."""
    u32 = lambda value: m.integer(value, "uint32")
    shift = m(tirx.Cast(m.dtype("uint32"), tirx.bitwise_and(first, m.integer(31))))
    back = m(u32(31) - shift)
    words = []
    for offset in range(4):
        word = u32(TWO_OVER_PI[offset])
        for index in range(1, 5):
            word = tirx.Select(first >= m.integer(32 * index), u32(TWO_OVER_PI[offset + index]), word)
        words.append(m(word))
    return [
        m(tirx.bitwise_or(tirx.shift_left(a, shift), tirx.shift_right(tirx.shift_right(b, u32(1)), back)))
        for a, b in itertools.pairwise(words)
    ]


def _sine_and_cosine(m: LetBuilder, r: Expr) -> tuple[Var, Var]:
    z = m(r * r)
    sine = m(r * z * m.horner(z, SIN) + r)
    return sine, m((z * z * m.horner(z, COS) - z * m.const(0.5)) + m.const(1.0))


def _sign_of(m: LetBuilder, quadrant: Expr) -> Expr:
    """The sign bit set in quadrants 2 and 3."""
    return tirx.shift_left(tirx.bitwise_and(quadrant, m.integer(2)), m.integer(30))


def sin(m: LetBuilder, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    quadrant, r = _reduced(m, magnitude)
    sine, cosine = _sine_and_cosine(m, r)
    odd = tirx.bitwise_and(quadrant, m.integer(1)) == m.integer(1)
    value = m(tirx.Select(odd, cosine, sine))
    return m.with_sign(value, m(tirx.bitwise_xor(sign, _sign_of(m, quadrant))))


def cos(m: LetBuilder, x: Expr) -> Expr:
    magnitude, _ = m.split_sign(x)
    quadrant, r = _reduced(m, magnitude)
    sine, cosine = _sine_and_cosine(m, r)
    odd = tirx.bitwise_and(quadrant, m.integer(1)) == m.integer(1)
    value = m(tirx.Select(odd, sine, cosine))
    return m.with_sign(value, m(_sign_of(m, quadrant + m.integer(1))))


def tan(m: LetBuilder, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    quadrant, r = _reduced(m, magnitude)
    sine, cosine = _sine_and_cosine(m, r)
    odd = m(tirx.bitwise_and(quadrant, m.integer(1)))
    turned = odd == m.integer(1)
    value = m(tirx.Select(turned, cosine, sine) / tirx.Select(turned, sine, cosine))
    return m.with_sign(value, m(tirx.bitwise_xor(sign, tirx.shift_left(odd, m.integer(31)))))


def _arcsine(m: LetBuilder, a: Expr) -> tuple[Expr, Var]:
    """Whether the magnitude ``a`` is above ½, and ``asin(a)``, there ``asin(√((1 - a) / 2))``."""
    above = a > m.const(0.5)
    z = m(tirx.Select(above, (m.const(1.0) - a) * m.const(0.5), a * a))
    s = m(tirx.Select(above, tirx.sqrt(z), a))
    return above, m(s * z * m.horner(z, ASIN) + s)


def asin(m: LetBuilder, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    above, p = _arcsine(m, magnitude)
    return m.with_sign(tirx.Select(above, m.const(math.pi / 2) - (p + p), p), sign)


def acos(m: LetBuilder, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    above, p = _arcsine(m, magnitude)
    far = m(p + p)
    far = m(tirx.Select(x < m.const(0.0), m.const(math.pi) - far, far))
    return tirx.Select(above, far, m.const(math.pi / 2) - m.with_sign(p, sign))


def _arctangent(m: LetBuilder, t: Expr) -> Var:
    """For ``0 <= t <= 1``."""
    z = m(t * t)
    return m(t * z * m.horner(z, ATAN) + t)


def atan(m: LetBuilder, x: Expr) -> Expr:
    magnitude, sign = m.split_sign(x)
    above = magnitude > m.const(1.0)
    p = _arctangent(m, m(tirx.Select(above, m.const(1.0) / magnitude, magnitude)))
    return m.with_sign(tirx.Select(above, m.const(math.pi / 2) - p, p), sign)


def atan2(m: LetBuilder, y: Expr, x: Expr) -> Expr:
    a, y_sign = m.split_sign(y)
    b, x_sign = m.split_sign(x)
    steep = a > b
    small, large = m(tirx.Select(steep, b, a)), m(tirx.Select(steep, a, b))
    quotient = m(small / large)
    quotient = m(tirx.Select(large == m.const(0.0), m.const(0.0), quotient))
    quotient = m(tirx.Select(small == m.const(math.inf), m.const(1.0), quotient))
    p = _arctangent(m, quotient)
    p = m(tirx.Select(steep, m.const(math.pi / 2) - p, p))
    p = m(tirx.Select(x_sign < m.integer(0), m.const(math.pi) - p, p))
    return tirx.Select(tirx.any(m.is_nan(x), m.is_nan(y)), x + y, m.with_sign(p, y_sign))
