"""The inverse of a view: the new value of a parent when a view of it was given one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording import Recording
from torch_tvm.importers.storages import Place, ViewStep

aten = torch.ops.aten
Inverse = Callable[[Recording, Place, ViewStep, ir.Value], ir.Value]


def scatter(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """The value of ``parent`` whose view by ``step`` is ``value``, and that is as before elsewhere."""
    return _INVERSES.get(step.name, _by_index)(r, parent, step, value)


def _emit(r: Recording, overload: torch._ops.OpOverload, meta: torch.Tensor, *args: Any) -> ir.Value:
    value: ir.Value = r.emitter.call(overload, args, {}, [meta])[0]
    return value


def _by_index(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    """Any view: the same view of the elements' numbers tells where each element comes from."""
    count = parent.meta.numel()
    numbers, flat = parent.meta.new_empty((count,), dtype=torch.int64), parent.meta.new_empty((count,))
    size = (
        count
        if isinstance(count, int)
        else r.emitter.call(aten.numel.default, (r.value(parent),), {}, [0])[0]
    )
    counted = _emit(r, aten.arange.default, numbers, size)
    shaped = _emit(
        r, aten.view.default, torch.empty_like(parent.meta, dtype=torch.int64), counted, r.sizes(parent)
    )
    metas = [_as_numbers(meta) for meta in step.metas]
    index = step.pick(r.emitter.call(step.overload, *r.replayed(step, shaped), metas))
    before = _emit(r, aten.reshape.default, flat, r.value(parent), [-1])
    after = _emit(r, aten.index_put.default, flat, before, [index], value, False)
    return _emit(r, aten.view.default, parent.meta, after, r.sizes(parent))


def _as_numbers(meta: Any) -> Any:
    if isinstance(meta, (list, tuple)):
        return [_as_numbers(item) for item in meta]
    return torch.empty_like(meta, dtype=torch.int64)


def _reshape_back(r: Recording, parent: Place, step: ViewStep, value: ir.Value) -> ir.Value:
    return _emit(r, aten.reshape.default, parent.meta, value, r.sizes(parent))


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
    return _emit(
        r, aten.slice_scatter.default, parent.meta, r.value(parent), value, axis, start, start + length
    )


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
    "broadcast_tensors",
    "broadcast_to",
    "expand",
    "expand_as",
    "flatten",
    "meshgrid",
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
# Writing to a tensor that is broadcast is an error of PyTorch's: an expanded one that is written has as many elements.
_INVERSES: dict[str, Inverse] = {
    **dict.fromkeys(_RESHAPES, _reshape_back),
    **dict.fromkeys(_IDENTITIES, _identity),
    **dict.fromkeys(("t", "transpose", "swapaxes", "swapdims"), _swap_back),
    **dict.fromkeys(
        ("unbind", "split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk"), _element
    ),
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
