"""Writing at positions that tensors give: scatter, index_put and their kin.

Each op computes the destination of every update in one parallel kernel; a second one walks the updates
in order, so that the last of equal destinations wins: whole rows where the indices select rows, and in parallel
where parts of the updates go to parts of the tensor. Where positions are not checked, an update outside of the tensor
is not written. For a GPU many updates are sorted by their places, and a thread takes those of one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.finding import selected
from torch_tvm.lowering.ops.indexing.gathers import INTEGERS, Positions, expect_inside, is_mask
from torch_tvm.lowering.ops.indexing.kernels.scatter import COLUMNS, OF_BOOLS, STRIP, Update, UpdateAlong
from torch_tvm.lowering.ops.indexing.kernels.wide_sort import GroupedUpdate, divisor
from torch_tvm.lowering.ops.indexing.positions import IndexCheck, checked
from torch_tvm.lowering.ops.shapes.views import common_shape, expand_to, reshape, same_shape
from torch_tvm.lowering.pointwise import number, pointwise, scaled
from torch_tvm.lowering.registry import Lowering, Number, Size, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, const, is_float, product, static

R = relax.op
Expr: TypeAlias = relax.Expr


def write_at(
    b: Builder,
    x: Expr,
    places: Expr,
    updates: Expr,
    reduction: str = "set",
    *,
    include_self: bool = True,
    row: SizeLike = 1,
    groups: SizeLike = 1,
) -> Expr:
    """``x`` with ``updates`` combined into it at the positions ``places`` (negative: skipped).

    ``x`` is flat, or rows of ``row`` elements, of which each place gets one. The places fall into ``groups`` of
    equal size that follow each other and write to different parts of ``x``.
    """
    shape, dtype = b.shape(x), b.dtype(x)
    reduction = OF_BOOLS.get(reduction, reduction) if dtype == "bool" else reduction
    count = product(b.shape(places))
    if isinstance(count, int) and count == 0:
        return x
    if any(isinstance(size, int) and size == 0 for size in (*shape, row)):
        return _nothing_after(b, x, reshape(b, places, [count])) if b.checks_indices else x
    flat = [reshape(b, v, [product(b.shape(v))]) for v in (x, places, b.cast(updates, dtype))]

    is_element = isinstance(row, int) and row == 1
    update = Update(reduction, dtype, include_self, is_element, 1 if b.many_threads else COLUMNS)
    in_groups = GroupedUpdate(reduction, dtype, include_self)

    def scatter(data: te.Tensor, where: te.Tensor, values: te.Tensor, width: Any, parts: Any) -> te.Tensor:
        out = tirx.decl_buffer(data.shape, data.dtype, "out_buf", layout=None)

        def write(ins: Any, outs: Any) -> tirx.Stmt:
            if not b.many_threads or _known(tirx.floordiv(where.shape[0], parts), most=FEW):
                return update.body(ins, outs, width, parts)
            value = lambda operands, u, j: operands[0][u * width + j]
            return in_groups.body(ins, outs, where.shape[0], width, lambda index, u: index[u], value)

        return te.extern(
            [data.shape], [data, where, values], write, dtype=data.dtype, out_buffers=[out], name="scatter"
        )

    sizes = as_size(row), as_size(groups)
    return reshape(b, b.te(scatter, *flat, *sizes, name=f"scatter_{reduction}"), shape)


FEW = 32
"""Updates that a thread of a GPU takes one after the other, rather than that all are sorted by their places."""

MANY = 1 << 12
"""Columns that keep a GPU busy with a thread each."""


def _known(count: Any, *, least: int = 0, most: float = math.inf) -> bool:
    """Whether a count is known, and is between these."""
    known = static(tvm.sym.Analyzer().simplify(as_size(count)))
    return known is not None and least <= known <= most


def _nothing_after(b: Builder, x: Expr, places: Expr) -> Expr:
    """``x``, which has no elements, after the positions were checked: any is an error."""
    value = lambda data, at: lambda *i: tirx.Select(at(0) < 0, data(*i), tirx.const(0, data.dtype))
    return b.te(lambda data, at: te.compute(data.shape, value(data, at), name="nothing"), x, places)


def _flat_place(position: Sequence[Any], sizes: Sequence[Any], checked: Sequence[int]) -> Any:
    """The flat index of a position, or -1 where one of the ``checked`` dimensions is out of range."""
    flat: Any = tirx.const(0, "int64")
    inside: Any = tirx.const(True, "bool")
    for axis, (place, size) in enumerate(zip(position, sizes, strict=True)):
        flat = flat * size + place
        if axis in checked:
            inside = tirx.And(inside, tirx.And(place >= 0, place < size))
    return tirx.Select(inside, flat, tirx.const(-1, "int64"))


# -- scatter ------------------------------------------------------------------------------------------


def _scatter(
    b: Builder,
    x: Expr,
    dim: int,
    index: Expr,
    source: Any,
    reduction: str,
    *,
    include_self: bool = True,
    is_checked: bool = False,
) -> Expr:
    """``source`` (a tensor at least as large as ``index``, or a number) into ``x`` along ``dim``."""
    if b.dtype(index) not in INTEGERS:
        b.unsupported("an index that is no integer tensor")
    is_number = isinstance(source, (bool, int, float))
    if 0 in (b.rank(x), b.rank(index), 1 if is_number else b.rank(source)):
        shape = b.shape(x)
        lifted = [reshape(b, v, b.shape(v) or [1]) for v in (x, index)]
        if not is_number:
            source = reshape(b, source, b.shape(source) or [1])
        return reshape(b, _scatter(b, lifted[0], 0, lifted[1], source, reduction, include_self=include_self), shape)
    axis, dtype = b.axis(dim, b.rank(x)), b.dtype(x)
    expect_inside(b, b.shape(index), b.shape(x), axis)
    if not is_number:
        b.expect_within(b.shape(index), b.shape(source), "the index is larger than what is written")
    if _is_aligned(b, x, axis, index, None if is_number else source):
        check = None if is_checked else IndexCheck.of(b, index, b.shape(x)[axis])
        return _scatter_aligned(b, x, axis, index, source, reduction, include_self, check)
    if not is_checked:
        index = checked(b, index, b.shape(x)[axis], nearest=False)

    updates = _updates(b, index, source, dtype)
    is_place = b.rank(x) == 1 and b.checks_indices
    where = index if is_place else _scatter_places(b, index, b.shape(x), axis)
    groups = product(b.shape(index)[:axis])
    return write_at(b, x, where, updates, reduction, include_self=include_self, groups=groups)


def _updates(b: Builder, index: Expr, source: Any, dtype: str) -> Expr:
    """What is written, in the shape of ``index``: the beginning of a larger tensor, or a number everywhere."""
    if isinstance(source, (bool, int, float)):
        fill = number(source, dtype)
        first = lambda where: te.compute(where.shape, lambda *i: fill, name="values")
        return b.te(first, index, name="scatter_values")
    source, own = b.cast(source, dtype), b.shape(source)
    if same_shape(own, b.shape(index)):
        return source
    cut = lambda where, data: te.compute(where.shape, lambda *i: data(*i), name="values")
    return b.te(cut, index, source, name="scatter_values")


def _scatter_places(b: Builder, index: Expr, shape: Sequence[SizeLike], axis: int) -> Expr:
    """The flat place in a tensor of ``shape`` of each position along ``axis``."""

    def places(where: te.Tensor, sizes: list[Any]) -> te.Tensor:
        sizes = [as_size(s) for s in sizes]
        place = lambda *i: _flat_place([*i[:axis], where(*i), *i[axis + 1 :]], sizes, [axis])
        return te.compute(where.shape, place, name="place")

    return b.te(places, index, shape, name="scatter_places")


def _is_aligned(b: Builder, x: Expr, axis: int, index: Expr, source: Expr | None) -> bool:
    """Whether indices and tensor differ in the size of ``axis`` alone, with a value for each index,
    and none is empty.
    """
    wanted, sizes = list(b.shape(x)), b.shape(index)
    wanted[axis] = sizes[axis]
    if any(isinstance(size, int) and size == 0 for size in (*b.shape(x), *sizes)):
        return False
    return same_shape(sizes, wanted) and (source is None or same_shape(b.shape(source), sizes))


def _scatter_aligned(
    b: Builder,
    x: Expr,
    axis: int,
    index: Expr,
    source: Any,
    reduction: str,
    include_self: bool,
    check: IndexCheck | None,
) -> Expr:
    """A scatter in one kernel, which looks at the positions as it writes there."""
    dtype, shape = b.dtype(x), b.shape(x)
    reduction = OF_BOOLS.get(reduction, reduction) if dtype == "bool" else reduction
    is_number = isinstance(source, (bool, int, float))
    given = [x, index] if is_number else [x, index, b.cast(source, dtype)]
    sizes = [product(shape[:axis]), shape[axis], b.shape(index)[axis], product(shape[axis + 1 :])]
    fill = number(source, dtype) if is_number else None
    columns = 1 if b.many_threads else STRIP
    update = UpdateAlong(reduction, dtype, include_self, check, fill, columns)
    in_groups = GroupedUpdate(reduction, dtype, include_self)

    def scatter(*operands: Any) -> te.Tensor:
        *tensors, sizes = operands
        data = tensors[0]
        out = tirx.decl_buffer(data.shape, data.dtype, "out_buf", layout=None)
        outer, size, count, inner = (as_size(size) for size in sizes)

        def place_of(index: Any, u: Any) -> Any:
            row, column = u // divisor(count * inner), u % divisor(inner)
            place = tirx.Cast("int64", index[u])
            inside = tirx.all(place >= 0, place < size)
            return tirx.Select(inside, (row * size + place) * inner + column, tirx.const(-1, "int64"))

        def write(ins: Any, outs: Any) -> tirx.Stmt:
            if not b.many_threads or _known(count, most=FEW) or _known(outer * inner, least=MANY):
                return update.body(ins, outs, [outer, size, count, inner])
            value_of = lambda operands, u, _: operands[0][u] if fill is None else fill
            return in_groups.body(ins, outs, outer * count * inner, const(1), place_of, value_of)

        return te.extern([data.shape], tensors, write, dtype=data.dtype, out_buffers=[out], name="scatter")

    flat = [reshape(b, v, [product(b.shape(v))]) for v in given]
    return reshape(b, b.te(scatter, *flat, sizes, name=f"scatter_{reduction}"), shape)


@lowers("torch.aten.scatter.src")
def scatter_src(b: Builder, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Expr:
    """aten::scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    return _scatter(b, x, dim, index, src, "set")


