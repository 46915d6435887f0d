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
        return Complex(tirx.Select(none, _over_zero(self.re, c), re), tirx.Select(none, _over_zero(self.im, d), im))

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
    return Complex(tirx.Select(condition, then.re, otherwise.re), tirx.Select(condition, then.im, otherwise.im))


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


def is_finite(z: Complex) -> Scalar:
    return tirx.all(tirx.isfinite(z.re), tirx.isfinite(z.im))


def _without_direction(z: Complex) -> Scalar:
    """Where the angle of ``exp(z)`` is no number."""
    return tirx.Not(tirx.isfinite(z.im))


def _limit(dtype: str) -> float:
    """An exponent up to which an exponential is finite."""
    return 80.0 if dtype == "float32" else 700.0


def _stretched(length: Scalar, direction: Callable[[Scalar], Scalar], angle: Scalar) -> Scalar:
    """``exp(length) * direction(angle)``, also where the exponential alone overflows."""
    dtype = str(length.ty.dtype)
    limit = _limit(dtype)
    far = length > tirx.const(limit, dtype)
    rest = tirx.exp(tirx.Select(far, length - tirx.const(limit, dtype), length))
    return rest * times(tirx.Select(far, tirx.const(math.exp(limit), dtype), tirx.const(1, dtype)), direction(angle))


def exp(z: Complex) -> Complex:
    """As C has it: real numbers stay real when they overflow, and an infinite real part decides
    alone how long it is.
    """
    zero, lost = z.number(0), _without_direction(z)
    re, im = _stretched(z.re, tirx.cos, z.im), _stretched(z.re, tirx.sin, z.im)
    none, endless = z.re == z.number(-math.inf), z.re == z.number(math.inf)
    re = tirx.Select(tirx.all(endless, lost), z.re, tirx.Select(tirx.all(none, lost), zero, re))
    im = tirx.Select(tirx.any(z.im == zero, tirx.all(none, lost)), tirx.copysign(zero, z.im), im)
    return Complex(re, im)


def expm1(z: Complex) -> Complex:
    half = tirx.sin(z.im * z.number(0.5))
    re = libm("expm1", z.re) * tirx.cos(z.im) - z.number(2) * half * half
    return Complex(re, tirx.exp(z.re) * tirx.sin(z.im))


def log_magnitude(z: Complex) -> Scalar:
    """The logarithm of ``|z|``, which itself may overflow."""
    far = tirx.max(tirx.abs(z.re), tirx.abs(z.im)) > z.number(1e38 if z.dtype == "float32" else 1e307)
    half = tirx.Select(far, z.number(0.5), z.number(1))
    return tirx.log(magnitude(z.scaled(half))) + tirx.Select(far, z.number(math.log(2)), z.number(0))


def log(z: Complex) -> Complex:
    return Complex(log_magnitude(z), angle(z))


def log1p(z: Complex) -> Complex:
    """The real part of a small number by its own series: ``|1 + z|`` would forget it."""
    one, half = z.number(1), z.number(0.5)
    small = magnitude(z) < half
    re = half * libm("log1p", z.re * (z.number(2) + z.re) + z.im * z.im)
    return Complex(tirx.Select(small, re, log_magnitude(z.plus(1))), libm("atan2", z.im, one + z.re))


def _halves(z: Complex) -> Complex:
    """``sqrt((|z| + |re|) / 2)``, which is a part of the root, and what that makes of the other."""
    if z.dtype == "float32":
        re, im = tirx.abs(z.re).astype("float64"), tirx.abs(z.im).astype("float64")
        root = tirx.sqrt((tirx.sqrt(re * re + im * im) + re) * tirx.const(0.5, "float64"))
        return Complex(root.astype("float32"), (im / (root + root)).astype("float32"))
    far = tirx.max(tirx.abs(z.re), tirx.abs(z.im)) > z.number(1e307)
    near, half = z.scaled(tirx.Select(far, z.number(0.25), z.number(1))), z.number(0.5)
    root = tirx.sqrt(magnitude(near) * half + tirx.abs(near.re) * half)
    return Complex(root, tirx.abs(near.im) / (root + root)).scaled(tirx.Select(far, z.number(2), z.number(1)))


