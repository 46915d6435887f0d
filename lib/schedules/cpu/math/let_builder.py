"""Names for the steps of a computation on vectors of floats, and the bit tricks that the steps share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Var

from torch_tvm.tir import FORMATS

Expr: TypeAlias = tirx.Expr

RARELY = "torch_tvm.rarely"
"""The name of the call that :meth:`LetBuilder.rarely` makes, until statements take its place."""


class LetBuilder:
    """Names the steps of a computation in ``real``, so that each is computed once: ``close`` wraps them
    around the result."""

    def __init__(self, lanes: int, real: str = "float32") -> None:
        self.lanes = lanes
        self.real = real
        self.format = FORMATS.get(real, FORMATS["float32"])
        self.steps: list[tuple[Var, Expr]] = []

    def __call__(self, value: Expr) -> Var:
        var = Var("m", value.ty)
        self.steps.append((var, value))
        return var

    def close(self, result: Expr) -> Expr:
        for var, value in reversed(self.steps):
            result = tirx.Let(var, value, result)
        return result

    def wide(self) -> LetBuilder:
        """The same names for steps in float64."""
        other = LetBuilder(self.lanes, "float64")
        other.steps = self.steps
        return other

    def rarely(self, key: Expr, bound: int, usual: Expr, rare: Callable[[LetBuilder], Expr]) -> Var:
        """``usual``, and ``rare`` in the lanes whose ``key`` (int32) is above ``bound``; a vector without such a
        lane does not compute it."""
        inner = LetBuilder(self.lanes, self.real)
        value = inner.close(rare(inner))
        return self(tirx.call_pure_extern(usual.ty.dtype, RARELY, key, self.integer(bound), usual, value))

    # --- constants and types -----------------------------------------------------------------------

    def const(self, value: float) -> Expr:
        return self._broadcast(tirx.FloatImm(self.real, value))

    def integer(self, value: int, dtype: str | None = None) -> Expr:
        """An integer of ``dtype``, by default as wide as the floats and signed."""
        return self._broadcast(tirx.const(value, dtype or f"int{self.format.bits}"))

    def _broadcast(self, scalar: Expr) -> Expr:
        return scalar if self.lanes == 1 else tirx.Broadcast(scalar, self.lanes)

    def dtype(self, name: str) -> str:
        return name if self.lanes == 1 else f"{name}x{self.lanes}"

    def cast(self, value: Expr, name: str) -> Var:
        return self(tirx.Cast(self.dtype(name), value))

    def bits(self, value: Expr, kind: str = "int") -> Expr:
        return tirx.reinterpret(self.dtype(f"{kind}{self.format.bits}"), value)

    def floats(self, value: Expr) -> Expr:
        return tirx.reinterpret(self.dtype(self.real), value)

    def exact(self, value: Expr) -> Var:
        """``value`` rounded here: nothing is simplified across it."""
        return self(self.floats(self(self.bits(value))))

    def is_nan(self, x: Expr) -> Expr:
        """``x`` is NaN, as a comparison of integers: ``tirx.isnan`` has no vector form."""
        return self._magnitude_bits(x) > self.integer(self._infinity)

    def is_finite(self, x: Expr) -> Expr:
        return self._magnitude_bits(x) < self.integer(self._infinity)

    @property
    def _infinity(self) -> int:
        return (2 * self.format.bias + 1) << self.format.mantissa

    def _magnitude_bits(self, x: Expr) -> Expr:
        return tirx.bitwise_and(self.bits(x), self.integer((1 << (self.format.bits - 1)) - 1))

    # --- arithmetic --------------------------------------------------------------------------------

    def horner(self, x: Expr, coefficients: Sequence[float]) -> Var:
        result = self.const(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = result * x + self.const(coefficient)
        return self(result)

    def clamp(self, x: Expr, low: float, high: float) -> Var:
        """``x`` within bounds; NaN stays NaN."""
        upper = self(tirx.Select(x > self.const(high), self.const(high), x))
        return self(tirx.Select(upper < self.const(low), self.const(low), upper))

    def nearest(self, x: Expr) -> tuple[Var, Var]:
        """The integer nearest to a small ``x``, once with ``shift`` added (for its bits) and once without."""
        shifted = self.exact(x + self.const(self.format.shift))
        return shifted, self(shifted - self.const(self.format.shift))

    def split_sign(self, x: Expr) -> tuple[Var, Var]:
        """The magnitude of ``x``, and its sign bit."""
        top = 1 << (self.format.bits - 1)
        bits = self(self.bits(x))
        magnitude = self.floats(tirx.bitwise_and(bits, self.integer(top - 1)))
        return self(magnitude), self(tirx.bitwise_and(bits, self.integer(-top)))

    def with_sign(self, magnitude: Expr, sign: Expr) -> Var:
        """``magnitude`` with its sign changed where ``sign`` has the sign bit."""
        return self(self.floats(tirx.bitwise_xor(self.bits(magnitude), sign)))

    def power_of_two(self, whole: Expr) -> Var:
        """``2 ** whole`` for an integral float between the exponents of normal numbers."""
        return self.scale_of(whole + self.const(self.format.shift), 0)

    def scale_of(self, shifted: Expr, extra: int) -> Var:
        """``2 ** (n + extra)`` for the integer n that ``shifted`` holds in its low bits."""
        bits = self.bits(shifted) + self.integer(self.format.bias + extra)
        return self(self.floats(tirx.shift_left(bits, self.integer(self.format.mantissa))))

    def split_exponent(self, x: Expr) -> tuple[Var, Var]:
        """``e`` and ``f`` with ``x = 2 ** e * (1 + f)`` and ``1 + f`` from √½ to √2, for positive normal x."""
        form = self.format
        one, root_half = form.bias << form.mantissa, ROOT_HALF[self.real]
        kind = f"uint{form.bits}"
        bits = self(self.bits(x, "uint") + self.integer(one - root_half, kind))
        e = tirx.shift_right(bits, self.integer(form.mantissa, kind))
        low = tirx.bitwise_and(bits, self.integer((1 << form.mantissa) - 1, kind))
        mantissa = self.floats(low + self.integer(root_half, kind))
        return self._small_integer(e, form.bias), self(mantissa - self.const(1.0))

    def _small_integer(self, value: Expr, offset: int) -> Var:
        """The unsigned integer ``value - offset`` as a float (AVX2 converts no integers of 64 bits)."""
        if self.format.bits == 32:
            return self(tirx.Cast(self.dtype(self.real), tirx.Cast(self.dtype("int32"), value)) - self.const(offset))
        base = 2.0**self.format.mantissa
        exponent = self.integer((self.format.bias + self.format.mantissa) << self.format.mantissa, "uint64")
        return self(self.floats(tirx.bitwise_or(value, exponent)) - self.const(base + offset))


ROOT_HALF = {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}