@lowers("torch.aten.scatter.value")
def scatter_value(b: Builder, x: Tensor, dim: int, index: Tensor, value: Any) -> Expr:
    """aten::scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    if not isinstance(value, (bool, int, float)):  # computed at run time
        ones = [1] * b.rank(index)
        value = expand_to(b, reshape(b, b.tensor(value, b.dtype(x)), ones), b.shape(index))
    return _scatter(b, x, dim, index, value, "set")


@lowers("torch.aten.scatter_add")
def scatter_add(b: Builder, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Expr:
    """aten::scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    return _scatter(b, x, dim, index, src, "sum")


_REDUCTIONS = {"add": "sum", "multiply": "prod"}


@lowers("torch.aten.scatter.reduce")
def scatter_with(b: Builder, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str) -> Expr:
    """aten::scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor"""
    if reduce not in _REDUCTIONS:
        b.unsupported(f"reduction '{reduce}'")
    return _scatter(b, x, dim, index, src, _REDUCTIONS[reduce])


@lowers("torch.aten.scatter_reduce.two")
def scatter_reduce(
    b: Builder, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool
) -> Expr:
    """aten::scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, *,
    bool include_self=True) -> Tensor"""
    if reduce in ("sum", "prod", "amax", "amin"):
        return _scatter(b, x, dim, index, src, reduce, include_self=include_self)
    if reduce != "mean" or b.dtype(x) == "bool":
        b.unsupported(f"reduction '{reduce}' of {b.dtype(x)}")
    return _mean(
        b,
        x,
        lambda to, summed: _scatter(b, to, dim, index, src if summed else 1, "sum", include_self=include_self),
    )


