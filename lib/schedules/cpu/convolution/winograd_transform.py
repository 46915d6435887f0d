"""One-dimensional Winograd transforms as straight-line vector code."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr

from torch_tvm import tir
from torch_tvm.workloads.winograd import Matrix


class VectorCode:
    """Statements that bind vectors of ``lanes`` elements to variables."""

    def __init__(self, lanes: int, dtype: str) -> None:
        self.lanes, self.dtype = lanes, dtype
        self.stmts: list[tirx.Stmt] = []

    def bind(self, name: str, value: Expr) -> Expr:
        var, stmt = tir.bind_vector(name, value, self.lanes, self.dtype)
        self.stmts.append(stmt)
        return var

    def scaled(self, coefficient: float, value: Expr) -> Expr:
        if coefficient == 1.0:
            return value
        return value * tir.broadcast(tirx.const(coefficient, self.dtype), self.lanes)

    def combination(self, coefficients: Sequence[float], values: Sequence[Expr]) -> Expr:
        """``Σ coefficient * value`` without the zero terms; one at least is none."""
        result: Expr | None = None
        for coefficient, value in zip(coefficients, values, strict=True):
            if coefficient == 0.0:
                continue
            if result is None:
                result = self.scaled(coefficient, value)
            elif coefficient == -1.0:
                result = result - value
            else:
                result = result + self.scaled(coefficient, value)
        assert result is not None, coefficients
        return result

    def transform(self, matrix: Matrix, values: Sequence[Expr]) -> list[Expr]:
        """``matrix @ values``; rows, or columns, that differ in the signs of some terms share their sums.

        The points of Winograd's transforms come in pairs ``±p``: rows of the data transform are ``e + o`` and
        ``e - o``, columns of the output transform enter as ``a + b`` or ``a - b``.
        """
        matrix, values = self._fold_columns(matrix, list(values))
        results: list[Expr] = []
        row = 0
        while row < len(matrix):
            pair = matrix[row : row + 2]
            if len(pair) == 2 and _is_mirrored(*pair):
                even = [a if a == b else 0.0 for a, b in zip(*pair, strict=True)]
                odd = [a if a != b else 0.0 for a, b in zip(*pair, strict=True)]
                e, o = (self.bind("t", self.combination(part, values)) for part in (even, odd))
                results += [e + o, e - o]
                row += 2
            else:
                results.append(self.combination(matrix[row], values))
                row += 1
        return results

    def _fold_columns(self, matrix: Matrix, values: list[Expr]) -> tuple[Matrix, list[Expr]]:
        """Replace values ``a, b`` whose columns agree up to sign in every row by ``a + b`` and ``a - b``."""
        columns = list(zip(*matrix, strict=True))
        for c in range(len(columns) - 1):
            a, b = columns[c], columns[c + 1]
            signs = {x == y for x, y in zip(a, b, strict=True) if x or y}
            if signs == {True, False} and all(abs(x) == abs(y) for x, y in zip(a, b, strict=True)):
                left, right = values[c], values[c + 1]
                values[c], values[c + 1] = self.bind("s", left + right), self.bind("d", left - right)
                columns[c] = tuple(x if x == y else 0.0 for x, y in zip(a, b, strict=True))
                columns[c + 1] = tuple(x if x != y else 0.0 for x, y in zip(a, b, strict=True))
        return tuple(zip(*columns, strict=True)), values


def _is_mirrored(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the rows agree up to sign, with some terms equal and some negated."""
    signs = {a == b for a, b in zip(first, second, strict=True) if a or b}
    return signs == {True, False} and all(abs(a) == abs(b) for a, b in zip(first, second, strict=True))
