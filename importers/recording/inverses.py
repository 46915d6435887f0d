"""The inverse of a view: the new value of a parent when a view of it was given one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.interface import Recording
from torch_tvm.importers.recording.storages import Place, ViewStep
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten
Inverse = Callable[[Recording, Place, ViewStep, ir.Value], ir.Value]


def scatter(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """The value of ``parent`` whose view by ``step`` is ``value``, and that is as before elsewhere."""
    return _INVERSES.get(step.name, _by_index)(r, parent, step, value)


def _emit(r: Recording, overload: torch._ops.OpOverload, meta: torch.Tensor, *args: Any, **kwargs: Any) -> ir.Value:
    value: ir.Value = r.emitter.call(overload, args, kwargs, [meta])[0]
    return value


def _by_index(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """Any view: the same view of the elements' numbers tells where each element comes from."""
    count = parent.meta.numel()
    numbers, flat = parent.meta.new_empty((count,), dtype=torch.int64), parent.meta.new_empty((count,))
    size = count if isinstance(count, int) else r.emitter.call(aten.numel.default, (r.value(parent),), {}, [0])[0]
    counted = _emit(r, aten.arange.default, numbers, size)
    shaped = _emit(r, aten.view.default, torch.empty_like(parent.meta, dtype=torch.int64), counted, r.sizes(parent))
    metas = [_as_numbers(meta) for meta in step.metas]
    index = step.pick(r.emitter.call(step.overload, *r.replayed(step, shaped), metas))
    before = _emit(r, aten.reshape.default, flat, r.value(parent), [-1])
    after = _emit(r, aten.index_put.default, flat, before, [index], value, False)
    return _emit(r, aten.view.default, parent.meta, after, r.sizes(parent))


def _as_numbers(meta: Any) -> Any:
    if isinstance(meta, (list, tuple)):
        return [_as_numbers(item) for item in meta]
    return _like(meta, torch.int64)


def _reshape_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.reshape.default, parent.meta, value, r.sizes(parent))


def _expand_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """An expanded tensor was filled, in part perhaps: each element of the parent is the copy that changed."""
    shape, small = list(step.meta.shape), list(parent.meta.shape)
    lead = len(shape) - len(small)
    copied = [
        *range(lead),
        *(lead + i for i, n in enumerate(small) if _is_one(n) and not _is_one(shape[lead + i])),
    ]
    count = math.prod(shape[axis] for axis in copied)
    if not isinstance(count, int):
        raise ImportFailed("writes to a tensor that is expanded to an unknown size", advice="use clone() before")
    if count == 1:
        return _reshape_back(r, parent, step, value)
    if count == 0:
        return r.value(parent)
    before = step.pick(r.emitter.call(step.overload, *r.replayed(step, r.value(parent)), step.metas))
    bools, order = _like(step.meta, torch.bool), [*copied, *(a for a in range(len(shape)) if a not in copied)]
    changed = _emit(r, aten.ne.Tensor, bools, value, before)
    if step.meta.is_floating_point():
        is_nan = _emit(r, aten.isnan.default, bools, before)
        nan_too = _emit(r, aten.logical_and.default, bools, is_nan, _emit(r, aten.isnan.default, bools, value))
        changed = _emit(r, aten.logical_and.default, bools, changed, _emit(r, aten.logical_not.default, bools, nan_too))

    def rows(of: ir.Value, meta: torch.Tensor) -> tuple[ir.Value, torch.Tensor]:
        ordered = meta.permute(order)
        flat = ordered.reshape(count, -1)
        return _emit(
            r, aten.reshape.default, flat, _emit(r, aten.permute.default, ordered, of, order), [count, -1]
        ), flat

    marks = _like(step.meta, torch.int32)
    marked, flat = rows(_emit(r, aten._to_copy.default, marks, changed, dtype=torch.int32), marks)
    which = _emit(r, aten.argmax.default, _like(flat[:1], torch.int64), marked, 0, True)
    copies, flat = rows(value, step.meta)
    return _reshape_back(r, parent, step, _emit(r, aten.gather.default, flat[:1], copies, 0, which))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _like(meta: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_like(meta, dtype=dtype)


def _identity(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return value


def _scatter_with(overload: torch._ops.OpOverload) -> Inverse:
    def scatter(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
        return r.emitter.call(overload, (r.value(parent), value, *step.rest), step.kwargs, [parent.meta])[0]

    return scatter


def _swap_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    first, second = step.rest or (0, 1)
    return _emit(r, aten.transpose.int, parent.meta, value, first, second) if parent.meta.dim() > 1 else value


def _transpose_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.transpose.int, parent.meta, value, -2, -1)


def _adjoint_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _conj_back(r, parent, step, _transpose_back(r, parent, step, value))


def _reverse_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.permute.default, parent.meta, value, list(range(parent.meta.dim()))[::-1])


def _permute_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    rank = parent.meta.dim()
    order = [d % rank for d in step.rest[0]]
    return _emit(r, aten.permute.default, parent.meta, value, [order.index(axis) for axis in range(rank)])


def _narrow_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    axis, start, length = step.rest
    if not isinstance(start, int) or not isinstance(length, int):
        return _by_index(r, parent, step, value)
    if start < 0:
        size = parent.meta.shape[axis]
        if not isinstance(size, int):
            return _by_index(r, parent, step, value)
        start += size
    return _emit(r, aten.slice_scatter.default, parent.meta, r.value(parent), value, axis, start, start + length)


def _element(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """The inverse of one element of ``unbind``, ``split``, ``chunk`` and their kin."""
    axis, index, metas = step.given("dim", 0), step.path[1], step.metas[0]
    base = r.value(parent)
    if step.name == "unbind":
        return _emit(r, aten.select_scatter.default, parent.meta, base, value, axis, index)
    extents = [meta.shape[axis] for meta in metas[: index + 1]]
    if not all(isinstance(extent, int) for extent in extents):
        return _by_index(r, parent, step, value)
    start = sum(extents[:-1])
    return _emit(r, aten.slice_scatter.default, parent.meta, base, value, axis, start, start + extents[-1])


# -- complex numbers, and memory read as another dtype ---------------------------------------------------------


def _conj_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    if not parent.meta.is_complex():
        return value
    return _emit(r, aten.conj_physical.default, parent.meta, value)


def _neg_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.neg.default, parent.meta, value)


def _part_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """``x.real`` or ``x.imag`` was written: the other part stays."""
    if not parent.meta.is_complex():
        return value
    other = aten.imag.default if step.name == "real" else aten.real.default
    kept = _emit(r, other, step.meta, r.value(parent))
    pair = (value, kept) if step.name == "real" else (kept, value)
    return _emit(r, aten.complex.default, parent.meta, *pair)


def _complex_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.view_as_complex.default, parent.meta, value)