def _mean(b: Builder, x: Expr, add: Callable[[Expr, bool], Expr]) -> Expr:
    """The sums that ``add(x, True)`` makes by how many numbers meet there: ``add(ones, False)`` counts them.

    Those of half precision are counted in float32. Integers are divided towards minus infinity.
    """
    dtype = b.dtype(x)
    kind = compute_dtype(dtype)
    ones = b.broadcast(b.const(1, kind), b.shape(x))
    total, count = b.cast(add(x, True), kind), add(ones, False)
    if is_float(dtype):
        return b.cast(b.emit(R.divide(total, count)), dtype)
    return pointwise(b, tirx.floordiv, total, count, compute=kind, result=dtype, name="mean")


# -- x[i, j] = v --------------------------------------------------------------------------------------


@lowers("torch.aten.index_put")
def index_put(b: Builder, x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool) -> Expr:
    """aten::index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor"""
    masked = _masked_put(b, x, indices, values, accumulate)
    if masked is not None:
        return masked
    positions = Positions(b, x, indices)
    updates = expand_to(b, values, positions.shape)
    leading = len(positions.axes)
    whole_rows = positions.axes == list(range(leading)) and leading < len(positions.sizes)

    def places(sizes: list[Any], shape: list[Any], *tensors: te.Tensor) -> te.Tensor:
        sizes = [as_size(s) for s in sizes]

        def place(*i: Any) -> Any:
            if whole_rows:
                i = (*i, *[0] * (len(sizes) - leading))
            position = positions.at(i, tensors)
            kept = leading if whole_rows else len(sizes)
            return _flat_place(position[:kept], sizes[:kept], positions.axes)

        return te.compute([as_size(s) for s in shape], place, name="place")

    shape = positions.common if whole_rows else positions.shape
    where = b.te(places, positions.sizes, shape, *positions.checked(b, nearest=False), name="index_places")
    row = product(positions.sizes[leading:]) if whole_rows else 1
    written = write_at(b, positions.x, where, updates, "sum" if accumulate else "set", row=row)
    return reshape(b, written, b.shape(x))


