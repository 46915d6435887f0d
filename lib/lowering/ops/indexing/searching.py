"""Positions in sorted boundaries, by bisection, and those of elements that are repeated."""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, loaded
from torch_tvm.lowering.ops.indexing.gathers import INTEGERS, gather_along
from torch_tvm.lowering.ops.indexing.kernels.bisection import first_where
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.pointwise import promoted_dtype
from torch_tvm.lowering.registry import Number, Size, Tensor, lowers, register
from torch_tvm.tir import as_size, compute_dtype, const, is_one, product

Expr: TypeAlias = relax.Expr

PARALLEL = 1 << 12
"""Values from which on they are worth more than one thread."""


def _bisected(b: Builder, values: Expr, boundaries: Expr, right: bool, dtype: str) -> Expr:
    """How many boundaries come before each value; ``boundaries`` is 1-d, or has the values' leading sizes.

    A NaN, and boundaries that are not sorted, give the positions of ATen's ``cus_lower_bound`` and ``cus_upper_bound``.
    """
    if b.dtype(values) != b.dtype(boundaries):
        b.unsupported("values and boundaries of different dtypes")
    shape, count = b.shape(values), b.shape(boundaries)[-1]
    leading = [] if b.rank(boundaries) == 1 else shape[:-1]
    b.expect_equal(b.shape(boundaries)[:-1], leading, "boundaries and values do not fit")
    if 0 in shape:
        return b.emit(relax.op.zeros(relax.ShapeExpr(values.ty.shape.values), dtype))
    total = product(shape)
    loop = T.serial if isinstance(total, int) and total < PARALLEL else T.parallel
    inner = compute_dtype(b.dtype(values))

    def body(v: te.Tensor, edges: te.Tensor, sizes: Any) -> te.Tensor:
        each, length = sizes
        passes = operator.gt if right else operator.ge

        def kernel(ins: Any, outs: Any) -> tirx.Stmt:
            given, sorted_, out = (T.buffer_proxy(buffer) for buffer in (*ins, *outs))
            number = lambda value: convert(loaded(value), inner)
            with IRBuilder() as builder:
                with loop(0, v.shape[0]) as i:
                    row = i // each * length if leading else const(0)
                    place = first_where(lambda k: passes(number(sorted_[row + k]), number(given[i])), const(0), length)
                    out[i] = tirx.Cast(dtype, place)
                return builder.get()

        return te.extern([v.shape], [v, edges], kernel, dtype=dtype, name="searchsorted")

    flat = [reshape(b, x, [product(b.shape(x))]) for x in (values, boundaries)]
    sizes = relax.ShapeExpr([as_size(size) for size in (shape[-1] if leading else 1, count)])
    return reshape(b, b.te(body, *flat, sizes, name="searchsorted"), shape)


@lowers("torch.aten.bucketize.Tensor")
def bucketize(b: Builder, x: Tensor, boundaries: Tensor, out_int32: bool, right: bool) -> Expr:
    """aten::bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False,
    bool right=False) -> Tensor"""
    return _bisected(b, x, boundaries, right, "int32" if out_int32 else "int64")


def searchsorted(
    b: Builder,
    sorted_sequence: Tensor,
    x: Tensor,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Tensor | None,
) -> Expr:
    """aten::searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False,
    bool right=False, str? side=None, Tensor? sorter=None) -> Tensor"""
    if sorter is not None:
        sorted_sequence = gather_along(b, sorted_sequence, b.rank(sorted_sequence) - 1, sorter)
    dtype = "int32" if out_int32 else "int64"
    return _bisected(b, x, sorted_sequence, right or side == "right", dtype)


def _number_among(b: Builder, value: Number, boundaries: Expr) -> tuple[Expr, Expr]:
    """A number and the boundaries in the dtype in which ATen compares them."""
    dtype = promoted_dtype(b, boundaries, value)
    return b.const(value, dtype), b.cast(boundaries, dtype)


def bucketize_number(b: Builder, x: Number, boundaries: Tensor, out_int32: bool, right: bool) -> Expr:
    """aten::bucketize.Scalar(Scalar self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor"""
    value, edges = _number_among(b, x, boundaries)
    return _bisected(b, value, edges, right, "int32" if out_int32 else "int64")


def searchsorted_number(
    b: Builder,
    sorted_sequence: Tensor,
    x: Number,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Tensor | None,
) -> Expr:
    """aten::searchsorted.Scalar(Tensor sorted_sequence, Scalar self, *, bool out_int32=False, bool right=False,
    str? side=None, Tensor? sorter=None) -> Tensor"""
    value, edges = _number_among(b, x, sorted_sequence)
    return searchsorted(b, edges, value, out_int32, right, side, sorter)


@lowers("torch.aten.repeat_interleave.Tensor")
def repeat_interleave(b: Builder, repeats: Tensor, output_size: Size | None) -> Expr:
    """aten::repeat_interleave.Tensor(Tensor repeats, *, SymInt? output_size=None) -> Tensor"""
    if b.dtype(repeats) not in INTEGERS:
        b.unsupported("repeats that are no integers, which ATen reports as an error")
    counts = b.cast(repeats, "int64")
    least = b.emit(relax.op.min(b.emit(relax.op.concat([counts, relax.const([0], "int64")], 0))))
    b.check(b.emit(relax.op.greater_equal(least, b.const(0, "int64"))), "repeats can not be negative")
    total = b.emit(relax.op.sum(counts))
    if output_size is None:
        output_size = b.counted(total)
    else:
        is_total = b.emit(relax.op.equal(total, b.tensor(output_size, "int64")))
        b.check(is_total, "allocated size does not match required size")
    places = b.te(lambda n: te.compute(list(n), lambda i: i), relax.ShapeExpr([as_size(output_size)]), name="place")
    ends = b.emit(relax.op.cumsum(counts, 0))
    return b.cast(_bisected(b, places, ends, True, "int64"), b.dtype(repeats))


def repeat_elements(b: Builder, x: Tensor, repeats: Tensor, dim: int | None, output_size: Size | None) -> Expr:
    """aten::repeat_interleave.self_Tensor(Tensor self, Tensor repeats, int? dim=None, *,
    SymInt? output_size=None) -> Tensor"""
    x = x if dim is not None and b.rank(x) else reshape(b, x, [product(b.shape(x))])
    axis = b.axis(dim or 0, b.rank(x))
    size = b.shape(x)[axis]
    if b.rank(repeats) == 0 or is_one(b.shape(repeats)[0]):
        repeats = b.broadcast(reshape(b, repeats, [1]), [size])
    b.expect_equal(b.shape(repeats), [size], "there are not as many repeats as elements")
    return b.emit(relax.op.take(x, repeat_interleave(b, repeats, output_size), axis, mode="clip"))


register("torch.aten.searchsorted.Tensor", searchsorted, custom=True)
register("torch.aten.repeat_interleave.self_Tensor", repeat_elements, custom=True)
register("torch.aten.bucketize.Scalar", bucketize_number, custom=True)
register("torch.aten.searchsorted.Scalar", searchsorted_number, custom=True)
