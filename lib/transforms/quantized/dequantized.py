"""Bytes with a scale and a zero point: how a graph spells the numbers that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Expr

from torch_tvm.transforms.params.weights import Weights

LONGEST_SUM = (1 << 31) // (255 * 255)
"""Products of two differences of bytes that an int32 can hold the sum of."""

BYTES = ("int8", "uint8")

Emit = Callable[[Expr], Expr]


@dataclass(frozen=True)
class Dequantized:
    """``(float32(values) - zero) * scale``; ``zero`` is None, an int, or a tensor of integers."""

    values: relax.Var
    scale: Expr
    zero: int | Expr | None


def read_dequantized(value: relax.Var, values: Weights) -> Dequantized | None:
    """``value`` as the dequantised form of bytes, or None."""
    product = values.definition(value, "relax.multiply")
    if product is None:
        return None
    for inner, scale in (product.args, reversed(product.args)):
        difference = values.definition(inner, "relax.subtract")
        zero = None
        if difference is not None:
            inner, zero = difference.args[0], _zero(difference.args[1], values)
            if zero is None:
                continue
        cast = values.definition(inner, "relax.astype")
        if cast is not None and str(cast.args[0].ty.dtype) in BYTES and str(inner.ty.dtype) == "float32":
            source = cast.args[0]
            if tvm_ffi.structural_equal(source.ty.shape, value.ty.shape):
                return Dequantized(source, scale, None if isinstance(zero, int) and zero == 0 else zero)
    return None


def _zero(value: Expr, values: Weights) -> int | Expr | None:
    """A zero point: a constant that a byte can hold, or the integers behind a cast."""
    if isinstance(value, tvm.ir.GenericConst):
        number = value.value.numpy()
        is_byte = number.ndim == 0 and number == int(number) and -128 <= number <= 255
        return int(number) if is_byte else None
    cast = values.definition(value, "relax.astype")
    return value if cast is not None and str(cast.args[0].ty.dtype).startswith(("int", "uint")) else None


def count(value: Expr) -> int | None:
    """Elements of a tensor, if that is a constant."""
    elements = 1
    for size in value.ty.shape:
        if not isinstance(size, tirx.IntImm):
            return None
        elements *= int(size)
    return elements


def as_signed(emit: Emit, values: Expr, zero: int | Expr | None) -> tuple[Expr, int | Expr | None]:
    """Integers of uint8 as int8, 128 less, and their zero point with them; those of int8 as they are.

    ``zero`` is an int or a float32 tensor of integers; None for zero.
    """
    if str(values.ty.dtype) == "int8":
        return values, zero
    op = relax.op
    wide = emit(op.astype(values, "int32"))
    values = emit(op.astype(emit(op.subtract(wide, relax.const(128, "int32"))), "int8"))
    if zero is None or isinstance(zero, int):
        return values, (zero or 0) - 128 or None
    return values, emit(op.subtract(zero, relax.const(128.0, "float32")))


def without_zeros(
    emit: Emit,
    total: Expr,
    zq: Expr | None,
    zw: Expr | None,
    weight_sums: Callable[[], Expr],
    data_sums: Callable[[], Expr],
    depth: int,
) -> Expr:
    """The sum of ``(q - zq) * (w - zw)`` over ``depth`` products, from ``total``, that of ``q * w``; all are int32.

    The sums of ``w`` and of ``q`` alone are made where a zero point needs them.
    """
    op = relax.op
    if zq is not None:
        total = emit(op.subtract(total, emit(op.multiply(zq, weight_sums()))))
    if zw is not None:
        sums = data_sums()
        if zq is not None:
            sums = emit(op.subtract(sums, emit(op.multiply(zq, relax.const(depth, "int32")))))
        total = emit(op.subtract(total, emit(op.multiply(sums, zw))))
    return total


def of_weight(emit: Emit, value: Expr, shape: Sequence[int]) -> Expr:
    """A scale or zero point of a weight, one for all or one for each output, for outputs that lie as ``shape`` says."""
    if isinstance(value, tvm.ir.Constant) or count(value) == 1:
        return value if int(value.ty.ndim) == 0 else emit(relax.op.reshape(value, []))
    return emit(relax.op.reshape(value, list(shape)))