def _masked_put(b: Builder, x: Expr, indices: Sequence[Expr | None], values: Expr, accumulate: bool) -> Expr | None:
    """One mask over the leading dimensions and a value that does not depend on how many it selects: a choice."""
    mask = indices[0]
    if mask is None or not is_mask(b, mask) or any(index is not None for index in indices[1:]):
        return None
    rank, covered = b.rank(x), b.rank(mask)
    own = b.shape(values)
    if not same_shape(b.shape(mask), b.shape(x)[:covered]):
        return None
    if len(own) > rank - covered:
        extra = own[: len(own) - (rank - covered)]
        if any(not (isinstance(s, int) and s == 1) for s in extra):
            return None
        values = reshape(b, values, own[len(extra) :])
    wide = reshape(b, b.cast(mask, "bool"), [*b.shape(mask), *[1] * (rank - covered)])
    value = b.cast(values, b.dtype(x))
    if accumulate:
        value = b.emit((R.logical_or if b.dtype(x) == "bool" else R.add)(x, value))
    return b.emit(R.where(wide, value, x))


def _along(
    b: Builder,
    x: Expr,
    dim: int,
    index: Expr,
    source: Expr,
    reduction: str,
    *,
    wraps: bool = False,
    include_self: bool = True,
) -> Expr:
    """Whole slices of ``source`` into the places ``index`` of dimension ``dim``; ``wraps`` as in :func:`checked`."""
    how = {"wraps": wraps, "include_self": include_self}
    if b.rank(x) == 0:
        flat = [reshape(b, v, [1]) for v in (x, index, source)]
        return reshape(b, _along(b, flat[0], 0, flat[1], flat[2], reduction, **how), [])
    axis = b.axis(dim, b.rank(x))
    if b.dtype(index) not in INTEGERS:
        b.unsupported("an index that is no integer tensor")
    shape = b.shape(x)
    slices = [*shape[:axis], product(b.shape(index)), *shape[axis + 1 :]]
    b.expect_equal(b.shape(source), slices, "what is written does not fit the index and the tensor")
    adds = reduction == "sum" and b.rank(x) > 1  # ATen adds nothing to nothing
    needed = [size for other, size in enumerate(b.shape(x)) if adds or other != axis]
    index = checked(b, index, b.shape(x)[axis], wraps=wraps, needed=needed, nearest=False)
    if axis == 0 and b.rank(x) > 1:
        index = reshape(b, index, [product(b.shape(index))])

        def rows(where: te.Tensor, size: Any) -> te.Tensor:
            place = lambda i: _flat_place([where(i)], [size], [0])
            return te.compute(where.shape, place, name="place")

        where = b.te(lambda i, s: rows(i, as_size(s[0])), index, b.shape(x), name="index_places")
        row = product(b.shape(x)[1:])
        return write_at(b, x, where, source, reduction, row=row, include_self=include_self)
    single: list[SizeLike] = [1] * b.rank(x)
    single[axis] = product(b.shape(index))
    wide = expand_to(b, reshape(b, index, single), b.shape(source))
    return _scatter(b, x, axis, wide, source, reduction, is_checked=True, include_self=include_self)


