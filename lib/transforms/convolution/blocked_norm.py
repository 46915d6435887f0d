"""Normalisation of groups of channels on blocks of channels.

A graph spells it ``reshape(layer_norm(reshape(x, [N, groups, -1]), ones, zeros), x.shape)``. On ``[N, blocks,
*spatial, lanes]`` the moments of every channel come first, vectors along the lanes, and a small mean makes those of a
group of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax, te
from tvm.ir import Expr

from torch_tvm.tir import static_sizes


@dataclass(frozen=True)
class Groups:
    """A blocked value seen as ``[N, count, elements of a group]``; ``epsilon`` once it is normalised."""

    source: relax.Var
    count: int
    epsilon: float | None = None


def groups_of(reshape: relax.Call, source: relax.Var, channels: int) -> Groups | None:
    """What a reshape of an image with ``channels`` has for groups, if it is ``[N, groups, …]``."""
    before, after = (static_sizes(list(s)[1:]) for s in (reshape.args[0].ty.shape, reshape.ty.shape))
    if before is None or after is None or len(after) != 2 or channels % after[0]:
        return None
    is_same_batch = tvm_ffi.structural_equal(reshape.args[0].ty.shape[0], reshape.ty.shape[0])
    has_same_size = math.prod(before) == math.prod(after)
    return Groups(source, after[0]) if is_same_batch and has_same_size else None


def epsilon_of(layer_norm: relax.Call) -> float | None:
    """The epsilon of a layer norm over the last axis that neither scales nor shifts; None for another."""
    _, scale, shift = layer_norm.args
    is_last = [int(axis) for axis in layer_norm.attrs.axes] in ([-1], [2])
    is_plain = is_last and _is_filled(scale, 1.0) and _is_filled(shift, 0.0)
    return float(layer_norm.attrs.epsilon) if is_plain else None


def _is_filled(value: Expr, number: float) -> bool:
    return isinstance(value, tvm.ir.GenericConst) and bool((value.value.numpy() == number).all())


def normalized(builder: relax.BlockBuilder, value: relax.Var, groups: Groups, channels: int) -> Expr:
    """A blocked ``value`` with whole blocks, normalised group by group."""
    op, emit = relax.op, builder.emit
    shape = list(value.ty.shape)
    spatial = list(range(2, len(shape) - 1))
    of_channels = [shape[0], shape[1], *[1] * len(spatial), shape[-1]]

    def mean(moments: Expr) -> Expr:
        """Moments of every channel as those of its group."""
        if groups.count == channels:
            return moments
        size = channels // groups.count
        apart = emit(op.reshape(moments, (shape[0], groups.count, size)))
        together = emit(op.mean(apart, [2], keepdims=True))
        spread = emit(op.broadcast_to(together, (shape[0], groups.count, size)))
        return emit(op.reshape(spread, relax.ShapeExpr(of_channels)))

    center = mean(emit(op.mean(value, spatial, keepdims=True)))
    squares = builder.call_te(_squares, value, center, primfunc_name_hint="squares")
    count = math.prod(int(shape[axis]) for axis in spatial)
    scale = relax.const(1.0 / count, str(value.ty.dtype))
    variance = mean(emit(op.multiply(emit(squares), scale)))
    shifted = emit(op.add(variance, relax.const(groups.epsilon, str(value.ty.dtype))))
    return op.multiply(emit(op.subtract(value, center)), emit(op.rsqrt(shifted)))


def _squares(value: te.Tensor, center: te.Tensor) -> te.Tensor:
    """Sums over space of the squared differences, in one reading."""
    n, blocks, *sizes, lanes = value.shape
    axes = [te.reduce_axis((0, size), name=f"p{axis}") for axis, size in enumerate(sizes)]
    ones = [0] * len(axes)

    def at(n: Expr, block: Expr, *rest: Expr) -> Expr:
        lane = rest[-1]
        difference = value(n, block, *axes, lane) - center(n, block, *ones, lane)
        return te.sum(difference * difference, axis=axes)

    return te.compute((n, blocks, *[1] * len(axes), lanes), at, name="squares")
