"""Sizes and positions: constants where they are known, TIR expressions where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from tvm import relax, tirx
from tvm.ir import Expr
from tvm.sym import Analyzer

SizeLike: TypeAlias = int | Expr

INDEX = "int64"


def const(value: int) -> tirx.IntImm:
    """An index constant."""
    return tirx.IntImm(INDEX, int(value))


def as_size(value: SizeLike) -> Expr:
    """``value`` as an expression."""
    return const(value) if isinstance(value, int) else value


def static(value: Any) -> int | None:
    """The constant behind ``value``, or None when it is symbolic."""
    return int(value) if isinstance(value, (int, tirx.IntImm)) else None


def exact(value: Any) -> int:
    """The constant behind ``value``, where it must have one."""
    found = static(value)
    assert found is not None, value
    return found


def static_sizes(sizes: Iterable[Any]) -> tuple[int, ...] | None:
    """All ``sizes`` as constants, or None when one is symbolic."""
    found = [static(size) for size in sizes]
    constants = [size for size in found if size is not None]
    return tuple(constants) if len(constants) == len(found) else None


def static_shape(value: Expr) -> tuple[int, ...] | None:
    """The sizes of a Relax tensor, or None where it is none or one is unknown."""
    shape = value.ty.shape if isinstance(value.ty, relax.TensorType) else None
    return static_sizes(shape) if isinstance(shape, relax.ShapeExpr) else None


def is_zero(value: Any) -> bool:
    """Whether ``value`` is the constant 0, of any dtype."""
    return isinstance(value, (int, float, tirx.IntImm, tirx.FloatImm)) and _number(value) == 0


def is_one(value: Any) -> bool:
    """Whether ``value`` is the constant 1."""
    return static(value) == 1


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else value.value


def ceil_div(value: Any, divisor: Any) -> Any:
    """``value / divisor`` rounded up: an int for ints, else an expression (a constant for a constant)."""
    if isinstance(value, int) and isinstance(divisor, int):
        return -(-value // divisor)
    return (as_size(value) + (divisor - 1)) // divisor


def round_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is no less than ``value``."""
    return ceil_div(value, multiple) * multiple


def product(sizes: Iterable[SizeLike]) -> SizeLike:
    """The product of sizes; an int where every size is one."""
    total: SizeLike = 1
    for size in sizes:
        total = size if is_one(total) else total if is_one(size) else total * size
    return total


def elements(shape: Iterable[SizeLike]) -> Expr:
    """The number of elements of a buffer of ``shape``, simplified."""
    return Analyzer().simplify(as_size(product(shape)))


def linear(shape: Sequence[Expr], indices: Sequence[Expr]) -> Expr:
    """The row-major position of ``indices`` in a buffer of ``shape`` (0 for rank 0)."""
    position: Expr = const(0)
    for size, place in zip(shape, indices, strict=True):
        position = position * size + place
    return position


def inside(position: Expr, extent: SizeLike) -> Expr:
    """``0 <= position < extent``."""
    return tirx.all(position >= const(0), position < as_size(extent))


def broadcast_shape(shapes: Sequence[Sequence[Any]]) -> list[Any]:
    """The common shape of operands whose sizes are a constant 1 or the same as in the others."""
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Any] = [1] * rank
    for shape in shapes:
        for position, size in enumerate(shape, start=rank - len(shape)):
            if is_one(result[position]):
                result[position] = size
    return result


def broadcast_indices(operand: Sequence[Any], shape: Sequence[Any], indices: Sequence[Any]) -> list[Any]:
    """Where an operand of shape ``operand`` is read for the element ``indices`` of the common ``shape``."""
    skipped = len(shape) - len(operand)
    return [
        0 if is_one(size) and not is_one(out) else place
        for size, out, place in zip(operand, shape[skipped:], indices[skipped:], strict=True)
    ]
