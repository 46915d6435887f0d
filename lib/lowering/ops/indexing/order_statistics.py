"""Elements of a rank along a dimension: kthvalue, medians, quantiles, and the most frequent one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import is_nan
from torch_tvm.lowering.ops.indexing.kernels import selection
from torch_tvm.lowering.ops.indexing.kernels.bisection import first_where
from torch_tvm.lowering.ops.indexing.sorting import along, sorting_indices, sorting_keys
from torch_tvm.lowering.ops.shapes.views import permute, reshape
from torch_tvm.lowering.pointwise import pointwise
from torch_tvm.lowering.registry import Lowering, Number, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, const, is_float, product

R = relax.op
STABLE_LENGTH = 16
"""Up to this length ``std::sort`` of libstdc++ inserts, and keeps the order of equal elements."""

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = tvm.ir.Expr


def _chosen(
    b: Builder, x: Expr, dim: int, keepdim: bool, choose: Callable[..., te.Tensor], *others: Expr
) -> list[Expr]:
    """In each line the element at the position that ``choose(keys, axis, *others)`` gives, and that position."""
    shape = b.shape(x)
    if not shape:
        zero = pointwise(b, lambda u: const(0), x, compute=b.dtype(x), result="int64", name="index")
        return [x, zero]
    axis = b.axis(dim, len(shape))
    left = [*shape[:axis], *([1] if keepdim else []), *shape[axis + 1 :]]
    if 0 in left:
        sizes = relax.ShapeExpr([as_size(s) for s in left])
        return [b.emit(R.zeros(sizes, dtype)) for dtype in (b.dtype(x), "int64")]
    if 0 in shape:
        b.unsupported("an element of nothing, which ATen reports as an error")
    b.expect(as_size(shape[axis]) > 0, "an element of nothing")
    index = b.te(lambda keys, *rest: choose(keys, axis, *rest), sorting_keys(b, x), *others, name="choose")
    return [reshape(b, each, left) for each in (_picked(b, x, index, axis), index)]


def _picked(b: Builder, x: Expr, index: Expr, axis: int) -> Expr:
    """The elements at the positions ``index`` along ``axis``."""

    def pick(source: te.Tensor, chosen: te.Tensor) -> te.Tensor:
        element = lambda *i: source(*i[:axis], chosen(*i), *i[axis + 1 :])
        return te.compute(chosen.shape, element, name="value")

    return b.te(pick, x, index, name="value")


@lowers("torch.aten.kthvalue")
def kthvalue(b: Builder, x: Tensor, k: int, dim: int, keepdim: bool) -> list[Expr]:
    """aten::kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    length = b.shape(x)[b.axis(dim, b.rank(x))] if b.rank(x) else 1
    if k < 1 or (isinstance(length, int) and k > length):
        b.unsupported("a rank out of range, which ATen reports as an error")
    b.expect(as_size(length) >= k, "selected index k out of range")
    return _chosen(b, x, dim, keepdim, lambda keys, axis: selection.kth(keys, axis, k - 1))


def _nan_key(b: Builder, x: Expr) -> int | None:
    """The key of NaN, as :func:`sorting_keys` gives it; ``None`` for integers."""
    if not is_float(b.dtype(x)):
        return None
    return (1 << (63 if compute_dtype(b.dtype(x)) == "float64" else 31)) - 1


def _median(b: Builder, x: Expr, dim: int, keepdim: bool, ignores_nan: bool) -> list[Expr]:
    nan = _nan_key(b, x)
    return _chosen(b, x, dim, keepdim, lambda keys, axis: selection.median(keys, axis, nan, ignores_nan))


def median_dim(b: Builder, x: Tensor, dim: int, keepdim: bool) -> list[Expr]:
    """aten::median.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return _median(b, x, dim, keepdim, False)


def nanmedian_dim(b: Builder, x: Tensor, dim: int, keepdim: bool) -> list[Expr]:
    """aten::nanmedian.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return _median(b, x, dim, keepdim, True)


