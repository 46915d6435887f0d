"""Complex numbers in TIR: two scalars, with the arithmetic and the functions that ATen has for them.

Products and quotients are those of c10 (``c10/util/complex.h``): a product of an infinity is NaN where the sum of the
partial products is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import tvm
from tvm import tirx

from torch_tvm.lowering.conversion import is_nan
from torch_tvm.lowering.pointwise import kept, libm, times

Scalar: TypeAlias = tvm.ir.Expr


@dataclass(frozen=True)
class Complex:
    """``re + im i``."""

    re: Scalar
    im: Scalar

    @property
    def dtype(self) -> str:
        return str(self.re.ty.dtype)

    def number(self, value: float) -> Scalar:
        return tirx.const(value, self.dtype)

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)

    def __mul__(self, other: Complex) -> Complex:
        re = times(self.re, other.re) - times(self.im, other.im)
        return Complex(re, times(self.re, other.im) + times(self.im, other.re))

    def __truediv__(self, other: Complex) -> Complex:
        """Smith's algorithm, as in c10."""
        c, d = kept(other.re), kept(other.im)
        zero, one = self.number(0), self.number(1)
        wide = tirx.abs(c) >= tirx.abs(d)
        none = tirx.all(c == zero, d == zero)
        ratio = tirx.Select(wide, d / c, c / d)
        scale = one / tirx.Select(wide, c + d * ratio, c * ratio + d)
        re = tirx.Select(wide, self.re + self.im * ratio, self.re * ratio + self.im) * scale
        im = tirx.Select(wide, self.im - self.re * ratio, self.im * ratio - self.re) * scale
        return Complex(
            tirx.Select(none, _over_zero(self.re, c), re), tirx.Select(none, _over_zero(self.im, d), im)
        )

    def scaled(self, factor: Scalar) -> Complex:
        return Complex(times(self.re, factor), times(self.im, factor))

    def turned(self) -> Complex:
        """``i`` times the number."""
        return Complex(-self.im, self.re)

    def turned_back(self) -> Complex:
        """``-i`` times the number."""
        return Complex(self.im, -self.re)

    def negative(self) -> Complex:
        return Complex(-self.re, -self.im)

    def conjugate(self) -> Complex:
        return Complex(self.re, -self.im)

    def plus(self, number: float) -> Complex:
        return Complex(self.re + self.number(number), self.im)

    def one(self) -> Complex:
        return Complex(self.number(1), self.number(0))


def _over_zero(part: Scalar, divisor: Scalar) -> Scalar:
    """``part`` by a divisor that is zero; TVM folds a literal zero over anything to zero, where it is NaN."""
    if isinstance(part, tirx.FloatImm) and part.value == 0:
        return tirx.const(math.nan, str(part.ty.dtype))
    return part / tirx.abs(divisor)


def chosen(condition: Scalar, then: Complex, otherwise: Complex) -> Complex:
    return Complex(
        tirx.Select(condition, then.re, otherwise.re), tirx.Select(condition, then.im, otherwise.im)
    )


def magnitude(z: Complex) -> Scalar:
    """``sqrt(re² + im²)`` without overflow; infinite where a part is."""
    infinite = tirx.any(tirx.isinf(z.re), tirx.isinf(z.im))
    if z.dtype == "float32":
        re, im = z.re.astype("float64"), z.im.astype("float64")
        return tirx.Select(infinite, z.number(math.inf), tirx.sqrt(re * re + im * im).astype("float32"))
    x, y = tirx.abs(z.re), tirx.abs(z.im)
    high, low = tirx.max(x, y), tirx.min(x, y)
    ratio = low / tirx.Select(high == z.number(0), z.number(1), high)
    length = high * tirx.sqrt(z.number(1) + ratio * ratio)
    unknown = tirx.any(is_nan(z.re), is_nan(z.im))
    length = tirx.Select(unknown, z.re + z.im, length)
    return tirx.Select(infinite, z.number(math.inf), length)


def angle(z: Complex) -> Scalar:
    return libm("atan2", z.im, z.re)


def is_zero(z: Complex) -> Scalar:
    return tirx.all(z.re == z.number(0), z.im == z.number(0))


def sign(z: Complex) -> Complex:
    length = magnitude(z)
    none = length == z.number(0)
    divisor = tirx.Select(none, z.number(1), length)
    return Complex(z.re / divisor, z.im / divisor)


def _without_direction(z: Complex) -> Scalar:
    """Where the angle of ``exp(z)`` is no number."""
    return tirx.Not(tirx.isfinite(z.im))