def lesser(x: Complex, y: Complex) -> Complex:
    return chosen(x.re < y.re, x, y)


def greater(x: Complex, y: Complex) -> Complex:
    return chosen(x.re < y.re, y, x)


def log_add_exp(x: Complex, y: Complex, keep: Callable[[Complex], Complex]) -> Complex:
    """``log(exp(x) + exp(y))`` from the one with the larger real part; NaN of either is NaN of both parts.

    ``keep`` puts what is read many times where that is cheap.
    """
    low, high = keep(lesser(x, y)), keep(greater(x, y))
    near, endless = keep(log1p(keep(exp(keep(low - high))))), keep(log(keep(exp(low) + exp(high))))
    return log_of_sum(x, y, low, high, near, endless)


def log_of_sum(x: Complex, y: Complex, low: Complex, high: Complex, near: Complex, endless: Complex) -> Complex:
    """The result of :func:`log_add_exp`, of its steps."""
    together = tirx.all(tirx.isinf(low.re), low.re == high.re)
    endless = chosen(low.re < x.number(0), low, endless)
    unknown = tirx.any(*(is_nan(part) for part in (x.re, x.im, y.re, y.im)))
    nothing = Complex(x.number(math.nan), x.number(math.nan))
    return chosen(unknown, nothing, chosen(together, endless, near + high))


def sqrt(z: Complex) -> Complex:
    zero, halves = z.number(0), _halves(z)
    root, other = halves.re, halves.im
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


def product_of_c(x: Complex, y: Complex) -> Complex:
    """``x * y`` as C has it (C11, annex G.5.1): a product with an infinity is infinite."""
    zero, plain = x.number(0), x * y
    terms = [times(p, q) for p in (x.re, x.im) for q in (y.re, y.im)]

    def boxed(z: Complex) -> Complex:
        """A corner of the unit square where a part is infinite, else the number with zeros for NaN."""
        parts = []
        infinite = tirx.any(tirx.isinf(z.re), tirx.isinf(z.im))
        for part in (z.re, z.im):
            corner = tirx.copysign(tirx.Select(tirx.isinf(part), z.number(1), zero), part)
            number = tirx.Select(is_nan(part), tirx.copysign(zero, part), part)
            parts.append(tirx.Select(infinite, corner, number))
        return Complex(*parts)

    endless = [tirx.isinf(part) for part in (x.re, x.im, y.re, y.im, *terms)]
    lost = tirx.all(is_nan(plain.re), is_nan(plain.im), tirx.any(*endless))
    found = boxed(x) * boxed(y)
    return chosen(lost, found.scaled(x.number(math.inf)), plain)


def sin(z: Complex) -> Complex:
    found = sinh(z.turned()).turned_back()
    stays = tirx.all(tirx.isinf(z.im), tirx.Not(tirx.isfinite(z.re)))
    return Complex(found.re, tirx.Select(stays, tirx.abs(z.im), found.im))


def cos(z: Complex) -> Complex:
    return cosh(z.turned())


def _hyperbolic(name: str, z: Complex, direction: Callable[[Scalar], Scalar]) -> Scalar:
    """``sinh`` or ``cosh`` of the real part times a direction, also where the former overflows."""
    length = tirx.abs(z.re)
    far = z.number(0.5) * _stretched(length, direction, z.im)
    far = far * tirx.copysign(z.number(1), z.re) if name == "sinh" else far
    is_far = length > z.number(_limit(z.dtype))
    return tirx.Select(is_far, far, libm(name, z.re) * direction(z.im))


def sinh(z: Complex) -> Complex:
    """A part with a factor of zero is zero, whatever the other; an infinite real part without
    direction stays infinite.
    """
    zero = z.number(0)
    re, im = _hyperbolic("sinh", z, tirx.cos), _hyperbolic("cosh", z, tirx.sin)
    stays = tirx.all(tirx.isinf(z.re), _without_direction(z))
    re = tirx.Select(z.re == zero, z.re, tirx.Select(stays, tirx.abs(z.re), re))
    return Complex(re, tirx.Select(z.im == zero, z.im, im))


