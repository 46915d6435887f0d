"""What elementwise lowerings share: type promotion, broadcasting and one kernel from a scalar expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import tvm
from tvm import relax, te, tirx

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor
from torch_tvm.lowering.conversion import convert, held, is_nan, loaded, rounded
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    HALF,
    as_size,
    bits_of,
    broadcast_indices,
    broadcast_shape,
    compute_dtype,
    is_float,
    is_one,
)
from torch_tvm.workloads.workload import POINTWISE


def promoted_dtype(b: Builder, *operands: Any) -> str:
    """ATen's common dtype of tensors and numbers: tensors with dimensions win over 0-d ones, those over numbers."""
    common = _example(b, operands[0])
    if len(operands) == 1:
        return dtype_name(torch.result_type(common, common))
    for operand in operands[1:]:
        other = _example(b, operand)
        dtype = torch.result_type(common, other)
        dims = max(_dims(common), _dims(other))
        common = torch.empty((1,) * dims, dtype=dtype, device="meta") if dims >= 0 else common
    return dtype_name(common.dtype)


def _example(b: Builder, operand: Any) -> Any:
    if is_tensor(operand):
        return torch.empty((1,) * b.rank(operand), dtype=getattr(torch, b.dtype(operand)), device="meta")
    if is_symbolic(operand):
        return 1.0 if is_float(str(operand.ty.dtype)) else 1
    return operand


def _dims(example: Any) -> int:
    return example.dim() if isinstance(example, torch.Tensor) else -1


# -- scalar expressions ------------------------------------------------------------------------------


def number(value: Any, dtype: str) -> tvm.ir.Expr:
    """A number, of Python or symbolic, as a TIR expression; integers wrap, as a C cast does."""
    return convert(value, dtype) if is_symbolic(value) else immediate(value, dtype)


def immediate(value: Any, dtype: str) -> tirx.IntImm | tirx.FloatImm:
    """A Python number as a TIR immediate, as :func:`held` has it."""
    return tirx.const(held(value, dtype), dtype)


def kept(value: tvm.ir.Expr) -> tvm.ir.Expr:
    """``value``; a float zero as a constant that TVM does not fold (it takes ``x * 0`` for 0 and
    ``x + 0`` for ``x``).
    """
    if not isinstance(value, tirx.FloatImm) or value.value != 0:
        return value
    dtype = str(value.ty.dtype)
    bits = bits_of(dtype)
    negative = tirx.reinterpret(dtype, tirx.const(1 << (bits - 1), f"uint{bits}"))
    return negative if math.copysign(1.0, value.value) < 0 else negative * tirx.const(-1, dtype)


def times(x: tvm.ir.Expr, y: tvm.ir.Expr) -> tvm.ir.Expr:
    """``x * y``, NaN for zero times infinity or NaN also where a factor is a constant."""
    return kept(x) * kept(y)


def libm(name: str, *args: tvm.ir.Expr) -> tvm.ir.Expr:
    """A call of the C library's function, ``name`` without the suffix for float32."""
    dtype = str(args[0].ty.dtype)
    return tirx.call_pure_extern(dtype, name + ("f" if dtype == "float32" else ""), *args)


def named(value: tvm.ir.Expr, body: Callable[[tvm.ir.Expr], tvm.ir.Expr]) -> tvm.ir.Expr:
    """``body`` of a value that it uses more than once. The result may stand in one place only."""
    name = tirx.Var("value", value.ty)
    return tirx.Let(name, value, body(name))


def larger(x: tvm.ir.Expr, y: tvm.ir.Expr) -> tvm.ir.Expr:
    """The maximum; NaN when either is."""
    dtype = str(x.ty.dtype)
    if is_float(dtype):
        return tirx.Select(tirx.any(is_nan(x), x > y), x, y)
    return tirx.any(x, y) if dtype == "bool" else tirx.max(x, y)


def smaller(x: tvm.ir.Expr, y: tvm.ir.Expr) -> tvm.ir.Expr:
    """The minimum; NaN when either is."""
    dtype = str(x.ty.dtype)
    if is_float(dtype):
        return tirx.Select(tirx.any(is_nan(x), x < y), x, y)
    return tirx.all(x, y) if dtype == "bool" else tirx.min(x, y)


# -- kernels -----------------------------------------------------------------------------------------


def pointwise(
    b: Builder,
    body: Callable[..., tvm.ir.Expr],
    *operands: Any,
    compute: str | None = None,
    result: str | None = None,
    name: str | None = None,
) -> relax.Expr:
    """One kernel ``result(body(compute(operand)…))`` over broadcast operands.

    Operands are tensors, Python numbers or symbolic sizes. ``compute`` defaults to what ATen computes the
    result in, ``result`` to the dtype of the op's result.
    """
    out = result or b.result_dtype
    inner = compute or compute_dtype(out)
    tensors = [operand for operand in operands if is_tensor(operand)]
    tensors = agree(b, tensors)
    sizes = [operand for operand in operands if is_symbolic(operand)]

    def kernel(*args: Any) -> te.Tensor:
        sources, values = list(args[: len(tensors)]), list(args[len(tensors) :])
        shape = broadcast_shape([list(t.shape) for t in sources])

        def element(*indices: Any) -> tvm.ir.Expr:
            left, extra = iter(sources), iter(values)
            scalars = []
            for operand in operands:
                if is_tensor(operand):
                    source = next(left)
                    scalars.append(convert(loaded(source(*broadcast_indices(source.shape, shape, indices))), inner))
                else:
                    scalars.append(number(next(extra) if is_symbolic(operand) else operand, inner))
            return convert(body(*scalars), out)

        return te.compute(shape, element, name="compute")

    return b.te(kernel, *tensors, *sizes, name=name, attributes={POINTWISE: True})


