"""Bessel and Airy functions as Cephes has them: a rational or a series near zero, another one of 1 / x beyond."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import tvm
from tvm import tirx

from torch_tvm.lowering.ops.elementwise.tables import TABLES
from torch_tvm.lowering.ops.elementwise.unary import scalar_unary
from torch_tvm.lowering.pointwise import named
from torch_tvm.lowering.polynomials import constants, horner

Scalar: TypeAlias = tvm.ir.Expr
Body: TypeAlias = Callable[[Scalar], Scalar]


def table(name: str, x: Scalar) -> Scalar:
    """A polynomial by its name."""
    return horner(x, TABLES[name])


def ratio(above: str, below: str, x: Scalar) -> Scalar:
    """A quotient of two polynomials by their names."""
    return table(above, x) / table(below, x)


def _series(name: str, x: Scalar) -> Scalar:
    """A polynomial of a number in [-1, 1], without the terms that the dtype does not see."""
    coefficients = TABLES[name]
    if str(x.ty.dtype) == "float32":
        least = 2.0**-28 * max(map(abs, coefficients))
        last = max(index for index, value in enumerate(coefficients) if abs(value) > least)
        coefficients = coefficients[: last + 1]
    return horner(x, coefficients)


def _signed(x: Scalar, of_magnitude: Body, is_odd: bool) -> Scalar:
    """An even or odd function by its values for positive numbers."""
    value = named(tirx.abs(x), of_magnitude)
    if not is_odd:
        return value
    zero = constants(x)(0)
    return named(value, lambda v: tirx.Select(x < zero, zero - v, v))


# -- modified Bessel functions ---------------------------------------------------------------------------------


def _i_near(order: int, u: Scalar) -> Scalar:
    """``exp(-u) I(u)`` up to 8."""
    constant = constants(u)
    value = named(u * constant(0.25) - constant(1), lambda t: _series(f"I{order}_A", t))
    return value * u if order else value


def _i(order: int, is_scaled: bool) -> Body:
    def of_magnitude(u: Scalar) -> Scalar:
        constant = constants(u)
        far = named(constant(16) / u - constant(1), lambda t: _series(f"I{order}_B", t)) / tirx.sqrt(u)
        value = tirx.Select(u <= constant(8), _i_near(order, u), far)
        return value if is_scaled else tirx.exp(u) * value

    return lambda x: _signed(x, of_magnitude, bool(order))


def _k(order: int, is_scaled: bool) -> Body:
    def body(x: Scalar) -> Scalar:
        constant = constants(x)
        near = named(x * x * constant(0.5) - constant(1), lambda t: _series(f"K{order}_A", t))
        grown = tirx.log(constant(0.5) * x) * (tirx.exp(x) * _i_near(order, x))
        near = grown + near / x if order else near - grown
        far = named(constant(4) / x - constant(1), lambda t: _series(f"K{order}_B", t)) / tirx.sqrt(x)
        if is_scaled:
            near = near * tirx.exp(x)
        else:
            far = tirx.exp(constant(0) - x) * far
        value = tirx.Select(x <= constant(2), near, far)
        return tirx.Select(tirx.EQ(x, constant(0)), tirx.infinity(str(x.ty.dtype)), value)

    return body


# -- Bessel functions ------------------------------------------------------------------------------------------

_ZEROS = {
    0: (5.78318596294678452118, 30.4712623436620863991),
    1: (14.6819706421238932572, 49.2184563216946036703),
}
"""The squares of the first two zeros of J."""


def _j_near(order: int, u: Scalar) -> Scalar:
    """J of ``order`` for ``0 <= u <= 5``."""
    constant = constants(u)
    first, second = (constant(zero) for zero in _ZEROS[order])
    of_square = lambda s: (s - first) * (s - second) * ratio(f"J{order}_RP", f"J{order}_RQ", s)
    value = named(u * u, of_square)
    return value * u if order else value


def _waves(order: int, u: Scalar, is_second: bool) -> Scalar:
    """J or Y beyond 5: a sine and a cosine that decline."""
    constant = constants(u)
    kind = f"J{order}"  # Y's own rationals are the same

    def of_angle(angle: Scalar) -> Scalar:
        sine, cosine = tirx.sin(angle), tirx.cos(angle)
        part = lambda w: named(
            w * w,
            lambda s: (
                ratio(f"{kind}_PP", f"{kind}_PQ", s) * (sine if is_second else cosine)
                + (w if is_second else constant(0) - w)
                * ratio(f"{kind}_QP", f"{kind}_QQ", s)
                * (cosine if is_second else sine)
            ),
        )
        return named(constant(5) / u, part)

    wave = named(u - constant(math.pi / 4 * (1 + 2 * order)), of_angle)
    return wave * constant(math.sqrt(2 / math.pi)) / tirx.sqrt(u)


def _j(order: int) -> Body:
    def of_magnitude(u: Scalar) -> Scalar:
        return tirx.Select(u <= constants(u)(5), _j_near(order, u), _waves(order, u, False))

    return lambda x: _signed(x, of_magnitude, bool(order))


def _y(order: int) -> Body:
    def body(x: Scalar) -> Scalar:
        constant = constants(x)
        near = named(x * x, lambda s: ratio(f"Y{order}_YP", f"Y{order}_YQ", s))
        grown = tirx.log(x) * _j_near(order, x)
        near, grown = (near * x, grown - constant(1) / x) if order else (near, grown)
        near = near + constant(2 / math.pi) * grown
        value = tirx.Select(x <= constant(5), near, _waves(order, x, True))
        return tirx.Select(tirx.EQ(x, constant(0)), constant(0) - tirx.infinity(str(x.ty.dtype)), value)

    return body


SPHERICAL = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(7))
"""``sin(x) / x`` in ``x²``."""


def _spherical_j0(x: Scalar) -> Scalar:
    constant = constants(x)
    near = named(x * x, lambda s: horner(s, SPHERICAL))
    value = tirx.Select(tirx.abs(x) < constant(0.5), near, tirx.sin(x) / x)
    return tirx.Select(tirx.isinf(x), constant(0), value)


# -- Airy's function -------------------------------------------------------------------------------------------


def _airy(x: Scalar) -> Scalar:
    constant = constants(x)
    zero, one = constant(0), constant(1)

    def near() -> Scalar:
        at_zero, slope = constant(0.355028053887817239260), constant(0.258819403792806798405)
        return named(x * x * x, lambda z: at_zero * table("AIRY_F", z) - slope * x * table("AIRY_G", z))

    def far(u: Scalar) -> Scalar:
        """On both sides: ``u`` is |x|, and ``p`` is 2/3 u √u."""
        root = constant(1 / math.sqrt(math.pi)) / tirx.sqrt(tirx.sqrt(u))

        def waves(p: Scalar) -> Scalar:
            angle = p + constant(math.pi / 4)
            wave = lambda z: named(
                z * z,
                lambda s: (
                    tirx.sin(angle) * (one + s * ratio("AIRY_AFN", "AIRY_AFD", s))
                    - tirx.cos(angle) * z * ratio("AIRY_AGN", "AIRY_AGD", s)
                ),
            )
            declining = named(one / p, lambda z: ratio("AIRY_AN", "AIRY_AD", z)) / (constant(2) * tirx.exp(p))
            return tirx.Select(x < zero, named(one / p, wave), declining)

        return root * named(constant(2 / 3) * u * tirx.sqrt(u), waves)

    value = tirx.Select(tirx.any(x < constant(-2.09), x >= constant(2.09)), named(tirx.abs(x), far), near())
    value = tirx.Select(x > constant(103.892), zero, value)
    return tirx.Select(tirx.isinf(x), constant(math.nan), value)


for _order in (0, 1):
    for _name, _body in (
        (f"special_i{_order}e", _i(_order, True)),
        (f"special_modified_bessel_i{_order}", _i(_order, False)),
        (f"special_modified_bessel_k{_order}", _k(_order, False)),
        (f"special_scaled_modified_bessel_k{_order}", _k(_order, True)),
        (f"special_bessel_j{_order}", _j(_order)),
        (f"special_bessel_y{_order}", _y(_order)),
    ):
        scalar_unary(f"torch.aten.{_name}", _body, custom=True)
scalar_unary("torch.aten.i0", _i(0, False), custom=True)
scalar_unary("torch.aten.special_i1", _i(1, False), custom=True)
scalar_unary("torch.aten.special_spherical_bessel_j0", _spherical_j0, custom=True)
scalar_unary("torch.aten.special_airy_ai", _airy, custom=True)