def index_add(b: Builder, x: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Number) -> Expr:
    """aten::index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor"""
    if alpha != 1:
        source = scaled(b, source, alpha)
    return _along(b, x, dim, index, source, "sum")


def index_copy(b: Builder, x: Tensor, dim: int, index: Tensor, source: Tensor) -> Expr:
    """aten::index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor"""
    return _along(b, x, dim, index, source, "set")


def index_reduce(
    b: Builder, x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool
) -> Expr:
    """aten::index_reduce(Tensor self, int dim, Tensor index, Tensor source, str reduce, *,
    bool include_self=True) -> Tensor"""
    if reduce in ("prod", "amax", "amin"):
        return _along(b, x, dim, index, source, reduce, include_self=include_self)
    if reduce != "mean" or b.dtype(x) == "bool":
        b.unsupported(f"reduction '{reduce}' of {b.dtype(x)}")

    def add(to: Expr, summed: bool) -> Expr:
        values = source if summed else b.broadcast(b.const(1, b.dtype(to)), b.shape(source))
        return _along(b, to, dim, index, values, "sum", include_self=include_self)

    return _mean(b, x, add)


def put(b: Builder, x: Tensor, index: Tensor, source: Tensor, accumulate: bool) -> Expr:
    """aten::put(Tensor self, Tensor index, Tensor source, bool accumulate=False) -> Tensor"""
    if b.dtype(index) != "int64":
        b.unsupported("an index that is no int64 tensor, which ATen reports as an error")
    count = product(b.shape(index))
    b.expect_equal([product(b.shape(source))], [count], "there are not as many elements as indices")
    total = product(b.shape(x))
    places = checked(b, reshape(b, index, [count]), total, wraps=True, nearest=False)
    return write_at(b, x, places, source, "sum" if accumulate else "set")