def cosh(z: Complex) -> Complex:
    """A part with a factor of zero is zero, whatever the other; an infinite real part stays."""
    zero = z.number(0)
    re, im = _hyperbolic("cosh", z, tirx.cos), _hyperbolic("sinh", z, tirx.sin)
    stays = tirx.all(tirx.isinf(z.re), _without_direction(z))
    flat = tirx.any(z.re == zero, z.im == zero)
    none = tirx.copysign(zero, tirx.copysign(z.number(1), z.re) * tirx.copysign(z.number(1), z.im))
    return Complex(tirx.Select(stays, tirx.abs(z.re), re), tirx.Select(flat, none, im))


def tanh(z: Complex) -> Complex:
    """Kahan, Branch cuts for complex elementary functions, 1987; where a part is no number, as C has it."""
    tangent, sine = libm("tan", z.im), libm("sinh", z.re)
    zero, one = z.number(0), z.number(1)
    beta = one + tangent * tangent
    rho = tirx.sqrt(one + sine * sine)
    below = one + beta * sine * sine
    far = tirx.abs(z.re) > z.number(11.0 if z.dtype == "float32" else 22.0)
    limit = z.number(4) * tirx.sin(z.im) * tirx.cos(z.im) * tirx.exp(tirx.abs(z.re) * z.number(-2))
    endless, lost = tirx.isinf(z.re), _without_direction(z)
    limit = tirx.Select(tirx.all(endless, lost), tirx.copysign(zero, z.im), limit)
    re = tirx.Select(far, tirx.copysign(one, z.re), beta * rho * sine / below)
    re = tirx.Select(tirx.all(lost, tirx.Not(endless)), z.number(math.nan), re)
    im = tirx.Select(far, limit, tangent / below)
    return Complex(tirx.Select(z.re == zero, z.re, re), tirx.Select(z.im == zero, z.im, im))


def tan(z: Complex) -> Complex:
    return tanh(z.turned()).turned_back()


def _asinh_beyond(z: Complex) -> Complex:
    """``asinh`` where a part is infinite or no number."""
    nan, pi = z.number(math.nan), math.pi
    high, wide, unknown = tirx.isinf(z.im), tirx.isinf(z.re), is_nan(z.re)
    re = tirx.Select(high, tirx.copysign(z.number(math.inf), z.re), tirx.Select(tirx.any(wide, unknown), z.re, nan))
    corner = tirx.copysign(tirx.Select(wide, z.number(pi / 4), z.number(pi / 2)), z.im)
    is_flat = tirx.any(tirx.all(wide, tirx.isfinite(z.im)), tirx.all(unknown, z.im == z.number(0)))
    flat = tirx.Select(is_flat, tirx.copysign(z.number(0), z.im), nan)
    return Complex(re, tirx.Select(high, tirx.Select(unknown, nan, corner), flat))


def _asin_beyond(z: Complex) -> Complex:
    return _asinh_beyond(z.turned()).turned_back()


def root_below(z: Complex) -> Complex:
    return sqrt(Complex(z.number(1) - z.re, -z.im))


def root_above(z: Complex) -> Complex:
    return sqrt(z.plus(1))


def root_beyond(z: Complex) -> Complex:
    return sqrt(z.plus(-1))


def _asinh_of_twice(z: Complex, half: Scalar) -> Scalar:
    """``asinh(2 * half)``, also where ``2 * half`` is too large a number: far out, ``asinh`` is a logarithm."""
    is_far = tirx.abs(half) > z.number(1e30)
    near = libm("asinh", tirx.Select(is_far, half, half + half))
    return near + tirx.Select(is_far, tirx.copysign(z.number(math.log(2)), half), z.number(0))


def asin(z: Complex, below: Complex, above: Complex) -> Complex:
    """By the roots of ``1 - z`` and ``1 + z``."""
    root = below.scaled(z.number(0.5))
    across = root.re * above.im - root.im * above.re
    near = Complex(libm("atan2", z.re, (below * above).re), _asinh_of_twice(z, across))
    return chosen(is_finite(z), near, _asin_beyond(z))