def rounded_operands(b: Builder, dtype: str, *operands: Any) -> list[Any]:
    """Operands as most of ATen's kernels for a half type take them: numbers and other tensors are rounded to that type.

    Products and quotients take a number as it is.
    """
    if dtype not in HALF:
        return list(operands)
    return [_rounded_operand(b, dtype, operand) for operand in operands]


def _rounded_operand(b: Builder, dtype: str, operand: Any) -> Any:
    if isinstance(operand, (int, float)):
        return torch.tensor(operand, dtype=torch.float64).to(getattr(torch, dtype)).item()
    if not is_tensor(operand) or b.dtype(operand) == dtype:
        return operand
    is_long = dtype == "bfloat16" and not isinstance(operand, tvm.ir.GenericConst)
    return round_to_bfloat16(b, operand) if is_long else b.cast(operand, dtype)


def scaled(b: Builder, x: relax.Expr, factor: Any) -> relax.Expr:
    """``x`` times a number, in the dtype of ``x``."""
    dtype = b.dtype(x)
    if is_float(dtype) and isinstance(factor, (bool, int, float)) and factor == 0:
        return pointwise(b, times, x, factor, result=dtype, name="scale")
    return b.emit(relax.op.multiply(x, b.tensor(factor, dtype)))


def round_to_bfloat16(b: Builder, x: relax.Expr) -> relax.Expr:
    """``x`` as bfloat16, rounded also where the next op computes with it in float32."""
    once = lambda value: named(value, rounded)
    return pointwise(b, once, x, compute="float32", result="bfloat16", name="round")


def agree(b: Builder, tensors: Sequence[relax.Expr]) -> list[relax.Expr]:
    """The operands with every size either a constant 1 or the same as in the others.

    Sizes that nobody can prove equal are compared when the program runs: a size that turns out to be 1 is
    expanded, any other difference is an error there. Sizes that are known to differ are a refusal.
    """
    shapes = [b.shape(tensor) for tensor in tensors]
    rank = max((len(shape) for shape in shapes), default=0)
    target: list[Any] = [1] * rank
    unproven = False
    for shape in shapes:
        for position, size in enumerate(shape, start=rank - len(shape)):
            if is_one(size):
                continue
            if is_one(target[position]):
                target[position] = size
            elif not equal_sizes(target[position], size):
                if isinstance(size, int) and isinstance(target[position], int):
                    raise Refusal(f"sizes {target[position]} and {size} do not broadcast")
                target[position] = _joined(b, target[position], size)
                unproven = True
    if not unproven:
        return list(tensors)
    return [expanded(b, tensor, target) for tensor in tensors]


def equal_sizes(left: Any, right: Any) -> bool:
    """Whether two sizes are provably the same."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return bool(tvm.sym.Analyzer().can_prove_equal(as_size(left), as_size(right)))


def _joined(b: Builder, left: Any, right: Any) -> Any:
    """The size of a broadcast dimension: a constant that is not 1 decides, else the left one unless it is 1.

    A choice between what are formulas already is a symbol: of choices of choices TVM simplifies for hours.
    """
    if isinstance(left, int):
        return left
    if isinstance(right, int):
        return right
    chosen = tirx.Select(as_size(left) == as_size(1), as_size(right), as_size(left))
    are_symbols = isinstance(left, tirx.Var) and isinstance(right, tirx.Var)
    return chosen if are_symbols else b.counted(b.tensor(chosen, "int64"))


def expanded(b: Builder, x: relax.Expr, target: Sequence[Any]) -> relax.Expr:
    """``x`` with each size that is not proven to be the target's expanded to it at run time, or an error.

    A size of 1 stays where it is a constant.
    """
    shape = b.shape(x)
    wanted = list(target[len(target) - len(shape) :])
    if all(is_one(size) or equal_sizes(size, want) for size, want in zip(shape, wanted, strict=True)):
        return x
    for size, want in zip(shape, wanted, strict=True):
        if isinstance(size, int) and isinstance(want, int) and size not in (1, want):
            raise Refusal(f"size {size} does not broadcast to {want}")
    legal = [
        size
        if is_one(size) or equal_sizes(size, want)
        else tirx.Select(as_size(size) == as_size(1), as_size(1), as_size(want))
        for size, want in zip(shape, wanted, strict=True)
    ]
    checked = b.match_shape(x, legal, b.dtype(x))
    out = [size if is_one(size) else want for size, want in zip(shape, wanted, strict=True)]

    def expand(source: te.Tensor, goal: Any) -> te.Tensor:
        sizes = list(goal)

        def element(*indices: Any) -> tvm.ir.Expr:
            return source(
                *[
                    index if equal_sizes(size, size_out) else tirx.Select(size == 1, tirx.const(0, "int64"), index)
                    for size, size_out, index in zip(source.shape, sizes, indices, strict=True)
                ]
            )

        return te.compute(sizes, element, name="expand")

    return b.te(expand, checked, relax.ShapeExpr([as_size(size) for size in out]), name="expand")
