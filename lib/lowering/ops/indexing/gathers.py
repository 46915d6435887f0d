"""Reading at positions that tensors give: embedding, gather, take, index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tvm
from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.indexing.finding import selected
from torch_tvm.lowering.ops.indexing.positions import checked
from torch_tvm.lowering.ops.shapes.views import common_shape, expand_to, reshape
from torch_tvm.lowering.pointwise import agree
from torch_tvm.lowering.registry import Lowering, Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, product

R = relax.op
Expr: TypeAlias = relax.Expr

INTEGERS = ("int64", "int32")
"""What ATen takes as positions; bytes are a mask."""


def _check_integers(b: Builder, *indices: Expr) -> None:
    if any(b.dtype(index) not in INTEGERS for index in indices):
        b.unsupported("an index that is no integer tensor")


def take_rows(b: Builder, x: Expr, index: Expr, axis: int) -> Expr:
    """``x`` at the positions ``index`` (any rank) of dimension ``axis``."""
    _check_integers(b, index)
    size = b.shape(x)[axis]
    places = checked(b, index, size)
    if b.checks_indices or (isinstance(size, int) and size):
        return b.emit(R.take(x, places, axis, mode="clip"))
    rank = b.rank(index)

    def body(data: te.Tensor, at: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            return read(b, data, [*i[:axis], at(*i[axis : axis + rank]), *i[axis + rank :]], [axis])

        return te.compute([*data.shape[:axis], *at.shape, *data.shape[axis + 1 :]], element, name="take")

    return b.te(body, x, places)


def read(b: Builder, data: te.Tensor, position: Sequence[Any], axes: Sequence[int]) -> Any:
    """An element at positions that :func:`checked` gave for ``axes``; 0 where unchecked ones have nothing to read."""
    element = data(*position)
    sizes = [data.shape[axis] for axis in axes]
    empty = [s for s in sizes if not tvm.sym.Analyzer().can_prove(s > 0)]
    if b.checks_indices or not empty:
        return element
    return tirx.if_then_else(tirx.all(*[s > 0 for s in empty]), element, tirx.const(0, data.dtype))


@lowers("torch.aten.embedding")
def embedding(
    b: Builder, weight: Tensor, indices: Tensor, padding_idx: int, scale_grad_by_freq: bool, sparse: bool
) -> Expr:
    """aten::embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False,
    bool sparse=False) -> Tensor"""
    return take_rows(b, weight, indices, 0)


@lowers("torch.aten.index_select")
def index_select(b: Builder, x: Tensor, dim: int, index: Tensor) -> Expr:
    """aten::index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    if b.rank(x) == 0:
        return reshape(b, take_rows(b, b.reshape(x, [1]), reshape(b, index, [1]), 0), [])
    index = index if b.rank(index) else b.reshape(index, [1])
    return take_rows(b, x, index, b.axis(dim, b.rank(x)))


@lowers("torch.aten.gather")
def gather(b: Builder, x: Tensor, dim: int, index: Tensor, sparse_grad: bool) -> Expr:
    """aten::gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor"""
    _check_integers(b, index)
    if b.rank(x) == 0 or b.rank(index) == 0:
        flat = gather_along(b, reshape(b, x, [product(b.shape(x))]), 0, reshape(b, index, [product(b.shape(index))]))
        return reshape(b, flat, b.shape(index))
    return gather_along(b, x, b.axis(dim, b.rank(x)), index)


def gather_along(b: Builder, x: Expr, axis: int, index: Expr) -> Expr:
    """``result[…, i, …] = x[…, index[…, i, …], …]``; ``index`` may be smaller in the other dimensions."""
    expect_inside(b, b.shape(index), b.shape(x), axis)

    def body(data: te.Tensor, places: te.Tensor) -> te.Tensor:
        return te.compute(
            places.shape,
            lambda *i: read(b, data, [*i[:axis], places(*i), *i[axis + 1 :]], [axis]),
            name="gather",
        )

    return b.te(body, x, checked(b, index, b.shape(x)[axis]))


def expect_inside(b: Builder, index: Sequence[SizeLike], shape: Sequence[SizeLike], axis: int) -> None:
    """Check that an index is no larger than a tensor in the dimensions that it does not choose in."""
    others = [other for other in range(len(shape)) if other != axis]
    if len(index) == len(shape):
        limits = [shape[other] for other in others]
        b.expect_within([index[other] for other in others], limits, "the index is larger than the tensor")


def take(b: Builder, x: Tensor, index: Tensor) -> Expr:
    """aten::take(Tensor self, Tensor index) -> Tensor"""
    _check_integers(b, index)
    total = product(b.shape(x))
    return b.te(
        lambda data, places: te.compute(places.shape, lambda *i: read(b, data, [places(*i)], [0]), name="take"),
        reshape(b, x, [total]),
        checked(b, index, total, wraps=True),
    )


def take_along_dim(b: Builder, x: Tensor, indices: Tensor, dim: int | None) -> Expr:
    """aten::take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor"""
    _check_integers(b, indices)
    if dim is None:
        flat = reshape(b, x, [product(b.shape(x))])
        return gather_along(b, flat, 0, reshape(b, indices, [product(b.shape(indices))]))
    axis = b.axis(dim, b.rank(x))
    sizes, places = b.shape(x), b.shape(indices)
    indices = _remainder(b, indices, sizes[axis])
    common = common_shape(b, [[*sizes[:axis], 1, *sizes[axis + 1 :]], [*places[:axis], 1, *places[axis + 1 :]]])
    data = expand_to(b, x, [*common[:axis], sizes[axis], *common[axis + 1 :]])
    return gather_along(b, data, axis, expand_to(b, indices, [*common[:axis], places[axis], *common[axis + 1 :]]))