def _pairs_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.view_as_real.default, parent.meta, value)


def _view_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    if step.meta.dtype == parent.meta.dtype:
        return _reshape_back(r, parent, step, value)
    return _emit(r, aten.view.dtype, parent.meta, value, parent.meta.dtype)


_RESHAPES = (
    "_reshape_alias",
    "_unsafe_view",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "flatten",
    "ravel",
    "reshape",
    "reshape_as",
    "squeeze",
    "unflatten",
    "unsqueeze",
    "view_as",
)
_IDENTITIES = (
    "_autocast_to_reduced_precision",
    "_to_copy",
    "alias",
    "alpha_dropout",
    "conj_physical",
    "contiguous",
    "detach",
    "dropout",
    "feature_alpha_dropout",
    "feature_dropout",
    "lift_fresh",
    "native_dropout",
    "positive",
    "resolve_conj",
    "resolve_neg",
    "to",
    "type_as",
)
# Ops that compute on a tensor in place refuse one that is broadcast; those that fill it do not.
EXPANSIONS = ("broadcast_tensors", "broadcast_to", "expand", "expand_as", "meshgrid")
_INVERSES: dict[str, Inverse] = {
    **dict.fromkeys(_RESHAPES, _reshape_back),
    **dict.fromkeys(_IDENTITIES, _identity),
    **dict.fromkeys(EXPANSIONS, _expand_back),
    **dict.fromkeys(("t", "transpose", "swapaxes", "swapdims"), _swap_back),
    **dict.fromkeys(("unbind", "split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk"), _element),
    **dict.fromkeys(("unsafe_split_with_sizes", "tensor_split"), _element),
    **dict.fromkeys(("mH", "adjoint", "matrix_H"), _adjoint_back),
    **dict.fromkeys(("conj", "_conj"), _conj_back),
    **dict.fromkeys(("real", "imag"), _part_back),
    "_neg_view": _neg_back,
    "diagonal": _scatter_with(aten.diagonal_scatter.default),
    "mT": _transpose_back,
    "narrow": _narrow_back,
    "numpy_T": _reverse_back,
    "permute": _permute_back,
    "select": _scatter_with(aten.select_scatter.default),
    "slice": _scatter_with(aten.slice_scatter.default),
    "view": _view_back,
    "view_as_complex": _pairs_back,
    "view_as_real": _complex_back,
}