def exp(z: Complex) -> Complex:
    """As C has it: real numbers stay real when they overflow, and an infinite real part decides alone how long it is."""
    zero, lost = z.number(0), _without_direction(z)
    length = tirx.exp(z.re)
    re, im = times(length, tirx.cos(z.im)), times(length, tirx.sin(z.im))
    none, endless = z.re == z.number(-math.inf), z.re == z.number(math.inf)
    re = tirx.Select(tirx.all(endless, lost), z.re, tirx.Select(tirx.all(none, lost), zero, re))
    im = tirx.Select(tirx.any(z.im == zero, tirx.all(none, lost)), tirx.copysign(zero, z.im), im)
    return Complex(re, im)


def expm1(z: Complex) -> Complex:
    half = tirx.sin(z.im * z.number(0.5))
    re = libm("expm1", z.re) * tirx.cos(z.im) - z.number(2) * half * half
    return Complex(re, tirx.exp(z.re) * tirx.sin(z.im))


def log(z: Complex) -> Complex:
    return Complex(tirx.log(magnitude(z)), angle(z))


def log1p(z: Complex) -> Complex:
    """The real part of a small number by its own series: ``|1 + z|`` would forget it."""
    one, half = z.number(1), z.number(0.5)
    small = magnitude(z) < half
    re = half * libm("log1p", z.re * (z.number(2) + z.re) + z.im * z.im)
    moved = z.plus(1)
    return Complex(tirx.Select(small, re, tirx.log(magnitude(moved))), libm("atan2", z.im, one + z.re))


def log_add_exp(x: Complex, y: Complex, keep: Callable[[Complex], Complex] = lambda z: z) -> Complex:
    """``log(exp(x) + exp(y))`` from the one with the larger real part; NaN of either is NaN of both parts.

    ``keep`` puts what is read many times where that is cheap.
    """
    is_less = x.re < y.re
    low, high = keep(chosen(is_less, x, y)), keep(chosen(is_less, y, x))
    value = keep(log1p(keep(exp(keep(low - high))))) + high
    together = tirx.all(tirx.isinf(low.re), low.re == high.re)
    endless = chosen(low.re < x.number(0), low, keep(log(keep(exp(low) + exp(high)))))
    unknown = tirx.any(*(is_nan(part) for part in (x.re, x.im, y.re, y.im)))
    nothing = Complex(x.number(math.nan), x.number(math.nan))
    return chosen(unknown, nothing, chosen(together, endless, value))


def sqrt(z: Complex) -> Complex:
    zero, half = z.number(0), z.number(0.5)
    length = magnitude(z)
    root = tirx.sqrt(length * half + tirx.abs(z.re) * half)
    other = tirx.abs(z.im) / (root + root)
    is_right = z.re >= zero
    re, im = tirx.Select(is_right, root, other), tirx.Select(is_right, other, root)
    none, endless = is_zero(z), tirx.isinf(z.im)
    re = tirx.Select(none, zero, tirx.Select(endless, tirx.abs(z.im), re))
    im = tirx.Select(none, tirx.abs(z.im), tirx.Select(endless, tirx.abs(z.im), im))
    beyond = tirx.all(tirx.isinf(z.re), tirx.Not(endless))
    flat = tirx.Select(is_nan(z.im), z.im, zero)
    re = tirx.Select(beyond, tirx.Select(is_right, z.re, flat), re)
    im = tirx.Select(beyond, tirx.Select(is_right, flat, tirx.abs(z.re)), im)
    return Complex(re, tirx.copysign(im, z.im))


def power(z: Complex, exponent: Complex) -> Complex:
    """``exp(exponent * log(z))``; a power of zero is 0, or 1 for the exponent 0."""
    none = Complex(z.number(0), z.number(0))
    by_log = exp(exponent * log(z))
    at_zero = chosen(is_zero(exponent), z.one(), none)
    return chosen(is_zero(z), at_zero, by_log)


def sin(z: Complex) -> Complex:
    return sinh(z.turned()).turned_back()


def cos(z: Complex) -> Complex:
    return cosh(z.turned())


def sinh(z: Complex) -> Complex:
    """A part with a factor of zero is zero, whatever the other; an infinite real part stays infinite."""
    zero = z.number(0)
    re, im = libm("sinh", z.re) * tirx.cos(z.im), libm("cosh", z.re) * tirx.sin(z.im)
    stays = tirx.any(z.re == zero, tirx.all(tirx.isinf(z.re), _without_direction(z)))
    return Complex(tirx.Select(stays, z.re, re), tirx.Select(z.im == zero, z.im, im))


