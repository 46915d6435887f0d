"""Canonicalization patterns for copies, conversions, shapes and parts of tensors."""

from __future__ import annotations

import math

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import SCALAR_TYPE, TensorType
from torch_tvm.passes.patterns.rewriting import Rewriter, is_static
from torch_tvm.passes.patterns.table import pattern_for

# -- nothing happens ---------------------------------------------------------------------------------------


@pattern_for(
    "aten.clone", "aten.contiguous", "aten.detach", "aten.alias", "aten.lift", "aten.lift_fresh",
    "aten.lift_fresh_copy", "aten.positive", "aten.detach_copy", "aten.alias_copy", "aten.requires_grad_",
    "aten.resolve_conj", "aten.resolve_neg", "prims.view_of",
)  # fmt: skip
def identity(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A copy or an alias: with value semantics both are the value."""
    return r.as_type(op.operands[0], op.results[0].type)


@pattern_for("aten.conj_physical")
def conjugate_of_real(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    kind = view.tensor_type(op.operands[0])
    if kind is None or kind.dtype is None or kind.dtype.is_complex:
        return None
    return r.as_type(op.operands[0], op.results[0].type)


@pattern_for("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout")
def dropout(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Dropout outside training."""
    if view.constant(op.operands[2]) is False or view.constant(op.operands[1]) == 0.0:
        return r.as_type(op.operands[0], op.results[0].type)
    return None


@pattern_for("aten.rrelu", "aten.rrelu_with_noise")
def rrelu(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``rrelu`` outside training: a leaky ReLU with the mean of its slopes."""
    lower, upper, training = (view.constant(value) for value in list(op.operands)[-4:-1])
    if training is not False or not isinstance(lower, (int, float)) or not isinstance(upper, (int, float)):
        return None
    slope = r.floating((lower + upper) / 2)
    return r.op("torch.aten.leaky_relu", [op.operands[0], slope], op.results[0].type)


@pattern_for("aten.native_dropout")
def native_dropout(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    return r.as_type(op.operands[0], op.results[0].type) if view.constant(op.operands[2]) is False else None


@pattern_for(
    "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten.to.prim_Device",
    "aten._to_copy", "aten.type_as", "prims.convert_element_type",
)  # fmt: skip
def conversion(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Every kind of conversion is ``to.dtype``, or its operand where the dtype stays."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or result.dtype is None:
        return None
    if source.dtype == result.dtype:
        return r.as_type(op.operands[0], op.results[0].type)
    code = SCALAR_TYPE[result.dtype]
    if view.op_name(op) == "torch.aten.to.dtype" and [view.constant(v, "") for v in list(op.operands)[1:]] == [
        code, False, False, None,
    ]:  # fmt: skip
        return None
    return r.as_dtype(op.operands[0], result.dtype, op.results[0].type)


# -- shape -------------------------------------------------------------------------------------------------


@pattern_for("aten._shape_as_tensor")
def shape_as_tensor(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """The sizes, each a tensor, put together."""
    source = view.tensor_type(op.operands[0])
    if source is None or not source.shape:
        return None
    size, one = r.types.tensor(TensorType((), torch.int64)), r.types.tensor(TensorType((1,), torch.int64))
    numbers = [r.integer(n) if isinstance(n, int) else n for n in r.sizes(op.operands[0])]
    tensors = [r.op("torch.prim.NumToTensor.Scalar", [number], size) for number in numbers]
    rows = [r.op("torch.aten.unsqueeze", [tensor, r.integer(0)], one) for tensor in tensors]
    listed = r.op("torch.prim.ListConstruct", rows, r.types.parse("!torch.list<vtensor<[1],si64>>"))
    return r.op("torch.aten.cat", [listed, r.integer(0)], op.results[0].type)


@pattern_for(
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten._reshape_alias", "aten.view_copy",
    "aten.flatten.using_ints", "aten.unflatten.int", "aten.view_as", "aten.reshape_as", "aten._reshape_copy",
    "aten.ravel",
)  # fmt: skip
def reshape(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Any change of shape in row-major order is ``aten.view`` with the sizes that are known and one -1."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or source.shape is None or result.shape is None:
        return None
    if is_static(source) and source.shape == result.shape:
        return r.as_type(op.operands[0], op.results[0].type)
    name = view.op_name(op)
    unknown = [axis for axis, size in enumerate(result.shape) if size is None]
    if len(unknown) <= 1 and not (unknown and 0 in result.shape):
        sizes: list[int | ir.Value] = [-1 if size is None else size for size in result.shape]
        if name == "torch.aten.view" and view.constant(op.operands[1]) == sizes:
            return None
        return r.op("torch.aten.view", [op.operands[0], r.integers(sizes)], op.results[0].type)
    listed = _view_sizes(r, op, name, source.shape)
    if listed is None:
        return None
    return r.op("torch.aten.view", [op.operands[0], listed], op.results[0].type)


def _view_sizes(r: Rewriter, op: ir.Operation, name: str, shape: tuple[int | None, ...]) -> ir.Value | None:
    if name in ("torch.aten.reshape", "torch.aten._unsafe_view", "torch.aten.view_copy"):
        return op.operands[1]
    if name in ("torch.aten.view_as", "torch.aten.reshape_as"):
        return r.integers(r.sizes(op.operands[1]))
    sizes = r.sizes(op.operands[0])
    if name == "torch.aten.flatten.using_ints":
        start, end = (view.constant(v) % max(len(shape), 1) for v in list(op.operands)[1:3])
        return r.integers([*sizes[:start], -1, *sizes[end + 1 :]])
    if name == "torch.aten.unflatten.int":
        axis = view.constant(op.operands[1]) % len(shape)
        inner = list(op.operands[2].owner.operands)
        return r.integers([*sizes[:axis], *inner, *sizes[axis + 1 :]])
    return None


@pattern_for("aten.t", "aten.numpy_T", "aten.transpose.int", "aten.swapaxes", "aten.swapdims", "aten.movedim.int",
          "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist", "aten.permute", "aten.mT", "aten.mH",
          "aten.matrix_H", "aten.adjoint", "aten.t_copy", "aten.transpose_copy.int", "aten.permute_copy")  # fmt: skip
def permute(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Any change of the order of dimensions is ``aten.permute`` with non-negative dimensions."""
    kind = view.tensor_type(op.operands[0])
    if kind is None or kind.shape is None:
        return None
    rank = len(kind.shape)
    arguments = [view.constant(v) for v in list(op.operands)[1:]]
    if any(argument is None for argument in arguments):
        return None
    if view.op_name(op) in _CONJUGATING and (rank < 2 or kind.dtype is None):
        return None
    order = _permutation(view.op_name(op), rank, arguments)
    if view.op_name(op) in _CONJUGATING and kind.dtype is not None and kind.dtype.is_complex:
        turned = r.op("torch.aten.permute", [op.operands[0], r.integers(order)], op.results[0].type)
        return r.op("torch.aten._conj", [turned], op.results[0].type)
    if order == list(range(rank)):
        return r.as_type(op.operands[0], op.results[0].type)
    if view.op_name(op) == "torch.aten.permute" and arguments[0] == order:
        return None
    return r.op("torch.aten.permute", [op.operands[0], r.integers(order)], op.results[0].type)


_CONJUGATING = ("torch.aten.mH", "torch.aten.matrix_H", "torch.aten.adjoint")


def _permutation(name: str, rank: int, arguments: list) -> list[int]:
    order = list(range(rank))
    stem = name.split(".")[2]
    if stem in ("t", "t_copy", "numpy_T"):
        return order[::-1]
    if stem in ("mT", "mH", "matrix_H", "adjoint"):
        return [*order[:-2], rank - 1, rank - 2]
    if stem in ("permute", "permute_copy"):
        return [dim % rank for dim in arguments[0]]
    if rank == 0:
        return order
    if stem in ("movedim", "moveaxis"):
        given = [[a] if isinstance(a, int) else list(a) for a in arguments]
        source, target = ([dim % rank for dim in dims] for dims in given)
        rest = iter(dim for dim in order if dim not in source)
        return [source[target.index(axis)] if axis in target else next(rest) for axis in order]
    first, second = arguments[0] % rank, arguments[1] % rank
    order[first], order[second] = order[second], order[first]
    return order


@pattern_for("aten.select.int")
def select(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """One of the two numbers that a complex one is of is its real or its imaginary part."""
    pairs, dim, index = view.defining_op(op.operands[0]), *(view.constant(v) for v in list(op.operands)[1:])
    if pairs is None or view.op_name(pairs) != "torch.aten.view_as_real":
        return None
    kind = view.tensor_type(pairs.operands[0])
    if kind is None or kind.shape is None or dim not in (-1, len(kind.shape)) or index not in (0, 1):
        return None
    return r.op(f"torch.aten.{('real', 'imag')[index]}", [pairs.operands[0]], op.results[0].type)


@pattern_for("aten.expand", "aten.expand_as", "aten.broadcast_to", "aten.expand_copy")
def expand(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A broadcast is ``aten.expand``; to the same shape it is nothing."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or result.shape is None:
        return None
    if is_static(source) and source.shape == result.shape:
        return r.as_type(op.operands[0], op.results[0].type)
    name = view.op_name(op)
    known = [size for size in result.shape if size is not None]
    if len(known) == len(result.shape):
        sizes = r.integers(known)
        if name == "torch.aten.expand" and view.constant(op.operands[1]) == known:
            return None
    elif name == "torch.aten.expand":
        return None
    else:
        sizes = r.integers(r.sizes(op.operands[1])) if name == "torch.aten.expand_as" else op.operands[1]
    return r.op("torch.aten.expand", [op.operands[0], sizes, r.boolean(False)], op.results[0].type)


@pattern_for("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A tensor that was expanded to a larger mask was not: the op broadcasts both."""
    expand = view.defining_op(op.operands[0])
    if expand is None or view.op_name(expand) != "torch.aten.expand":
        return None
    tensor, mask = expand.operands[0], op.operands[1]
    kinds = [view.tensor_type(value) for value in (tensor, mask, op.results[0])]
    source, wide, result = kinds
    if source is None or wide is None or result is None or not all(map(is_static, (source, wide, result))):
        return None
    if torch.broadcast_shapes(source.shape, wide.shape) != result.shape:
        return None
    return r.op(view.op_name(op), [tensor, *list(op.operands)[1:]], op.results[0].type)


@pattern_for("aten.masked_select")
def masked_select(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """The op broadcasts both of its operands: they need not be expanded."""
    expanded = [view.defining_op(operand) for operand in op.operands]
    sources = [
        made.operands[0] if made is not None and view.op_name(made) == "torch.aten.expand" else operand
        for made, operand in zip(expanded, op.operands, strict=True)
    ]
    before, after = ([view.tensor_type(v) for v in values] for values in (list(op.operands), sources))
    if sources == list(op.operands) or not all(map(is_static, [*before, *after])):
        return None
    shapes = [
        torch.broadcast_shapes(*(k.shape for k in kinds if k and k.shape is not None)) for kinds in (before, after)
    ]
    return r.op("torch.aten.masked_select", sources, op.results[0].type) if shapes[0] == shapes[1] else None


# -- sizes that the program finds -----------------------------------------------------------------------


@pattern_for("aten.le.int")
def is_at_most(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """No mask selects more than its elements: torch.export asserts so of each result whose size the program finds."""
    most = _found_at_most(op.operands[0])
    is_told = most is not None and view.is_constant(op.operands[1]) and view.constant(op.operands[1]) >= most
    return r.boolean(True) if is_told else None


@pattern_for("aten.ge.int")
def is_at_least(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """No ``bincount`` has fewer bins than it is asked for."""
    made = _sized_by(op.operands[0])
    if made is None or view.op_name(made) != "torch.aten.bincount" or not view.is_constant(op.operands[1]):
        return None
    least = made.operands[2]
    is_told = view.is_constant(least) and view.constant(op.operands[1]) <= view.constant(least)
    return r.boolean(True) if is_told else None


_SELECTING = {
    "torch.aten.nonzero": 0,
    "torch.aten.nonzero_numpy": 0,
    "torch.aten.argwhere": 0,
    "torch.aten.where": 0,
    "torch.aten._unique2": 0,
    "torch.aten.unique_consecutive": 0,
    "torch.aten.unique_dim": 0,
    "torch.aten.masked_select": None,
    "torch.aten.index.Tensor": None,
}
"""Ops whose results have at most as many rows as an operand has elements; ``None``: the masks among the operands."""

_BY_SLICES = {"torch.aten.unique_dim": 1, "torch.aten.unique_consecutive": 3}
"""Those that may look at slices, and which operand says along which dimension."""


def _sized_by(size: ir.Value) -> ir.Operation | None:
    """The op that made the tensor of which ``size`` is a size."""
    asked = view.defining_op(size)
    if asked is None or view.op_name(asked) != "torch.aten.size.int":
        return None
    made = view.defining_op(asked.operands[0])
    if made is not None and view.op_name(made) == "torch.prim.ListUnpack":
        made = view.defining_op(made.operands[0])
    return made


def _found_at_most(size: ir.Value) -> int | None:
    """What the size of a result of such an op cannot exceed, if that is known."""
    made = _sized_by(size)
    if made is None or view.op_name(made) not in _SELECTING:
        return None
    if view.op_name(made) in _BY_SLICES and view.is_constant(made.operands[_BY_SLICES[view.op_name(made)]]):
        dim = view.constant(made.operands[_BY_SLICES[view.op_name(made)]])
        kind = view.tensor_type(made.operands[0])
        if dim is not None and kind is not None and kind.shape:
            return kind.shape[dim]
    place = _SELECTING[view.op_name(made)]
    operands = [made.operands[place]] if place is not None else _masks(made)
    kinds = [view.tensor_type(operand) for operand in operands]
    if not kinds or not all(map(is_static, kinds)):
        return None
    shape = torch.broadcast_shapes(*(kind.shape for kind in kinds if kind is not None and kind.shape is not None))
    return math.prod(shape)


def _masks(op: ir.Operation) -> list[ir.Value]:
    """The operands of a ``masked_select``, or the mask of an ``index`` that has one and no other index."""
    if view.op_name(op) == "torch.aten.masked_select":
        return list(op.operands)
    made = view.defining_op(op.operands[1])
    given = [] if made is None else [item for item in made.operands if view.tensor_type(item) is not None]
    return given if len(given) == 1 else []


@pattern_for("aten.hstack")
def hstack(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Numbers side by side are vectors of one (torch-mlir ends the process on them)."""
    made = view.defining_op(op.operands[0])
    if made is None or made.name != "torch.prim.ListConstruct":
        return None
    kinds = [view.tensor_type(value) for value in made.operands]
    if not any(kind is not None and kind.shape == () for kind in kinds):
        return None
    vectors = [
        _as_vector(r, value, kind) if kind is not None and kind.shape == () else value
        for value, kind in zip(made.operands, kinds, strict=True)
    ]
    parts = r.op("torch.prim.ListConstruct", vectors, r.types.parse("!torch.list<vtensor>"))
    return r.op("torch.aten.cat", [parts, r.integer(0)], op.results[0].type)


@pattern_for("aten.cat")
def cat(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Tensors without elements along the dimension are the first of them: torch-mlir leaves all of them out."""
    made, dim = view.defining_op(op.operands[0]), view.constant(op.operands[1])
    result = view.tensor_type(op.results[0])
    if made is None or made.name != "torch.prim.ListConstruct" or dim is None or result is None:
        return None
    kinds = [view.tensor_type(value) for value in made.operands]
    if not result.shape or not kinds or any(kind is None or not kind.shape for kind in kinds):
        return None
    shapes = [kind.shape for kind in kinds if kind is not None and kind.shape is not None]
    if any(len(shape) != len(result.shape) or shape[dim] != 0 for shape in shapes):
        return None
    if result.dtype is None:
        return None
    return r.as_type(r.as_dtype(made.operands[0], result.dtype), op.results[0].type)


def _as_vector(r: Rewriter, number: ir.Value, kind: TensorType) -> ir.Value:
    return r.op("torch.aten.view", [number, r.integers([1])], r.types.tensor(TensorType((1,), kind.dtype)))


@pattern_for("aten.squeeze", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze_copy", "aten.squeeze_copy.dims")
def squeeze(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A squeeze of a dimension that is not one is nothing; of several it is a view."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or source.shape is None or result.shape is None:
        return None
    if len(source.shape) == len(result.shape):
        return r.as_type(op.operands[0], op.results[0].type)
    return reshape(r, op) if view.op_name(op) != "torch.aten.squeeze.dim" else None
