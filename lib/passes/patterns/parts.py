"""Canonicalization patterns for parts of tensors: slices, pieces, grids; and for ops under another name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import TensorType
from torch_tvm.passes.patterns.rewriting import Rewriter, is_static
from torch_tvm.passes.patterns.table import pattern_for

Start: TypeAlias = Callable[[Rewriter, ir.Value, int], ir.Value]

_INT_MAX = 2**63 - 1
_END = 2**62  # a slice bound from here on means the end

# Without aliasing or uninitialised memory these are the same; operands that the new schema lacks are dropped.
_RENAMED = {
    "select_copy.int": "select.int",
    "diagonal_copy": "diagonal",
    "unfold_copy": "unfold",
    "unsqueeze_copy": "unsqueeze",
    "squeeze_copy.dim": "squeeze.dim",
    "split_copy.Tensor": "split.Tensor",
    "unsafe_split.Tensor": "split.Tensor",
    "split_with_sizes_copy": "split_with_sizes",
    "unsafe_split_with_sizes": "split_with_sizes",
    "unbind_copy.int": "unbind.int",
    "view_copy.dtype": "view.dtype",
    "empty.memory_format": "zeros",
    "empty_like": "zeros_like",
    "new_empty": "new_zeros",
}
_SHORTER = {"zeros": 5}


@pattern_for(*(f"aten.{name}" for name in _RENAMED))
def renamed(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A copy of a part is the part; memory that nobody filled is zeros."""
    name = _RENAMED[view.op_name(op).removeprefix("torch.aten.")]
    return r.op(f"torch.aten.{name}", list(op.operands)[: _SHORTER.get(name)], op.results[0].type)