@lowers("torch.aten.masked_scatter")
def masked_scatter(b: Builder, x: Tensor, mask: Tensor, source: Tensor) -> Expr:
    """aten::masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor"""
    shape = common_shape(b, [b.shape(x), b.shape(mask)])
    if any(isinstance(s, int) and s == 0 for s in shape):
        return expand_to(b, x, shape)
    places = selected(b, expand_to(b, mask, shape))
    (count,), given = b.shape(places), product(b.shape(source))
    b.check(as_size(given) >= count, "the number of elements of source is less than the number of ones in mask")
    if isinstance(given, int) and given == 0:
        return expand_to(b, x, shape)
    first = lambda values, n: te.compute([n[0]], lambda i: values(i), name="first")
    updates = b.te(first, reshape(b, source, [given]), relax.ShapeExpr([count]), name="first")
    return write_at(b, expand_to(b, x, shape), places, updates)


def index_fill(b: Builder, x: Tensor, dim: int, index: Tensor, value: Number) -> Expr:
    """aten::index_fill.int_Scalar(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    return index_fill_tensor(b, x, dim, index, b.tensor(value, b.dtype(x)))


def index_fill_tensor(b: Builder, x: Tensor, dim: int, index: Tensor, value: Tensor) -> Expr:
    """aten::index_fill.int_Tensor(Tensor self, int dim, Tensor index, Tensor value) -> Tensor"""
    shape = b.shape(x)
    if not shape and b.shape(index) == [0]:
        return x
    if shape:
        shape[b.axis(dim, len(shape))] = product(b.shape(index))
    source = b.broadcast(b.cast(reshape(b, value, []), b.dtype(x)), shape)
    return _along(b, x, dim, index, source, "set", wraps=True)


@lowers("torch.aten.max_unpool2d")
def max_unpool2d(b: Builder, x: Tensor, indices: Tensor, output_size: list[Size]) -> Expr:
    """aten::max_unpool2d(Tensor self, Tensor indices, SymInt[2] output_size) -> Tensor"""
    return _unpool(b, x, indices, output_size)


@lowers("torch.aten.max_unpool3d")
def max_unpool3d(
    b: Builder, x: Tensor, indices: Tensor, output_size: list[Size], stride: list[int], padding: list[int]
) -> Expr:
    """aten::max_unpool3d(Tensor self, Tensor indices, SymInt[3] output_size, int[3] stride,
    int[3] padding) -> Tensor"""
    return _unpool(b, x, indices, output_size)


def _unpool(b: Builder, x: Expr, indices: Expr, output_size: Sequence[SizeLike]) -> Expr:
    """Each element at the flat position in its channel that ``indices`` gives; zeros elsewhere."""
    b.expect_equal(b.shape(indices), b.shape(x), "there are not as many indices as elements")
    leading, spatial = b.shape(x)[: -len(output_size)], b.shape(x)[-len(output_size) :]
    flat = [product(leading), product(output_size)]
    zeros = b.broadcast(b.const(0, b.dtype(x)), flat)
    positions, values = (reshape(b, v, [flat[0], product(spatial)]) for v in (indices, x))
    return reshape(b, _scatter(b, zeros, 1, positions, values, "set"), [*leading, *output_size])


def scatter_value_reduce(b: Builder, x: Tensor, dim: int, index: Tensor, value: Number, reduce: str) -> Expr:
    """aten::scatter.value_reduce(Tensor self, int dim, Tensor index, Scalar value, *,
    str reduce) -> Tensor"""
    if reduce not in _REDUCTIONS:
        b.unsupported(f"reduction '{reduce}'")
    return _scatter(b, x, dim, index, value, _REDUCTIONS[reduce])


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.index_add": index_add,
    "torch.aten.index_copy": index_copy,
    "torch.aten.index_reduce": index_reduce,
    "torch.aten.put": put,
    "torch.aten.index_fill.int_Scalar": index_fill,
    "torch.aten.index_fill.int_Tensor": index_fill_tensor,
    "torch.aten.scatter.value_reduce": scatter_value_reduce,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