def _of_all(b: Builder, x: Expr, ignores_nan: bool) -> Expr:
    dtype, count = b.dtype(x), product(b.shape(x))
    of_nothing = float("nan") if is_float(dtype) else int(tvm.tirx.min_value(dtype))
    if 0 in b.shape(x):
        return b.const(of_nothing, dtype)
    flat = reshape(b, x, [count])
    if not isinstance(count, int):
        flat = b.te(lambda data: _at_least_one(data, of_nothing), flat, name="line")
    return _median(b, flat, 0, False, ignores_nan)[0]


def _at_least_one(line: te.Tensor, of_nothing: float) -> te.Tensor:
    """A line, or one element where there is none."""
    count = line.shape[0]
    default = tirx.const(of_nothing, line.dtype)
    element = lambda i: tirx.if_then_else(i < count, line(i), default)
    return te.compute([tirx.max(count, const(1))], element, name="line")


def median(b: Builder, x: Tensor) -> Expr:
    """aten::median(Tensor self) -> Tensor"""
    return _of_all(b, x, False)


def nanmedian(b: Builder, x: Tensor) -> Expr:
    """aten::nanmedian(Tensor self) -> Tensor"""
    return _of_all(b, x, True)


# -- the most frequent element ------------------------------------------------------------------------


def mode(b: Builder, x: Tensor, dim: int, keepdim: bool) -> list[Expr]:
    """aten::mode(Tensor self, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    length = b.shape(x)[b.axis(dim, b.rank(x))] if b.rank(x) else 1
    if b.results[1].is_used and not (isinstance(length, int) and length <= STABLE_LENGTH):
        b.unsupported("which of equal elements of a long line ATen's sort has last")
    nan = _nan_key(b, x)
    order = sorting_indices(b, x, b.axis(dim, b.rank(x)), False) if b.rank(x) and 0 not in b.shape(x) else x
    return _chosen(b, x, dim, keepdim, lambda keys, axis, o: selection.mode(keys, axis, nan, o), order)


# -- quantiles ----------------------------------------------------------------------------------------

_MODES = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(
    b: Builder, x: Expr, q: Expr, dim: int | None, keepdim: bool, interpolation: str, ignores_nan: bool
) -> Expr:
    """The quantiles ``q`` (0-d, or 1-d and then the first dimension of the result) along ``dim``."""
    rank, shape = b.rank(x), b.shape(x)
    if interpolation not in _MODES:
        b.unsupported(f"interpolation '{interpolation}'")
    if dim is None:
        kept: list[SizeLike] = [1] * rank if keepdim else []
        lines = reshape(b, x, [1, product(shape)])
    else:
        axis = b.axis(dim, rank)
        kept = [*shape[:axis], *([1] if keepdim else []), *shape[axis + 1 :]] if rank else []
        lines = permute(b, x, [*(a for a in range(rank) if a != axis), axis]) if rank else x
        length = shape[axis] if rank else 1
        lines = reshape(b, lines, [product([s for a, s in enumerate(shape) if a != axis]), length])
    if any(isinstance(s, int) and s == 0 for s in b.shape(lines)):
        b.unsupported("a quantile of nothing")
    b.expect(as_size(product(b.shape(lines))) >= 1, "quantile() input tensor must be non-empty")
    in_range = pointwise(b, lambda u: tirx.all(u >= 0, u <= 1), q, compute=b.dtype(q), result="bool", name="in_range")
    least = b.emit(R.min(b.cast(in_range, "int32")))
    b.check(b.cast(least, "bool"), "quantile() q values must be in the range [0, 1]")
    ordered, _ = along(b, lines, sorting_indices(b, lines, 1, False), 1)
    counts = b.te(_count_numbers, ordered, name="count_numbers")
    several = b.rank(q) > 0
    number = b.shape(q)[0] if several else 1
    flat_q = reshape(b, q, [number])
    result = b.te(
        lambda s, c, at: _interpolated(s, c, at, interpolation, ignores_nan),
        ordered,
        counts,
        flat_q,
        name="quantile",
    )
    return reshape(b, result, [number, *kept] if several else kept)


def _count_numbers(ordered: te.Tensor) -> te.Tensor:
    """How many elements of each sorted line are no NaN."""
    lines, length = ordered.shape

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
        with IRBuilder() as builder:
            with T.parallel(0, lines) as line:
                out[line] = first_where(lambda i: is_nan(data[line, i]), const(0), length, "local")
            return builder.get()

    buffer = tirx.decl_buffer(ordered.shape, ordered.dtype, "ordered")
    return te.extern([[lines]], [ordered], body, dtype="int64", in_buffers=[buffer], name="count_numbers")


def _interpolated(
    ordered: te.Tensor, counts: te.Tensor, q: te.Tensor, interpolation: str, ignores_nan: bool
) -> te.Tensor:
    """Between the two elements of each line that are next to a rank, as ATen computes it."""
    dtype = str(ordered.dtype)
    lines, length = ordered.shape
    rounding = {"lower": tirx.floor, "higher": tirx.ceil, "nearest": tirx.nearbyint}.get(interpolation)

    def element(k: Any, line: Any) -> Scalar:
        last = tirx.Cast(dtype, (tirx.max(counts(line), const(1)) if ignores_nan else length) - 1)
        rank = q(k) * last
        if not ignores_nan:
            rank = tirx.Select(counts(line) < length, tirx.Cast(dtype, length - 1), rank)
        if rounding is not None:
            rank = rounding(rank)
        below = tirx.Cast("int64", rank)
        low = ordered(line, tirx.max(tirx.min(below, length - 1), 0))
        if rounding is not None:
            return low
        high = ordered(line, tirx.max(tirx.min(tirx.Cast("int64", tirx.ceil(rank)), length - 1), 0))
        half = tirx.const(0.5, dtype)
        weight = half if interpolation == "midpoint" else rank - tirx.Cast(dtype, below)
        one = tirx.const(1, dtype)
        return tirx.Select(weight < half, low + weight * (high - low), high - (high - low) * (one - weight))

    return te.compute([q.shape[0], lines], element, name="quantile")


def quantile(b: Builder, x: Tensor, q: Tensor, dim: int | None, keepdim: bool, interpolation: str) -> Expr:
    """aten::quantile(Tensor self, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear')
    -> Tensor"""
    return _quantile(b, x, q, dim, keepdim, interpolation, False)


def quantile_scalar(b: Builder, x: Tensor, q: Number, dim: int | None, keepdim: bool, interpolation: str) -> Expr:
    """aten::quantile.scalar(Tensor self, float q, int? dim=None, bool keepdim=False, *,
    str interpolation='linear') -> Tensor"""
    return _quantile(b, x, b.const(q, b.dtype(x)), dim, keepdim, interpolation, False)


def nanquantile(b: Builder, x: Tensor, q: Tensor, dim: int | None, keepdim: bool, interpolation: str) -> Expr:
    """aten::nanquantile(Tensor self, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear')
    -> Tensor"""
    return _quantile(b, x, q, dim, keepdim, interpolation, True)


def nanquantile_scalar(b: Builder, x: Tensor, q: Number, dim: int | None, keepdim: bool, interpolation: str) -> Expr:
    """aten::nanquantile.scalar(Tensor self, float q, int? dim=None, bool keepdim=False, *,
    str interpolation='linear') -> Tensor"""
    return _quantile(b, x, b.const(q, b.dtype(x)), dim, keepdim, interpolation, True)


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.median": median,
    "torch.aten.median.dim": median_dim,
    "torch.aten.nanmedian": nanmedian,
    "torch.aten.nanmedian.dim": nanmedian_dim,
    "torch.aten.mode": mode,
    "torch.aten.quantile": quantile,
    "torch.aten.quantile.scalar": quantile_scalar,
    "torch.aten.nanquantile": nanquantile,
    "torch.aten.nanquantile.scalar": nanquantile_scalar,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
