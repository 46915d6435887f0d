"""Joining tensors, and repeating, rolling and flipping one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tvm_ffi
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.shapes.slicing import computed
from torch_tvm.lowering.ops.shapes.views import expand_to, permute, reshape, same_size, unsqueeze_at
from torch_tvm.lowering.registry import Lowering, Size, Tensor, lowers, register
from torch_tvm.tir import as_size, is_zero, product, static_sizes

R = relax.op
Expr: TypeAlias = relax.Expr


MANY = 64
"""Tensors that one kernel joins, at most: where an element comes from is one branch in the other."""


def concatenate(b: Builder, tensors: Sequence[Expr], axis: int) -> Expr:
    """Tensors of one rank and dtype along ``axis``; those with no elements there are left out."""
    present = [x for x in tensors if not is_zero(b.shape(x)[axis])] or list(tensors[:1])
    while len(present) > MANY:
        present = [_joined(b, present[begin : begin + MANY], axis) for begin in range(0, len(present), MANY)]
    return _joined(b, present, axis)


def _joined(b: Builder, tensors: Sequence[Expr], axis: int) -> Expr:
    if len(tensors) == 1:
        return tensors[0]
    joined = b.emit(R.concat(_agreeing(b, tensors, axis), axis))
    sizes = b.shape(joined)
    # Relax has ``2 + n`` where kernels have ``n + 2``: to fusion those are two types.
    plain = b.analyzer.simplify(as_size(sizes[axis]))
    if tvm_ffi.structural_equal(plain, as_size(sizes[axis])):
        return joined
    return b.reshape(joined, [*sizes[:axis], plain, *sizes[axis + 1 :]])


def _agreeing(b: Builder, tensors: Sequence[Expr], axis: int) -> list[Expr]:
    """The tensors with the first one's sizes outside of ``axis``, checked at run time where they are not provably so.

    Relax knows no shape of a join otherwise: ``2 * ((h - 1) // 2 + 1)`` is ``h`` only for the even ``h`` that
    a program was exported for. By a view: after a ``match_cast`` of one symbol to another TVM's passes put the one for
    the other in some types that follow and not in others, and fusion loses a kernel's inner buffers.
    """
    first = b.shape(tensors[0])
    same: list[Expr] = []
    for tensor in tensors:
        own = b.shape(tensor)
        wanted = [*first[:axis], own[axis], *first[axis + 1 :]]
        if all(same_size(x, y) for x, y in zip(own, wanted, strict=True)):
            same.append(tensor)
        else:
            for x, y in zip(own, wanted, strict=True):
                b.check(
                    True if same_size(x, y) else tirx.EQ(as_size(x), as_size(y)),
                    "sizes of joined tensors differ",
                )
            same.append(b.reshape(tensor, wanted))
    return same


@lowers("torch.aten.cat")
def cat(b: Builder, tensors: list[Tensor], dim: int) -> Expr:
    """aten::cat(Tensor[] tensors, int dim=0) -> Tensor; an empty 1-d tensor joins anything"""
    if not tensors:  # folding left out every operand without elements
        sizes = None if b.result.shape is None else static_sizes(b.result.shape)
        if sizes is None:
            b.unsupported("nothing to join, and the result's shape is not constant")
        return b.emit(R.zeros(relax.ShapeExpr([as_size(s) for s in sizes]), b.result_dtype))
    shapes = [b.shape(x) for x in tensors]
    kept = [x for x, s in zip(tensors, shapes, strict=True) if not (len(s) == 1 and is_zero(s[0]))]
    kept = kept or tensors[:1]
    rank = b.rank(kept[0])
    if rank == 0 or any(b.rank(x) != rank for x in kept):
        b.unsupported("tensors of different rank")
    axis = b.axis(dim, rank)
    _check_joined(b, kept, axis)
    return concatenate(b, [b.cast(x, b.result_dtype) for x in kept], axis)


def _check_joined(b: Builder, tensors: Sequence[Expr], axis: int) -> None:
    for other in range(b.rank(tensors[0])):
        sizes = {s for s in (b.shape(x)[other] for x in tensors) if isinstance(s, int)}
        if other != axis and len(sizes) > 1:
            b.unsupported(f"sizes {sorted(sizes)} in dimension {other} differ")
        if other != axis:
            for x in tensors[1:]:
                same = tirx.EQ(as_size(b.shape(x)[other]), as_size(b.shape(tensors[0])[other]))
                b.expect(same, f"sizes in dimension {other} differ")


@lowers("torch.aten.stack")
def stack(b: Builder, tensors: list[Tensor], dim: int) -> Expr:
    """aten::stack(Tensor[] tensors, int dim=0) -> Tensor"""
    axis = b.axis(dim, b.rank(tensors[0]) + 1)
    _check_joined(b, tensors, -1)
    wide = [unsqueeze_at(b, b.cast(x, b.result_dtype), axis) for x in tensors]
    return concatenate(b, wide, axis)


def vstack(b: Builder, tensors: list[Tensor]) -> Expr:
    """aten::vstack(Tensor[] tensors) -> Tensor"""
    return cat(b, [x if b.rank(x) > 1 else b.reshape(x, [1, *(b.shape(x) or [1])]) for x in tensors], 0)


def dstack(b: Builder, tensors: list[Tensor]) -> Expr:
    """aten::dstack(Tensor[] tensors) -> Tensor"""
    wide = []
    for x in tensors:
        shape = b.shape(x)
        shape = [1, *(shape or [1]), 1] if len(shape) < 2 else [*shape, 1] if len(shape) == 2 else shape
        wide.append(reshape(b, x, shape))
    return cat(b, wide, 2)


# -- repeating ----------------------------------------------------------------------------------------


@lowers("torch.aten.repeat")
def repeat(b: Builder, x: Tensor, repeats: list[Size]) -> Expr:
    """aten::repeat(Tensor self, SymInt[] repeats) -> Tensor"""
    shape = b.shape(x)
    if len(repeats) < len(shape):
        b.unsupported("fewer repeats than dimensions")
    shape = [*[1] * (len(repeats) - len(shape)), *shape]
    value = reshape(b, x, shape)
    sizes = [product([s, n]) for s, n in zip(shape, repeats, strict=True)]
    if all(isinstance(n, int) and n == 1 for n in repeats):
        return value
    if 0 in sizes:
        return b.emit(R.zeros(relax.ShapeExpr([as_size(s) for s in sizes]), b.dtype(x)))
    if all(
        (isinstance(s, int) and s == 1) or (isinstance(n, int) and n == 1) for s, n in zip(shape, repeats, strict=True)
    ):
        return expand_to(b, value, sizes)
    return computed(
        b,
        value,
        sizes,
        lambda i, own, _: [tirx.floormod(p, s) for p, s in zip(i, own, strict=True)],
    )


@lowers("torch.aten.tile")
def tile(b: Builder, x: Tensor, dims: list[Size]) -> Expr:
    """aten::tile(Tensor self, SymInt[] dims) -> Tensor"""
    return repeat(b, x, [1] * (b.rank(x) - len(dims)) + dims)


@lowers("torch.aten.repeat_interleave.self_int")
def repeat_interleave(b: Builder, x: Tensor, repeats: Size, dim: int | None, output_size: Any) -> Expr:
    """aten::repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *,
    SymInt? output_size=None) -> Tensor"""
    if dim is None:
        x, dim = reshape(b, x, [product(b.shape(x))]), 0
    value = x if b.rank(x) else b.reshape(x, [1])
    axis = b.axis(dim, b.rank(value))
    shape = b.shape(value)
    shape[axis] = product([shape[axis], repeats])
    return computed(
        b,
        value,
        shape,
        lambda i, _, sizes: (*i[:axis], tirx.floordiv(i[axis], sizes[0]), *i[axis + 1 :]),
        [repeats],
    )


# -- reordering ---------------------------------------------------------------------------------------


@lowers("torch.aten.roll")
def roll(b: Builder, x: Tensor, shifts: list[Size], dims: list[int]) -> Expr:
    """aten::roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor"""
    shape = b.shape(x)
    if not dims:
        flat = reshape(b, x, [product(shape)])
        return reshape(b, roll(b, flat, shifts, [0]), shape)
    if len(shifts) != len(dims):
        b.unsupported("as many shifts as dimensions are needed")
    axes = [b.axis(d, len(shape)) for d in dims]

    def moved(place: Any, size: Any, axis: int, steps: Sequence[Any]) -> Any:
        own = [step for step, each in zip(steps, axes, strict=True) if each == axis]
        if not own or is_zero(shape[axis]):
            return place
        return tirx.floormod(place - sum(own[1:], own[0]), size)

    return computed(
        b,
        x,
        shape,
        lambda i, own, steps: [moved(p, s, axis, steps) for axis, (p, s) in enumerate(zip(i, own, strict=True))],
        shifts,
    )


@lowers("torch.aten.flip")
def flip(b: Builder, x: Tensor, dims: list[int]) -> Expr:
    """aten::flip(Tensor self, int[] dims) -> Tensor"""
    shape = b.shape(x)
    axes = {b.axis(d, len(shape)) for d in dims}
    if not axes or not shape:
        return x
    return computed(
        b, x, shape, lambda i, own, _: [own[axis] - 1 - p if axis in axes else p for axis, p in enumerate(i)]
    )


@lowers("torch.aten.channel_shuffle")
def channel_shuffle(b: Builder, x: Tensor, groups: int) -> Expr:
    """aten::channel_shuffle(Tensor self, SymInt groups) -> Tensor"""
    batch, channels, *rest = b.shape(x)
    if not isinstance(channels, int) or channels % groups:
        b.unsupported("the channels do not divide into the groups")
    split = reshape(b, x, [batch, groups, channels // groups, *rest])
    order = [0, 2, 1, *range(3, len(rest) + 3)]
    return reshape(b, permute(b, split, order), [batch, channels, *rest])


def concatenated(b: Builder, tensors: list[Tensor], dim: int) -> Expr:
    """aten::concat(Tensor[] tensors, int dim=0) -> Tensor"""
    return cat(b, tensors, dim)


_LOWERINGS: dict[str, Lowering] = {
    "torch.aten.vstack": vstack,
    "torch.aten.dstack": dstack,
    "torch.aten.concat": concatenated,
    "torch.aten.concatenate": concatenated,
}

for _name, _function in _LOWERINGS.items():
    register(_name, _function, custom=True)