def acos(z: Complex, below: Complex, above: Complex) -> Complex:
    """By the roots of ``1 - z`` and ``1 + z``."""
    root = below.scaled(z.number(0.5))
    across = above.re * root.im - above.im * root.re
    near = Complex(z.number(2) * libm("atan2", below.re, above.re), _asinh_of_twice(z, across))
    beyond = _asin_beyond(z)
    return chosen(is_finite(z), near, Complex(z.number(math.pi / 2) - beyond.re, -beyond.im))


def acosh(z: Complex, beyond_one: Complex, above: Complex) -> Complex:
    """By the roots of ``z - 1`` and ``z + 1``."""
    root = beyond_one.scaled(z.number(0.5))
    along = root.re * above.re + root.im * above.im
    near = Complex(_asinh_of_twice(z, along), z.number(2) * libm("atan2", beyond_one.im, above.re))
    beyond = _asin_beyond(z)
    turned = tirx.copysign(z.number(math.pi / 2) - beyond.re, z.im)
    return chosen(is_finite(z), near, Complex(tirx.abs(beyond.im), turned))


def atanh(z: Complex) -> Complex:
    """Far from the origin ``1 / z``, a quarter turn on; where a part is infinite or no number, as C has it."""
    zero, one, quarter = z.number(0), z.number(1), tirx.copysign(z.number(math.pi / 2), z.im)
    length = tirx.abs(z.re)
    rest = (one - length) * (one - length) + z.im * z.im
    re = z.number(0.25) * libm("log1p", z.number(4) * length / rest)
    im = z.number(0.5) * libm("atan2", z.number(2) * z.im, (one - length) * (one + length) - z.im * z.im)
    limit = z.number(1e8 if z.dtype == "float32" else 1e17)
    far = tirx.max(length, tirx.abs(z.im)) > limit
    half = magnitude(z.scaled(z.number(0.5)))
    re = tirx.Select(far, length / half / half * z.number(0.25), re)
    pole = z.number(0.5) * (z.number(math.log(2)) - tirx.log(tirx.abs(z.im)))
    re = tirx.Select(tirx.all(length == one, tirx.abs(z.im) < z.number(1e-10)), pole, re)
    im = tirx.Select(far, quarter, im)
    high, wide = tirx.isinf(z.im), tirx.isinf(z.re)
    beyond = Complex(
        tirx.Select(tirx.any(high, wide, length == zero), zero, z.number(math.nan)),
        tirx.Select(tirx.any(high, tirx.all(wide, tirx.isfinite(z.im))), quarter, z.number(math.nan)),
    )
    found = chosen(is_finite(z), Complex(re, im), beyond)
    return Complex(tirx.copysign(found.re, z.re), found.im)


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
    "tan": tan, "sinh": sinh, "cosh": cosh, "tanh": tanh, "atan": atan, "atanh": atanh, "reciprocal": reciprocal,
    "sgn": sign,
    "exp2": lambda z: exp(z.scaled(z.number(math.log(2)))),
    "log2": _times_number(log, 1 / math.log(2)),
    "log10": _times_number(log, 1 / math.log(10)),
    "square": lambda z: z * z,
    "conj_physical": Complex.conjugate,
}  # fmt: skip
"""Functions of one number, by ATen's name."""

ROOTED: dict[str, tuple[Callable[[Complex], Complex], Callable[[Complex, Complex, Complex], Complex]]] = {
    "asin": (root_below, asin),
    "acos": (root_below, acos),
    "acosh": (root_beyond, acosh),
}
"""Functions by two roots, the first given here, the other :func:`root_above`; each is read often, so a step of its
own."""

INVERSES: dict[str, Callable[[Complex], Complex]] = {
    "rsqrt": sqrt,
    "sigmoid": lambda z: exp(z.negative()).plus(1),
}
"""Functions that are one by another. A quotient reads its divisor a dozen times, so that is a step of its own."""
