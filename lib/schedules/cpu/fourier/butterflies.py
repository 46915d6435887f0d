"""Fourier transforms of a few numbers, written out: what one step of a long one does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir import vector_of


@dataclass(frozen=True)
class Number:
    """A vector of complex numbers: their real and their imaginary parts."""

    re: Expr
    im: Expr


class Block:
    """Statements that name vectors of ``lanes`` elements, in order."""

    def __init__(self, dtype: str, lanes: int, is_inverse: bool) -> None:
        self.dtype, self.lanes, self.is_inverse = dtype, lanes, is_inverse
        self.statements: list[tirx.Stmt] = []

    def named(self, value: Expr) -> Expr:
        var = tirx.Var("v", vector_of(self.dtype, self.lanes))
        self.statements.append(tirx.Bind(var, value))
        return var

    def number(self, re: Expr, im: Expr) -> Number:
        return Number(self.named(re), self.named(im))

    def constant(self, value: float) -> Expr:
        number = tirx.const(value, self.dtype)
        return tirx.Broadcast(number, self.lanes) if self.lanes > 1 else number

    # -- arithmetic ------------------------------------------------------------------------------------

    def plus(self, x: Number, y: Number) -> Number:
        return self.number(x.re + y.re, x.im + y.im)

    def minus(self, x: Number, y: Number) -> Number:
        return self.number(x.re - y.re, x.im - y.im)

    def times(self, x: Number, y: Number) -> Number:
        return self.number(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)

    def quarter(self, x: Number) -> Number:
        """A quarter turn in the transform's own direction: times ``-i``, or ``i`` backwards."""
        zero = self.constant(0)
        if self.is_inverse:
            return Number(self.named(zero - x.im), x.re)
        return Number(x.im, self.named(zero - x.re))

    def eighth(self, x: Number, turns: int) -> Number:
        """One or three eighths of a turn."""
        half = self.constant(math.sqrt(0.5))
        y = self.quarter(x)
        first, second = (x, y) if turns == 1 else (y, x)
        if turns == 1:
            return self.number((first.re + second.re) * half, (first.im + second.im) * half)
        return self.number((first.re - second.re) * half, (first.im - second.im) * half)

    # -- transforms --------------------------------------------------------------------------------------

    def transform(self, a: Sequence[Number]) -> list[Number]:
        """The transform of as many numbers as there are: 2, 4, 8 or an odd prime."""
        short = {1: lambda x: list(x), 2: self._two, 4: self._four, 8: self._eight}
        return short.get(len(a), self._odd)(a)

    def _two(self, a: Sequence[Number]) -> list[Number]:
        return [self.plus(a[0], a[1]), self.minus(a[0], a[1])]

    def _four(self, a: Sequence[Number]) -> list[Number]:
        even, odd = self._two([a[0], a[2]]), self._two([a[1], a[3]])
        turned = self.quarter(odd[1])
        return [
            self.plus(even[0], odd[0]),
            self.plus(even[1], turned),
            self.minus(even[0], odd[0]),
            self.minus(even[1], turned),
        ]

    def _eight(self, a: Sequence[Number]) -> list[Number]:
        even, odd = self._four(a[0::2]), self._four(a[1::2])
        turned = [odd[0], self.eighth(odd[1], 1), self.quarter(odd[2]), self.eighth(odd[3], 3)]
        pairs = list(zip(even, turned, strict=True))
        return [*(self.plus(x, y) for x, y in pairs), *(self.minus(x, y) for x, y in pairs)]

    def _odd(self, a: Sequence[Number]) -> list[Number]:
        """An odd number: elements that lie opposite each other share their cosines and sines."""
        n = len(a)
        sums = [self.plus(a[j], a[n - j]) for j in range(1, n // 2 + 1)]
        differences = [self.minus(a[j], a[n - j]) for j in range(1, n // 2 + 1)]
        first = a[0]
        for term in sums:
            first = self.plus(first, term)
        results = [first] + [first] * (n - 1)
        for k in range(1, n // 2 + 1):
            even, odd = a[0], None
            for j in range(1, n // 2 + 1):
                turn = 2 * math.pi * (j * k % n) / n
                cosine, sine = self.constant(math.cos(turn)), self.constant(math.sin(turn))
                x, y = sums[j - 1], differences[j - 1]
                even = self.number(even.re + cosine * x.re, even.im + cosine * x.im)
                odd = (
                    self.number(sine * y.re, sine * y.im)
                    if odd is None
                    else self.number(odd.re + sine * y.re, odd.im + sine * y.im)
                )
            assert odd is not None
            turned = self.quarter(odd)
            results[k], results[n - k] = self.plus(even, turned), self.minus(even, turned)
        return results