def _remainder(b: Builder, index: Expr, size: SizeLike) -> Expr:
    """Positions modulo a dimension's size, as ATen takes them there."""
    return b.te(
        lambda places, sizes: te.compute(
            places.shape,
            lambda *i: tirx.floormod(tirx.Cast("int64", places(*i)), tirx.max(as_size(sizes[0]), 1)),
            name="remainder",
        ),
        index,
        [size],
        name="remainder",
    )


# -- x[i, :, j] ---------------------------------------------------------------------------------------


def is_mask(b: Builder, index: Expr | None) -> bool:
    """Whether an index says of each element whether it is meant."""
    return index is not None and b.dtype(index) in ("bool", "uint8")


def without_masks(b: Builder, x: Expr, indices: Sequence[Expr | None]) -> tuple[Expr, list[Expr | None]]:
    """``x`` and indices for it with the positions of what a mask selects in its place.

    The dimensions that a mask covers become one, so that these are single numbers.
    """
    shape, found = b.shape(x), list[Expr | None]()
    for index in indices:
        first = len(found)
        if index is None or not is_mask(b, index):
            found.append(index)
            continue
        covered, own = shape[first : first + b.rank(index)], b.shape(index)
        if len(covered) < len(own) or any(
            isinstance(s, int) and isinstance(o, int) and s != o for s, o in zip(covered, own, strict=True)
        ):
            b.unsupported("a mask that does not fit the tensor, which ATen reports as an error")
        b.expect_equal(covered, own, "the mask does not fit the tensor")
        shape[first : first + len(own)] = [product(covered)]
        found.append(selected(b, index))
    return reshape(b, x, shape), found


class Positions:
    """What ``x[indices]`` addresses: the indexed dimensions and the place of the index dimensions.

    ``x`` has one dimension for all that a mask covers; see :func:`without_masks`.
    """

    def __init__(self, b: Builder, x: Expr, indices: Sequence[Expr | None]) -> None:
        masks = [is_mask(b, index) for index in indices]
        self.x, indices = without_masks(b, x, indices)
        given = [index for index in indices if index is not None]
        _check_integers(b, *given)
        if not given or len(indices) > b.rank(self.x):
            b.unsupported("indices that do not fit the rank")
        self.sizes = b.shape(self.x)
        self.axes = [axis for axis, index in enumerate(indices) if index is not None]
        self.tensors = agree(b, given)
        self.found = [masks[axis] for axis in self.axes]
        self.shapes = [b.shape(index) for index in self.tensors]
        self.common = common_shape(b, self.shapes)
        adjacent = self.axes == list(range(self.axes[0], self.axes[-1] + 1))
        self.front = self.axes[0] if adjacent else 0
        self.rest = [axis for axis in range(len(self.sizes)) if axis not in self.axes]
        kept = [self.sizes[axis] for axis in self.rest]
        self.shape = [*kept[: self.front], *self.common, *kept[self.front :]]

    def checked(self, b: Builder, *, nearest: bool = True) -> list[Expr]:
        """The index tensors as positions from the front; see
        :func:`torch_tvm.lowering.ops.indexing.positions.checked`.
        """
        return [
            tensor if found else checked(b, tensor, self.sizes[axis], wraps=True, needed=self.shape, nearest=nearest)
            for axis, tensor, found in zip(self.axes, self.tensors, self.found, strict=True)
        ]

    def at(self, i: Sequence[Any], tensors: Sequence[te.Tensor]) -> list[Any]:
        """The position of element ``i`` of the result, where ``tensors`` came from :meth:`checked`."""
        count = len(self.common)
        middle = list(i[self.front : self.front + count])
        kept = [*i[: self.front], *i[self.front + count :]]
        place = dict(zip(self.rest, kept, strict=True))
        for axis, tensor, shape in zip(self.axes, tensors, self.shapes, strict=True):
            own = [
                0 if s == 1 and isinstance(s, int) else p
                for p, s in zip(middle[count - len(shape) :], shape, strict=True)
            ]
            place[axis] = tensor(*own)
        return [place[axis] for axis in range(len(self.sizes))]


@lowers("torch.aten.index.Tensor")
def index(b: Builder, x: Tensor, indices: list[Tensor | None]) -> Expr:
    """aten::index.Tensor(Tensor self, Tensor?[] indices) -> Tensor"""
    positions = Positions(b, x, indices)

    def body(data: te.Tensor, shape: list[Any], *tensors: te.Tensor) -> te.Tensor:
        return te.compute(
            [as_size(s) for s in shape],
            lambda *i: read(b, data, positions.at(i, tensors), positions.axes),
            name="index",
        )

    return b.te(body, positions.x, positions.shape, *positions.checked(b))


@lowers("torch.aten.one_hot")
def one_hot(b: Builder, x: Tensor, num_classes: int) -> Expr:
    """aten::one_hot(Tensor self, int num_classes=-1) -> Tensor"""
    classes: Any = num_classes
    if num_classes < 0:
        for size in b.shape(x):
            b.expect(as_size(size) >= 1, "no classes can be told of no labels")
        largest = b.emit(relax.op.max(x))
        classes = b.size(b.emit(relax.op.add(largest, b.const(1, "int64"))))
        b.check(classes >= 1, "class values must be non-negative")
    elif num_classes == 0:
        b.unsupported("no classes")
    return b.te(
        lambda v: te.compute(
            (*v.shape, classes),
            lambda *i: tirx.Cast("int64", v(*i[:-1]) == tirx.Cast(v.dtype, i[-1])),
            name="one_hot",
        ),
        checked(b, x, classes, nearest=False),
    )


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.take": take,
    "torch.aten.take_along_dim": take_along_dim,
    "torch.aten._unsafe_index.Tensor": index,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
