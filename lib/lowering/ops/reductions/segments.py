"""Reductions of segments of a dimension, whose lengths or ends a tensor gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, is_nan
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.registry import Number, Tensor, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import as_size, compute_dtype, product

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr

_START = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}


@dataclass(frozen=True)
class _Segments:
    """How the elements of a segment become one, beginning with ``initial``, if there is one."""

    reduction: str
    initial: float | None
    dtype: str

    def body(self, ins: Any, outs: Any) -> tirx.Stmt:
        data, begins, ends = (T.buffer_proxy(buffer) for buffer in ins)
        out = T.buffer_proxy(outs[0])
        outer, count, inner = outs[0].shape
        inside = compute_dtype(self.dtype)
        start = _START[self.reduction] if self.initial is None else self.initial
        with IRBuilder() as builder:
            with T.parallel(0, outer * count) as task:
                i, k = task // count, task % count
                total = allocate(1, inside, "local")
                length = ends[i, k] - begins[i, k]
                with T.serial(0, inner) as j:
                    total[0] = tirx.const(start, inside)
                    with T.serial(0, length) as step:
                        value = convert(data[i, begins[i, k] + step, j], inside)
                        total[0] = self.combined(total[0], value)
                    out[i, k, j] = convert(self.finished(total[0], length, inside), self.dtype)
            return builder.get()

    def kernel(self, values: te.Tensor, first: te.Tensor, last: te.Tensor) -> te.Tensor:
        """``[outer, total, inner]`` values by segments that begin and end there, both ``[outer, segments]``."""
        sources = [values, first, last]
        buffers = [tirx.decl_buffer(t.shape, t.dtype, f"in{n}") for n, t in enumerate(sources)]
        size = [values.shape[0], first.shape[1], values.shape[2]]
        return te.extern([size], sources, self.body, dtype=self.dtype, in_buffers=buffers, name="segments")

    def combined(self, old: Scalar, value: Scalar) -> Scalar:
        if self.reduction in ("max", "min"):
            better = value > old if self.reduction == "max" else value < old
            return tirx.Select(tirx.any(is_nan(value), better), value, old)
        return old * value if self.reduction == "prod" else old + value

    def finished(self, total: Scalar, length: Scalar, inside: str) -> Scalar:
        if self.reduction != "mean":
            return total
        nothing = tirx.const(float("nan"), inside) if self.initial is None else total
        return tirx.Select(length > 0, total / tirx.Cast(inside, tirx.max(length, 1)), nothing)


def segment_reduce(
    b: Builder,
    data: Tensor,
    reduce: str,
    lengths: Tensor | None,
    indices: Tensor | None,
    offsets: Tensor | None,
    axis: int,
    unsafe: bool,
    initial: Number | None,
) -> Expr:
    """aten::segment_reduce(Tensor data, str reduce, *, Tensor? lengths=None, Tensor? indices=None,
    Tensor? offsets=None, int axis=0, bool unsafe=False, Scalar? initial=None) -> Tensor"""
    given = lengths if lengths is not None else offsets
    if given is None or indices is not None or reduce not in _START:
        b.unsupported("segments without lengths or offsets")
    shape, own = b.shape(data), b.shape(given)
    axis = b.axis(axis, len(shape))
    if len(own) != axis + 1 or 0 in shape:
        b.unsupported("segments of nothing, or along another dimension than the last of their lengths")
    outer, total, inner = product(shape[:axis]), shape[axis], product(shape[axis + 1 :])
    begins, ends = _bounds(b, reshape(b, b.cast(given, "int64"), [outer, own[-1]]), lengths is not None)
    count = b.shape(begins)[1]
    if isinstance(count, int) and count == 0:
        b.unsupported("no segments")
    _check(b, begins, ends, total, lengths is not None and not unsafe)
    how = _Segments(reduce, None if initial is None else float(initial), b.dtype(data))
    rows = reshape(b, data, [outer, total, inner])
    found = b.te(how.kernel, rows, begins, ends, name="segments")
    return reshape(b, found, [*shape[:axis], count, *shape[axis + 1 :]])


def _bounds(b: Builder, given: Expr, are_lengths: bool) -> tuple[Expr, Expr]:
    """Where segments begin and end, of their lengths or of offsets: each ends where the next begins."""
    if are_lengths:
        ends = b.emit(R.cumsum(given, 1))
        return b.emit(R.subtract(ends, given)), ends
    part = lambda first: lambda p: te.compute([p.shape[0], p.shape[1] - 1], lambda i, k: p(i, k + first), name="ends")
    begins, ends = (b.te(part(first), given, name="ends") for first in (0, 1))
    return begins, ends


def _check(b: Builder, begins: Expr, ends: Expr, total: Any, is_whole: bool) -> None:
    """Segments lie in the dimension, have no negative length, and ``is_whole`` says that they fill it."""

    def kernel(first: te.Tensor, last: te.Tensor, sizes: Any) -> te.Tensor:
        outer, count = first.shape

        def body(ins: Any, outs: Any) -> tirx.Stmt:
            starts, stops, out = (T.buffer_proxy(buffer) for buffer in (*ins, *outs))
            with IRBuilder() as builder:
                with T.seq_scope():
                    out[0] = tirx.const(1, "int32")
                    with T.serial(0, outer) as i, T.serial(0, count) as k:
                        fits = tirx.all(starts[i, k] >= 0, starts[i, k] <= stops[i, k], stops[i, k] <= sizes[0])
                        if is_whole:
                            fits = tirx.all(fits, tirx.any(k + 1 < count, tirx.EQ(stops[i, k], sizes[0])))
                        out[0] = tirx.bitwise_and(out[0], tirx.Cast("int32", fits))
                return builder.get()

        buffers = [tirx.decl_buffer(t.shape, t.dtype, f"in{n}") for n, t in enumerate((first, last))]
        return te.extern([[1]], [first, last], body, dtype="int32", in_buffers=buffers, name="check_segments")

    fits = b.te(kernel, begins, ends, relax.ShapeExpr([as_size(total)]), name="check_segments")
    b.check(b.cast(reshape(b, fits, []), "bool"), "the segments do not fit the data")


register("torch.aten.segment_reduce", segment_reduce, custom=True)
