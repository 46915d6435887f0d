"""The few ATen ops that a schema does not describe: hidden mutation, tensors from Python values, lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.containers.pieces import Pieces, chunk, pieces, sections
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import (
    RUNTIME_TEXT,
    KnownTensor,
    ListValue,
    RuntimeText,
    Scalar,
    Stack,
    kind_of,
)

aten = torch.ops.aten


def _dtype(code: Any) -> torch.dtype | None:
    from torch_tvm.dialect.types import DTYPE_OF_SCALAR_TYPE

    return DTYPE_OF_SCALAR_TYPE[code] if isinstance(code, int) else code


# -- normalisations ----------------------------------------------------------------------------------------


@handles("aten::batch_norm")
def _batch_norm(ev: Evaluator, args: list[Any]) -> Any:
    """By known statistics the result is like the argument, and every vector is of its channels: no need to ask more."""
    x, vectors, training = args[0], args[1:5], args[5]
    if (
        training is False
        and args[3] is not None
        and x.meta.dim() > 1
        and all(each is None or each.meta.shape == x.meta.shape[1:2] for each in vectors)
    ):
        return tensors.call(ev, ev.overload, args, [ev.fake_of(x.meta)])
    return tensors.call(ev, ev.overload, args)


# -- masks and sizes that only run time knows ---------------------------------------------------------------


@handles("aten::index.Tensor", "aten::index_put", "aten::index_put_")
def _index(ev: Evaluator, args: list[Any]) -> TensorRef:
    """``x[mask]`` of a mask without dimensions is ``x[None][mask[None]]``; fake tensors take it for ``x``."""
    x, *rest = args
    given = ev.items(rest[0])
    masks = [item for item in given if isinstance(item, TensorRef) and item.meta.dim() == 0]
    if not any(mask.meta.dtype in (torch.bool, torch.uint8) for mask in masks):
        return tensors.call(ev, ev.overload, args)
    if len(given) > 1:
        raise ev.failure(
            "a mask without dimensions among other indices",
            subject="torch.aten.index",
            advice="use torch.where, or give the mask a dimension",
        )
    whole, mask = (tensors.call(ev, aten.unsqueeze.default, [item, 0]) for item in (x, masks[0]))
    found = tensors.call(ev, ev.overload, [whole, ListValue([mask]), *rest[1:]])
    if ev.overload is aten.index.Tensor:
        return found
    return x if ev.overload is aten.index_put_.default else tensors.call(ev, aten.select.int, [found, 0, 0])


@handles("aten::repeat_interleave.self_Tensor")
def _repeat_interleave(ev: Evaluator, args: list[Any]) -> TensorRef:
    """Known counts make the size of the result known; traces hold one count for all elements as a tensor."""
    x, counts, axis, *rest = args
    if not isinstance(counts, KnownTensor) or counts.known is None:
        return tensors.call(ev, ev.overload, args)
    if counts.known.numel() == 1:
        return tensors.call(ev, aten.repeat_interleave.self_int, [x, int(counts.known), axis, *rest])
    return tensors.call(ev, ev.overload, [x, counts, axis, int(counts.known.sum())])


@handles("aten::broadcast_tensors")
def _broadcast_tensors(ev: Evaluator, args: list[Any]) -> Any:
    """Fake tensors take a size that only run time knows for the other one, though it may be 1."""
    sizes = [size for item in ev.items(args[0]) for size in item.meta.shape]
    if any(isinstance(size, torch.SymInt) and not size.node.has_hint() for size in sizes):
        raise ev.failure(
            "a size is not known before the program runs",
            subject="torch.aten.broadcast_tensors",
            advice="use expand with the sizes of the result",
        )
    return tensors.call(ev, ev.overload, args)


# -- tensors from Python values ----------------------------------------------------------------------------


def _flat(ev: Evaluator, data: Any) -> tuple[list[Any], tuple[int, ...]]:
    if not isinstance(data, (ListValue, tuple)):
        return [data], ()
    rows = [_flat(ev, item) for item in (ev.items(data) if isinstance(data, ListValue) else data)]
    inner = rows[0][1] if rows else ()
    return [leaf for row, _ in rows for leaf in row], (len(rows), *inner)


@handles("aten::tensor", "aten::as_tensor")
def _tensor(ev: Evaluator, args: list[Any]) -> TensorRef:
    """``torch.tensor`` and ``torch.as_tensor`` of numbers and nested lists of them."""
    data, dtype = args[0], _dtype(args[1] if len(args) > 1 else None)
    if isinstance(data, TensorRef):
        return tensors.call(ev, aten.to.dtype, [data, dtype, False, True, None]) if dtype else _copy(ev, data)
    if isinstance(data, ListValue) and isinstance(data.items, Stack):
        own = {"int": torch.int64, "float": torch.get_default_dtype(), "bool": torch.bool}[data.items.kind]
        return tensors.call(ev, aten.to.dtype, [data.items.tensor, dtype or own, False, True, None])
    leaves, shape = _flat(ev, data)
    if not any(isinstance(leaf, (Scalar, TensorRef)) for leaf in leaves):
        return _known(ev, torch.tensor(leaves, dtype=dtype).reshape(shape))
    if dtype is None:
        kinds = {kind_of(leaf) for leaf in leaves}
        dtype = torch.get_default_dtype() if "float" in kinds else torch.int64 if "int" in kinds else torch.bool
    refs = [leaf if isinstance(leaf, TensorRef) else tensors.scalar_tensor(ev, leaf, dtype) for leaf in leaves]
    if not shape:
        return refs[0]
    stacked = tensors.call(ev, aten.stack.default, [ListValue(refs), 0])
    return tensors.call(ev, aten.reshape.default, [stacked, ListValue(list(shape))])


def _known(ev: Evaluator, tensor: torch.Tensor) -> TensorRef:
    return tensors.known_tensor(ev, tensor) if tensor.numel() <= 64 else tensors.literal(ev, tensor, "constant")


def _copy(ev: Evaluator, ref: TensorRef) -> TensorRef:
    return tensors.call(ev, aten.clone.default, [ref, None])


@handles("prim::NumToTensor")
def _number_to_tensor(ev: Evaluator, args: list[Any]) -> TensorRef:
    return tensors.scalar_tensor(ev, args[0])


@handles("aten::scalar_tensor")
def _scalar_tensor(ev: Evaluator, args: list[Any]) -> TensorRef:
    return tensors.scalar_tensor(ev, args[0], _dtype(args[1]) or torch.get_default_dtype())


# -- lists of tensors --------------------------------------------------------------------------------------


def _stacked(ev: Evaluator, source: ListValue) -> Stack | None:
    """A list of run-time length as a stacked tensor."""
    items = source.items
    return items.stacked(ev) if isinstance(items, Pieces) else items if isinstance(items, Stack) else None


@handles("aten::stack")
def _stack(ev: Evaluator, args: list[Any]) -> TensorRef:
    source, dim = args
    stack = _stacked(ev, source)
    if stack is None:
        return tensors.call(ev, ev.overload, args)
    tensor = stack.tensor
    rank = tensor.meta.dim()
    if dim % rank == 0:
        return _copy(ev, tensor)
    return tensors.call(ev, aten.movedim.int, [tensor, 0, dim])


@handles("aten::cat", "aten::concat", "aten::concatenate")
def _cat(ev: Evaluator, args: list[Any]) -> TensorRef:
    source, dim = args
    split = source.items if isinstance(source.items, Pieces) and source.items.size else None
    if split is not None and dim % split.whole.meta.dim() == split.axis:
        return _copy(ev, split.whole)
    stack = _stacked(ev, source)
    if stack is None:
        return tensors.call(ev, ev.overload, args)
    tensor = stack.tensor
    rank = tensor.meta.dim() - 1
    if rank < 1:
        raise ev.failure("torch.cat of 0-d tensors")
    dim %= rank
    moved = tensor if dim == 0 else tensors.call(ev, aten.movedim.int, [tensor, 0, dim])
    sizes = [tensors.size(ev, moved, axis) for axis in range(rank + 1)]
    merged = ev.scalars.mul(sizes[dim], sizes[dim + 1])
    shape = [*sizes[:dim], merged, *sizes[dim + 2 :]]
    return tensors.call(ev, aten.reshape.default, [moved, ListValue(shape)])


# -- text --------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """A value inside a message; run-time ones print as ``<value>``."""
    return RUNTIME_TEXT if isinstance(value, (Scalar, TensorRef, ListValue)) else str(value)


def _formatted(parts: list[Any], build: Callable[[list[Any]], str]) -> str:
    dynamic = any(isinstance(p, (Scalar, TensorRef, ListValue, RuntimeText)) for p in parts)
    text = build(parts)
    return RuntimeText(text) if dynamic else text


@handles("aten::format")
def _format(ev: Evaluator, args: list[Any]) -> str:
    return _formatted(args, lambda parts: parts[0].format(*(text_of(p) for p in parts[1:])))


@handles("aten::percentFormat")
def _percent_format(ev: Evaluator, args: list[Any]) -> str:
    def build(parts: list[Any]) -> str:
        values = list(parts[1]) if len(parts) == 2 and isinstance(parts[1], tuple) else parts[1:]
        try:
            return parts[0] % tuple(values)
        except (TypeError, ValueError):
            return " ".join(text_of(part) for part in parts)

    return _formatted(args, build)


@handles("aten::str")
def _str(ev: Evaluator, args: list[Any]) -> str:
    return _formatted(args, lambda parts: text_of(parts[0]))


@handles("aten::join")
def _join(ev: Evaluator, args: list[Any]) -> str:
    items = ev.items(args[1])
    return _formatted([args[0], *items], lambda parts: parts[0].join(text_of(p) for p in parts[1:]))


@handles("aten::set_grad_enabled")
def _set_grad(ev: Evaluator, args: list[Any]) -> None:
    ev.grad_enabled = bool(args[0])


@handles("prim::tolist")
def _to_list(ev: Evaluator, args: list[Any]) -> Any:
    """``x.tolist()``: nested lists of run-time numbers; the sizes must be known."""
    ref = args[0]
    shape = [tensors.size(ev, ref, axis) for axis in range(ref.meta.dim())]
    if any(isinstance(extent, Scalar) for extent in shape):
        kind = tensors.unstack_kind(ref.meta.dtype)
        if len(shape) == 1:
            return ListValue(Stack(kind, ref))
        raise ev.failure("tolist() of a tensor with unknown sizes")
    return _nested(ev, ref)


def _nested(ev: Evaluator, ref: TensorRef) -> Any:
    if ref.meta.dim() == 0:
        return tensors.element(ev, ref)
    rows = [tensors.call(ev, aten.select.int, [ref, 0, i]) for i in range(int(ref.meta.shape[0]))]
    return ListValue([_nested(ev, row) for row in rows])


handles("aten::split.Tensor", "aten::unsafe_split.Tensor", "aten::unbind.int")(pieces)
handles("aten::tensor_split.sections")(sections)
handles("aten::chunk", "aten::unsafe_chunk")(chunk)
handles("aten::is_grad_enabled", "prim::is_grad_enabled")(lambda ev, args: ev.grad_enabled)
handles("aten::is_autocast_enabled", "aten::is_autocast_cpu_enabled", "aten::is_pinned")(lambda ev, args: False)
handles("aten::is_scripting")(lambda ev, args: True)
handles("aten::warn")(lambda ev, args: None)
handles("aten::requires_grad_", "aten::lift_fresh")(lambda ev, args: args[0])
