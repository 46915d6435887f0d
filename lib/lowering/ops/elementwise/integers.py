"""Integers by loops: powers that only the run knows, greatest common divisors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.views import common_shape, expand_to, reshape
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import as_size, product

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr

_PARALLEL = 1 << 15
"""Elements from which on they are worth more than one thread."""


def looped(b: Builder, x: Any, y: Any, start: Callable[..., list[Scalar]], step: Callable[..., None]) -> Expr:
    """Per element of two broadcast operands three words, ``start(x, y)``, changed by ``step`` while the last is not 0.

    The first word is the result. Words are 64 bits without a sign, so that they wrap around.
    """
    dtype = b.result_dtype
    operands = [b.tensor(v, dtype) for v in (x, y)]
    shape = common_shape(b, [b.shape(v) for v in operands])
    if 0 in shape:
        return b.emit(relax.op.zeros(relax.ShapeExpr([as_size(size) for size in shape]), dtype))
    total = product(shape)
    loop = T.serial if isinstance(total, int) and total < _PARALLEL else T.parallel

    def body(left: te.Tensor, right: te.Tensor) -> te.Tensor:
        def kernel(ins: Any, outs: Any) -> tirx.Stmt:
            first, second, out = (T.buffer_proxy(buffer) for buffer in (*ins, *outs))
            with IRBuilder() as builder:
                with loop(0, left.shape[0]) as i:
                    words = allocate(3, "uint64")
                    values = start(*[tirx.Cast("int64", each[i]) for each in (first, second)])
                    for index, value in enumerate(values):
                        words[index] = tirx.Cast("uint64", value)
                    with T.While(tirx.NE(words[2], tirx.const(0, "uint64"))):
                        step(words)
                    out[i] = tirx.Cast(dtype, words[0])
                return builder.get()

        return te.extern([left.shape], [left, right], kernel, dtype=dtype, name="looped")

    return reshape(b, b.te(body, *[reshape(b, expand_to(b, v, shape), [total]) for v in operands]), shape)


def integer_power(b: Builder, x: Any, exponent: Any) -> Expr:
    """``x`` to powers that only the run knows: 0 for negative ones, but for 1 and -1."""
    number = lambda value: tirx.const(value, "int64")

    def start(base: Scalar, power: Scalar) -> list[Scalar]:
        is_one = tirx.any(tirx.EQ(base, number(1)), tirx.EQ(base, number(-1)))
        stays = tirx.any(power >= number(0), is_one)
        return [number(1), tirx.Select(stays, base, number(0)), tirx.abs(power)]

    def step(words: Any) -> None:
        is_odd = tirx.EQ(tirx.bitwise_and(words[2], tirx.const(1, "uint64")), tirx.const(1, "uint64"))
        words[0] = tirx.Select(is_odd, words[0] * words[1], words[0])
        words[1] = words[1] * words[1]
        words[2] = words[2] >> tirx.const(1, "uint64")

    return looped(b, x, exponent, start, step)


def gcd(b: Builder, x: Tensor, y: Tensor) -> Expr:
    """aten::gcd(Tensor self, Tensor other) -> Tensor"""

    def step(words: Any) -> None:
        words[1] = words[0] % words[2]
        words[0] = words[2]
        words[2] = words[1]

    return looped(b, x, y, lambda u, v: [tirx.abs(u), tirx.const(0, "int64"), tirx.abs(v)], step)


register("torch.aten.gcd", gcd, custom=True)
