"""Distinct elements and slices: unique and its kin. Runs of equal elements, after sorting where the op sorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import differs, loaded
from torch_tvm.lowering.ops.indexing.finding import selected
from torch_tvm.lowering.ops.indexing.kernels.sort import merged_order
from torch_tvm.lowering.ops.indexing.sorting import sorting_indices
from torch_tvm.lowering.ops.shapes.views import permute, reshape
from torch_tvm.lowering.registry import Lowering, Tensor, lowers, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import as_size, const, product

R = relax.op
Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


@dataclass(frozen=True)
class _Wanted:
    """Which results are asked for besides the elements."""

    inverse: bool
    counts: bool


def _starts(b: Builder, rows: Expr) -> Expr:
    """The positions of the rows of a 2-d tensor that differ from the one before; NaN differs from all."""

    def flags(x: te.Tensor) -> te.Tensor:
        count, width = x.shape

        def body(ins: Any, outs: Any) -> tirx.Stmt:
            data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
            with IRBuilder() as builder:
                with T.parallel(0, count) as i:
                    other = allocate(1, "int32", "local")
                    other[0] = tirx.Cast("int32", tirx.EQ(i, const(0)))
                    with T.serial(0, width) as j:
                        before = loaded(data[tirx.max(i - 1, 0), j])
                        other[0] = tirx.bitwise_or(other[0], tirx.Cast("int32", differs(before, loaded(data[i, j]))))
                    out[i] = tirx.NE(other[0], tirx.const(0, "int32"))
                return builder.get()

        buffer = tirx.decl_buffer(x.shape, x.dtype, "rows")
        return te.extern([[count]], [x], body, dtype="bool", in_buffers=[buffer], name="starts")

    return selected(b, b.te(flags, rows, name="starts"))


def _counts(b: Builder, starts: Expr, total: Any) -> Expr:
    """The lengths of runs that begin at ``starts``."""

    def lengths(at: te.Tensor, sizes: Any) -> te.Tensor:
        last = at.shape[0] - 1
        end = lambda i: tirx.if_then_else(i < last, at(tirx.min(i + 1, last)), sizes[0])
        return te.compute(at.shape, lambda i: end(i) - at(i), name="counts")

    return b.te(lengths, starts, relax.ShapeExpr([as_size(total)]), name="counts")


def _inverse(b: Builder, starts: Expr, order: Expr | None, total: Any) -> Expr:
    """For each of ``total`` elements the number of its run; run ``k`` has the elements ``order[starts[k]…]``."""

    def kernel(at: te.Tensor, *rest: Any) -> te.Tensor:
        *orders, sizes = rest
        count = at.shape[0]

        def body(ins: Any, outs: Any) -> tirx.Stmt:
            begins, *places = (T.buffer_proxy(buffer) for buffer in ins)
            out = T.buffer_proxy(outs[0])
            with IRBuilder() as builder:
                with T.parallel(0, count) as run:
                    begin = begins[run]
                    end = tirx.if_then_else(run + 1 < count, begins[tirx.min(run + 1, count - 1)], sizes[0])
                    with T.serial(0, end - begin) as step:
                        out[places[0][begin + step] if places else begin + step] = run
                return builder.get()

        return te.extern([[sizes[0]]], [at, *orders], body, dtype="int64", name="inverse")

    given = [starts] if order is None else [starts, order]
    return b.te(kernel, *given, relax.ShapeExpr([as_size(total)]), name="inverse")


def _none(b: Builder) -> Expr:
    return b.emit(R.zeros(relax.ShapeExpr([const(0)]), "int64"))


def _runs(
    b: Builder, rows: Expr, order: Expr | None, wanted: _Wanted, finish: Callable[[Expr], Expr], shape: Any
) -> list[Expr]:
    """The first row of each run of equal ones in ``order``, the runs of the rows (of ``shape``) and their lengths."""
    total = b.shape(rows)[0]
    placed = rows if order is None else b.emit(R.take(rows, order, 0, mode="clip"))
    starts = _starts(b, placed)
    found = finish(b.emit(R.take(placed, starts, 0, mode="clip")))
    inverse = reshape(b, _inverse(b, starts, order, total), shape) if wanted.inverse else _none(b)
    return [found, inverse, _counts(b, starts, total) if wanted.counts else _none(b)]


def _elements(b: Builder, x: Expr, is_sorted: bool, wanted: _Wanted) -> list[Expr]:
    """The distinct elements of a tensor, all of them or runs as they lie."""
    total = product(b.shape(x))
    if isinstance(total, int) and total == 0:
        empty = b.emit(R.zeros(relax.ShapeExpr([const(0)]), b.dtype(x)))
        inverse = b.emit(R.zeros(relax.ShapeExpr(x.ty.shape.values), "int64")) if wanted.inverse else _none(b)
        return [empty, inverse, _none(b)]
    flat = reshape(b, x, [total])
    order = sorting_indices(b, flat, 0, False) if is_sorted else None
    as_vector = lambda found: reshape(b, found, [b.shape(found)[0]])
    return _runs(b, reshape(b, flat, [total, 1]), order, wanted, as_vector, b.shape(x))


def _slices(b: Builder, x: Expr, dim: int, is_sorted: bool, wanted: _Wanted) -> list[Expr]:
    """The distinct slices along a dimension, in lexicographic order or as they lie."""
    rank = b.rank(x)
    if rank == 0 or any(not isinstance(s, int) or s == 0 for s in b.shape(x)):
        b.unsupported("slices of a scalar, of nothing or of unknown sizes")
    axis = b.axis(dim, rank)
    front = [axis, *(a for a in range(rank) if a != axis)]
    moved = permute(b, x, front)
    total, *rest = b.shape(moved)
    rows = reshape(b, moved, [total, product(rest)])
    order = b.te(merged_order, rows, name="order_rows") if is_sorted else None

    def finish(found: Expr) -> Expr:
        whole = reshape(b, found, [b.shape(found)[0], *rest])
        return permute(b, whole, [front.index(a) for a in range(rank)])

    return _runs(b, rows, order, wanted, finish, [total])


def unique(b: Builder, x: Tensor, sorted: bool, return_inverse: bool) -> list[Expr]:
    """aten::_unique(Tensor self, bool sorted=True, bool return_inverse=False) -> (Tensor, Tensor)"""
    return _elements(b, x, True, _Wanted(return_inverse, False))[:2]


def unique2(b: Builder, x: Tensor, sorted: bool, return_inverse: bool, return_counts: bool) -> list[Expr]:
    """aten::_unique2(Tensor self, bool sorted=True, bool return_inverse=False, bool return_counts=False)
    -> (Tensor, Tensor, Tensor)"""
    return _elements(b, x, True, _Wanted(return_inverse, return_counts))


@lowers("torch.aten.unique_consecutive")
def unique_consecutive(b: Builder, x: Tensor, return_inverse: bool, return_counts: bool, dim: int | None) -> list[Expr]:
    """aten::unique_consecutive(Tensor self, bool return_inverse=False, bool return_counts=False, int? dim=None)
    -> (Tensor, Tensor, Tensor)"""
    wanted = _Wanted(return_inverse, return_counts)
    return _elements(b, x, False, wanted) if dim is None else _slices(b, x, dim, False, wanted)


@lowers("torch.aten.unique_dim")
def unique_dim(b: Builder, x: Tensor, dim: int, sorted: bool, return_inverse: bool, return_counts: bool) -> list[Expr]:
    """aten::unique_dim(Tensor self, int dim, bool sorted=True, bool return_inverse=False, bool return_counts=False)
    -> (Tensor, Tensor, Tensor)"""
    return _slices(b, x, dim, True, _Wanted(True, True))


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten._unique": unique,
    "torch.aten._unique2": unique2,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