def cosh(z: Complex) -> Complex:
    """A part with a factor of zero is zero, whatever the other; an infinite real part stays."""
    zero = z.number(0)
    re, im = libm("cosh", z.re) * tirx.cos(z.im), libm("sinh", z.re) * tirx.sin(z.im)
    stays = tirx.all(tirx.isinf(z.re), _without_direction(z))
    flat = tirx.any(z.re == zero, z.im == zero)
    none = tirx.copysign(zero, tirx.copysign(z.number(1), z.re) * tirx.copysign(z.number(1), z.im))
    return Complex(tirx.Select(stays, tirx.abs(z.re), re), tirx.Select(flat, none, im))


def tanh(z: Complex) -> Complex:
    """Kahan, Branch cuts for complex elementary functions, 1987."""
    tangent, sine = libm("tan", z.im), libm("sinh", z.re)
    one = z.number(1)
    beta = one + tangent * tangent
    rho = tirx.sqrt(one + sine * sine)
    below = one + beta * sine * sine
    far = tirx.abs(z.re) > z.number(11.0 if z.dtype == "float32" else 22.0)
    limit = z.number(4) * tirx.sin(z.im) * tirx.cos(z.im) * tirx.exp(tirx.abs(z.re) * z.number(-2))
    re = tirx.Select(far, tirx.copysign(one, z.re), beta * rho * sine / below)
    return Complex(re, tirx.Select(far, limit, tangent / below))


def tan(z: Complex) -> Complex:
    return tanh(z.turned()).turned_back()


def asin(z: Complex) -> Complex:
    left, right = sqrt(Complex(z.number(1) - z.re, -z.im)), sqrt(z.plus(1))
    across = left.re * right.im - left.im * right.re
    return Complex(libm("atan2", z.re, (left * right).re), libm("asinh", across))


def acos(z: Complex) -> Complex:
    left, right = sqrt(Complex(z.number(1) - z.re, -z.im)), sqrt(z.plus(1))
    across = right.re * left.im - right.im * left.re
    return Complex(z.number(2) * libm("atan2", left.re, right.re), libm("asinh", across))


def acosh(z: Complex) -> Complex:
    left, right = sqrt(z.plus(-1)), sqrt(z.plus(1))
    along = left.re * right.re + left.im * right.im
    return Complex(libm("asinh", along), z.number(2) * libm("atan2", left.im, right.re))


def asinh(z: Complex) -> Complex:
    return asin(z.turned()).turned_back()


def atanh(z: Complex) -> Complex:
    one = z.number(1)
    rest = (one - z.re) * (one - z.re) + z.im * z.im
    re = z.number(0.25) * libm("log1p", z.number(4) * z.re / rest)
    im = z.number(0.5) * libm("atan2", z.number(2) * z.im, (one - z.re) * (one + z.re) - z.im * z.im)
    return Complex(re, im)


def atan(z: Complex) -> Complex:
    return atanh(z.turned()).turned_back()


def reciprocal(z: Complex) -> Complex:
    return z.one() / z


def _times_number(function: Callable[[Complex], Complex], factor: float) -> Callable[[Complex], Complex]:
    def body(z: Complex) -> Complex:
        return function(z).scaled(z.number(factor))

    return body


FUNCTIONS: dict[str, Callable[[Complex], Complex]] = {
    "exp": exp, "expm1": expm1, "log": log, "log1p": log1p, "sqrt": sqrt, "sin": sin, "cos": cos,
    "tan": tan, "sinh": sinh, "cosh": cosh, "tanh": tanh, "asin": asin, "acos": acos, "atan": atan, "asinh": asinh,
    "acosh": acosh, "atanh": atanh, "reciprocal": reciprocal, "sgn": sign,
    "exp2": lambda z: exp(z.scaled(z.number(math.log(2)))),
    "log2": _times_number(log, 1 / math.log(2)),
    "log10": _times_number(log, 1 / math.log(10)),
    "square": lambda z: z * z,
    "conj_physical": Complex.conjugate,
}  # fmt: skip
"""Functions of one number, by ATen's name."""

INVERSES: dict[str, Callable[[Complex], Complex]] = {
    "rsqrt": sqrt,
    "sigmoid": lambda z: exp(z.negative()).plus(1),
}
"""Functions that are one by another. A quotient reads its divisor a dozen times, so that is a step of its own."""