@pattern_for("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_tensor(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A slice of everything is nothing; the bounds of others are numbers, from the front where the size is known."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    axis, start, end, step = (view.constant(v, "") for v in list(op.operands)[1:5])
    if is_static(source) and source == result and step == 1:
        return r.as_type(op.operands[0], op.results[0].type)
    if start in (0, None) and step == 1 and (end is None or (isinstance(end, int) and end >= _END)):
        return r.as_type(op.operands[0], op.results[0].type)
    if source is None or not source.shape or not isinstance(axis, int):
        return None
    axis %= len(source.shape)
    size = source.shape[axis]
    first = _bound(0 if start is None else start, size)
    last = _bound(_INT_MAX if end is None else end, size)
    if isinstance(first, int) and isinstance(last, int) and size is not None:
        last = max(first, last)
    if view.op_name(op) == "torch.aten.slice.Tensor":
        constants = [view.constant(v, "") for v in list(op.operands)[1:4]]
        if constants == [axis, first, last]:
            return None
    bounds = [
        r.integer(bound) if isinstance(bound, int) else given
        for bound, given in zip((axis, first, last), list(op.operands)[1:4], strict=True)
    ]
    return r.op("torch.aten.slice.Tensor", [op.operands[0], *bounds, op.operands[4]], op.results[0].type)


def _bound(bound: Any, size: int | None) -> Any:
    """A constant bound inside ``[0, size]``; what is no constant stays."""
    if not isinstance(bound, int):
        return bound
    if size is None:
        return _INT_MAX if bound >= _END else bound
    return min(max(bound + size if bound < 0 else bound, 0), size)


def _slice(r: Rewriter, x: ir.Value, axis: int, first: int, last: int) -> ir.Value:
    """``x[first:last]`` of a dimension of known size."""
    kind = view.tensor_type(x)
    assert kind is not None and kind.shape is not None
    shape = (*kind.shape[:axis], last - first, *kind.shape[axis + 1 :])
    bounds = [r.integer(value) for value in (axis, first, last, 1)]
    return r.op("torch.aten.slice.Tensor", [x, *bounds], r.types.tensor(TensorType(shape, kind.dtype)))


def _known_axis(op: ir.Operation, index: int) -> tuple[int, int] | None:
    """(dimension, its size) that operand ``index`` names, where the size is known."""
    source, axis = view.tensor_type(op.operands[0]), view.constant(op.operands[index])
    if source is None or not source.shape or not isinstance(axis, int):
        return None
    size = source.shape[axis]
    return None if size is None else (axis % len(source.shape), size)


@pattern_for("aten.narrow")
def narrow(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A part of a dimension by start and length is a slice."""
    found = _known_axis(op, 1)
    first, length = view.constant(op.operands[2]), view.constant(op.operands[3])
    if found is None or not isinstance(first, int) or not isinstance(length, int):
        return None
    axis, size = found
    first = first + size if first < 0 else first
    if not 0 <= first <= first + length <= size:
        return None
    return _slice(r, op.operands[0], axis, first, first + length)


@pattern_for("aten.chunk")
def chunk(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A number of chunks is a split into pieces of a size."""
    found, chunks = _known_axis(op, 2), view.constant(op.operands[1])
    if found is None and isinstance(chunks, int) and chunks > 0:
        return _cut(r, op, 2, lambda r, size, i: _times(r, _rounded_up(r, size, chunks), i))
    if found is None or found[1] == 0 or not isinstance(chunks, int) or chunks < 1:
        return None
    operands = [op.operands[0], r.integer(-(-found[1] // chunks)), op.operands[2]]
    return r.op("torch.aten.split.Tensor", operands, op.results[0].type)


@pattern_for("aten.tensor_split.sections", "aten.tensor_split.indices")
def tensor_split(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Pieces between given positions are slices."""
    found, given = _known_axis(op, 2), view.constant(op.operands[1])
    if given is None or (isinstance(given, int) and given < 1):
        return None
    if found is None:
        return _cut(r, op, 2, _sections(given) if isinstance(given, int) else _positions(given))
    axis, size = found
    if isinstance(given, int):
        each, longer = divmod(size, given)
        given = [each * i + min(i, longer) for i in range(1, given)]
    starts = [0, *(_bound(position, size) for position in given)]
    ends = [*(_bound(position, size) for position in given), size]
    pieces = [
        _slice(r, op.operands[0], axis, first, max(first, last)) for first, last in zip(starts, ends, strict=True)
    ]
    return r.op("torch.prim.ListConstruct", pieces, op.results[0].type)


# -- pieces of a dimension of unknown size, as many as the program takes from the list ---------------------


@pattern_for("aten.split.Tensor")
def split(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Pieces of an unknown size are slices."""
    length = view.constant(op.operands[1])
    if _known_axis(op, 2) is not None or not isinstance(length, int) or length < 1:
        return None
    return _cut(r, op, 2, lambda r, size, i: r.integer(length * i))


@pattern_for("aten.unbind.int")
def unbind(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Elements along a dimension of unknown size, one by one."""
    pieces = None if _known_axis(op, 1) is not None else _taken(op)
    if pieces is None:
        return None
    select = lambda i, kind: r.op("torch.aten.select.int", [*op.operands, r.integer(i)], kind)
    elements = [select(i, kind) for i, kind in enumerate(pieces)]
    return r.op("torch.prim.ListConstruct", elements, op.results[0].type)


def _taken(op: ir.Operation) -> list[ir.Type] | None:
    """The types of the pieces that the program takes from a list, all at once."""
    users = [use.owner for use in op.results[0].uses]
    if not users or any(user.name != "torch.prim.ListUnpack" for user in users):
        return None
    return [piece.type for piece in users[0].results]


def _cut(r: Rewriter, op: ir.Operation, index: int, start: Start) -> ir.Value | None:
    """Slices of the dimension that operand ``index`` names: ``start(r, size, i)`` is where piece ``i`` begins."""
    x, axis, pieces = op.operands[0], view.constant(op.operands[index]), _taken(op)
    kind = view.tensor_type(x)
    if pieces is None or kind is None or not kind.shape or not isinstance(axis, int):
        return None
    size = r.size(x, axis % len(kind.shape))
    starts = [r.integer(0), *(start(r, size, i) for i in range(1, len(pieces)))]
    ends = [*starts[1:], r.integer(_INT_MAX)]
    parts = [
        r.op("torch.aten.slice.Tensor", [x, op.operands[index], first, last, r.integer(1)], piece)
        for first, last, piece in zip(starts, ends, pieces, strict=True)
    ]
    return r.op("torch.prim.ListConstruct", parts, op.results[0].type)


def _sections(count: int) -> Start:
    """As many of nearly one size; the first ones have one more."""

    def start(r: Rewriter, size: ir.Value, i: int) -> ir.Value:
        least = _times(r, _integer(r, "aten.floordiv.int", size, r.integer(count)), i)
        more = _integer(r, "aten.remainder.int", size, r.integer(count))
        return _integer(r, "aten.add.int", least, _integer(r, "prim.min.int", more, r.integer(i)))

    return start


def _positions(given: list[int]) -> Start:
    return lambda r, size, i: r.integer(given[i - 1])


def _rounded_up(r: Rewriter, size: ir.Value, parts: int) -> ir.Value:
    """``ceil(size / parts)``"""
    more = _integer(r, "aten.add.int", size, r.integer(parts - 1))
    return _integer(r, "aten.floordiv.int", more, r.integer(parts))


def _times(r: Rewriter, size: ir.Value, count: int) -> ir.Value:
    return _integer(r, "aten.mul.int", size, r.integer(count))


def _integer(r: Rewriter, name: str, *operands: ir.Value) -> ir.Value:
    return r.op(f"torch.{name}", operands, r.types.parse("!torch.int"))


@pattern_for("aten.meshgrid.indexing")
def meshgrid(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Coordinates over a grid are broadcasts of each tensor along a dimension of its own."""
    given, indexing = view.defining_op(op.operands[0]), view.constant(op.operands[1])
    if given is None or given.name != "torch.prim.ListConstruct":
        return None
    tensors = list(given.operands)
    kinds = [kind for kind in map(view.tensor_type, tensors) if kind is not None and kind.shape is not None]
    if len(kinds) < len(tensors) or any(len(kind.shape or ()) > 1 for kind in kinds):
        return None
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    known = [(kinds[axis].shape or (1,))[0] for axis in order]
    sizes = r.integers([(r.sizes(tensors[axis]) or [1])[0] for axis in order])
    grids = []
    for index, (x, kind) in enumerate(zip(tensors, kinds, strict=True)):
        shape = tuple(size if axis == index else 1 for axis, size in zip(order, known, strict=True))
        own = r.integers([-1 if size is None else size for size in shape])
        line = r.op("torch.aten.view", [x, own], r.types.tensor(TensorType(shape, kind.dtype)))
        grid = r.types.tensor(TensorType(tuple(known), kind.dtype))
        grids.append(r.op("torch.aten.expand", [line, sizes, r.boolean(False)], grid))
    return r.op("torch.prim.ListConstruct", grids, op.results[0].type)


@pattern_for("aten.broadcast_tensors")
def broadcast_tensors(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Tensors are expanded one by one, each with its own dtype."""
    given = view.defining_op(op.operands[0])
    if given is None or given.name != "torch.prim.ListConstruct":
        return None
    tensors = list(given.operands)
    kinds = [kind for kind in map(view.tensor_type, tensors) if kind is not None and kind.shape is not None]
    shapes = [tuple(size for size in kind.shape or () if size is not None) for kind in kinds]
    if len(kinds) < len(tensors) or any(len(s) < len(k.shape or ()) for s, k in zip(shapes, kinds, strict=True)):
        return None
    common = tuple(torch.broadcast_shapes(*shapes))
    sizes = r.integers(common)
    expanded = [
        r.op("torch.aten.expand", [x, sizes, r.boolean(False)], r.types.tensor(TensorType(common, kind.dtype)))
        for x, kind in zip(tensors, kinds, strict=True)
    ]
    return r.op("torch.prim.ListConstruct", expanded, op.results[0].type)


@pattern_for("aten.any.bool")
def any_of_truths(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """One of several truths, as the assertions of torch-mlir's broadcasts ask."""
    return _folded_truths(r, op, "torch.aten.__or__.bool")


@pattern_for("aten.all.bool")
def all_of_truths(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """All of several truths."""
    return _folded_truths(r, op, "torch.aten.__and__.bool")


def _folded_truths(r: Rewriter, op: ir.Operation, joint: str) -> ir.Value | None:
    made = view.defining_op(op.operands[0])
    if made is None or made.name != "torch.prim.ListConstruct" or not len(made.operands):
        return None
    kind = op.results[0].type
    return functools.reduce(lambda a, b: r.op(joint, [a, b], kind), made.operands)
