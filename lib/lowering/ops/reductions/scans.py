"""Running sums, products, extrema and logarithms of sums of exponentials along a dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, is_nan
from torch_tvm.lowering.ops.elementwise.arithmetic import log_add_exp
from torch_tvm.lowering.ops.reductions.folds import highest, lowest
from torch_tvm.lowering.ops.shapes.views import reshape
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import as_size, compute_dtype, is_float, product
from torch_tvm.workloads.scan import ScanWorkload

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


@dataclass(frozen=True)
class Scan:
    """Totals that begin as ``start``; ``step(totals, element, k)`` gives those with element ``k``, in order.

    Each total becomes one result of the dtype in ``results``. The totals are written one after the other: a later
    one is computed from the new values of those before it. ``is_associative`` says that the total of some elements may
    stand for them; where there are two totals, the last stands for an element and the first for its number.
    """

    start: tuple[Scalar, ...]
    step: Callable[[Sequence[Scalar], Scalar, Scalar], Sequence[Scalar]]
    results: tuple[str, ...]
    is_associative: bool = False


def scan(b: Builder, x: Expr, dim: int, scan: Scan) -> list[Expr]:
    """The totals after each element along ``dim``; elements are read in the dtype of the first total's result."""
    axis, shape = b.axis(dim, b.rank(x)), b.shape(x)
    if 0 in shape:
        sizes = relax.ShapeExpr(x.ty.shape.values)
        return [b.emit(relax.op.zeros(sizes, dtype)) for dtype in scan.results]
    value = reshape(b, x, shape or [1])
    attributes = ScanWorkload(axis, scan.is_associative).to_attr()
    both = b.te(lambda source: _running(source, axis, scan), value, attributes=attributes)
    several = len(scan.results) > 1
    parts = [b.emit(relax.TupleGetItem(both, i)) for i in range(len(scan.results))] if several else [both]
    return [reshape(b, part, shape) for part in parts]


def _running(source: te.Tensor, axis: int, scan: Scan) -> te.Tensor:
    """The scan as one loop over lines; a target that has a rule for scans makes its own loops."""
    shape = source.shape
    before, after = as_size(product(shape[:axis])), as_size(product(shape[axis + 1 :]))
    length = shape[axis]
    kinds = [str(value.ty.dtype) for value in scan.start]

    def body(ins: Any, outs: Any) -> tvm.tirx.Stmt:
        with IRBuilder() as builder:
            data, targets = T.buffer_proxy(ins[0]), [T.buffer_proxy(out) for out in outs]
            with T.parallel(0, before * after) as line:
                base = (line // after) * length * after + line % after
                totals = [allocate(1, kind, "local") for kind in kinds]
                for total, value in zip(totals, scan.start, strict=True):
                    total[0] = value
                with T.serial(0, length) as k:
                    at = base + k * after
                    new = scan.step([total[0] for total in totals], data[at], k)
                    for total, value in zip(totals, new, strict=True):
                        total[0] = value
                    for target, total, dtype in zip(targets, totals, scan.results, strict=True):
                        target[at] = convert(total[0], dtype)
            return builder.get()

    return te.extern(
        [shape] * len(kinds),
        [source],
        body,
        dtype=list(scan.results),
        in_buffers=[tirx.decl_buffer(shape, source.dtype, "data")],
        out_buffers=[tirx.decl_buffer(shape, dtype, "running") for dtype in scan.results],
        name="running",
    )


def _accumulated(
    b: Builder,
    x: Expr,
    dim: int,
    identity: float,
    combine: Callable[[Scalar, Scalar], Scalar],
    is_associative: bool = True,
) -> Expr:
    """One total in the result's dtype; floats accumulate in float64, as ATen's do."""
    out = b.result_dtype
    accumulate = "float64" if is_float(out) else out
    is_exact = not is_float(out) and not is_float(b.dtype(x))
    step = lambda totals, element, k: [combine(totals[0], convert(element, accumulate))]
    recurrence = Scan((tirx.const(identity, accumulate),), step, (out,), is_associative)
    return scan(b, x if is_exact else b.cast(x, out), dim, recurrence)[0]


@lowers("torch.aten.cumsum")
def cumsum(b: Builder, x: Tensor, dim: int, dtype: Any) -> Expr:
    """aten::cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _accumulated(b, x, dim, 0, lambda total, element: total + element)


@lowers("torch.aten.cumprod")
def cumprod(b: Builder, x: Tensor, dim: int, dtype: Any) -> Expr:
    """aten::cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor

    The product of a part may overflow where that of the whole is 0, so it does not stand for its elements.
    """
    return _accumulated(b, x, dim, 1, lambda total, element: total * element, is_associative=False)


@lowers("torch.aten.logcumsumexp")
def logcumsumexp(b: Builder, x: Tensor, dim: int) -> Expr:
    """aten::logcumsumexp(Tensor self, int dim) -> Tensor"""
    return _accumulated(b, x, dim, float("-inf"), log_add_exp)


def _running_extremum(b: Builder, x: Expr, dim: int, is_max: bool) -> list[Expr]:
    """The extremum so far and the place of its last occurrence; the last NaN stays."""
    dtype = b.dtype(x)
    inner = "uint8" if dtype == "bool" else compute_dtype(dtype)

    def step(totals: Sequence[Scalar], element: Scalar, k: Scalar) -> Sequence[Scalar]:
        place, best = totals
        element = convert(element, inner)
        reached = element >= best if is_max else element <= best
        taken = tirx.any(is_nan(element), reached) if is_float(inner) else reached
        return [tirx.Select(taken, k, place), tirx.Select(taken, element, best)]

    start = (tirx.const(0, "int64"), (lowest if is_max else highest)(inner))
    indices, values = scan(b, x, dim, Scan(start, step, ("int64", dtype), is_associative=True))
    return [values, indices]


def cummax(b: Builder, x: Tensor, dim: int) -> list[Expr]:
    """aten::cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)"""
    return _running_extremum(b, x, dim, True)


def cummin(b: Builder, x: Tensor, dim: int) -> list[Expr]:
    """aten::cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)"""
    return _running_extremum(b, x, dim, False)


register("torch.aten.cummax", cummax, custom=True)
register("torch.aten.cummin", cummin, custom=True)
