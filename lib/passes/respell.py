"""``respell``: every concept in its one spelling.

Before::

    %1 = torch.aten.flatten.using_ints %0, %int1, %int-1 : … -> !torch.vtensor<[2,12],f32>
    %2 = torch.aten.dropout %1, %p, %false
    %3 = torch.aten.t %w

After::

    %1 = torch.aten.view %0, [2, 12]
    %3 = torch.aten.permute %w, [1, 0]
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import SCALAR_TYPE, TensorType
from torch_tvm.passes.base import Pass
from torch_tvm.passes.rewriting import Rewriter, argument_index, is_static, schema_of

Rule = Callable[[Rewriter, ir.Operation], ir.Value | None]

RULES: dict[str, Rule] = {}


def respells(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ops; it returns the value that replaces the op's (first) result, or ``None``."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[f"torch.{name}"] = rule
        return rule

    return decorate


class Respell(Pass):
    """Spell each concept as the canonical op set does."""

    def run(self, root: ir.Module) -> None:
        rewriter = Rewriter(root.context)
        for operation in view.walk(root):
            name = view.op_name(operation)
            _drop_placement(rewriter, operation, name)
            rule = RULES.get(name)
            if rule is None:
                continue
            rewriter.anchor = operation
            replacement = rule(rewriter, operation)
            if replacement is None or any(_is_used(result) for result in list(operation.results)[1:]):
                continue
            operation.results[0].replace_all_uses_with(replacement)
            operation.erase()


def _is_used(value: ir.Value) -> bool:
    return next(iter(value.uses), None) is not None


_PLACEMENT = ("device", "layout", "pin_memory", "memory_format")


def _drop_placement(r: Rewriter, op: ir.Operation, name: str) -> None:
    """Where a tensor lies is the target's business: device, layout and pinning become ``none``."""
    if not name.startswith("torch.aten.") or schema_of(name) is None:
        return
    for argument in _PLACEMENT:
        index = argument_index(name, argument)
        if index is None or index >= len(op.operands):
            continue
        if view.is_constant(op.operands[index]) and view.constant(op.operands[index]) is not None:
            schema = schema_of(name)
            if schema is not None and schema.arguments[index].type.kind() == "OptionalType":
                r.anchor = op
                op.operands[index] = r.none()


# -- nothing happens ---------------------------------------------------------------------------------------


@respells(
    "aten.clone", "aten.contiguous", "aten.detach", "aten.alias", "aten.lift", "aten.lift_fresh",
    "aten.lift_fresh_copy", "aten.positive", "aten.detach_copy", "aten.alias_copy", "aten.requires_grad_",
    "aten.resolve_conj", "aten.resolve_neg", "prims.view_of",
)  # fmt: skip
def identity(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A copy or an alias: with value semantics both are the value."""
    return r.as_type(op.operands[0], op.results[0].type)


@respells("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout")
def dropout(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Dropout outside training."""
    if view.constant(op.operands[2]) is False or view.constant(op.operands[1]) == 0.0:
        return r.as_type(op.operands[0], op.results[0].type)
    return None


@respells("aten.native_dropout")
def native_dropout(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    return r.as_type(op.operands[0], op.results[0].type) if view.constant(op.operands[2]) is False else None


@respells(
    "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten.to.prim_Device",
    "aten._to_copy", "aten.type_as", "prims.convert_element_type",
)  # fmt: skip
def conversion(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A change of dtype, or of nothing."""
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
    operands = [op.operands[0], r.integer(code), r.boolean(False), r.boolean(False), r.none()]
    return r.op("torch.aten.to.dtype", operands, op.results[0].type)


# -- shape -------------------------------------------------------------------------------------------------


@respells(
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


@respells("aten.t", "aten.numpy_T", "aten.transpose.int", "aten.swapaxes", "aten.swapdims", "aten.movedim.int",
          "aten.movedim.intlist", "aten.permute", "aten.mT", "aten.t_copy", "aten.transpose_copy.int",
          "aten.permute_copy")  # fmt: skip
def permute(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Any change of the order of dimensions is ``aten.permute`` with non-negative dimensions."""
    kind = view.tensor_type(op.operands[0])
    if kind is None or kind.shape is None:
        return None
    rank = len(kind.shape)
    arguments = [view.constant(v) for v in list(op.operands)[1:]]
    if any(argument is None for argument in arguments):
        return None
    order = _permutation(view.op_name(op), rank, arguments)
    if order == list(range(rank)):
        return r.as_type(op.operands[0], op.results[0].type)
    if view.op_name(op) == "torch.aten.permute" and arguments[0] == order:
        return None
    return r.op("torch.aten.permute", [op.operands[0], r.integers(order)], op.results[0].type)


def _permutation(name: str, rank: int, arguments: list) -> list[int]:
    order = list(range(rank))
    stem = name.split(".")[2]
    if stem in ("t", "t_copy", "numpy_T"):
        return order[::-1]
    if stem == "mT":
        return [*order[:-2], rank - 1, rank - 2]
    if stem in ("permute", "permute_copy"):
        return [dim % rank for dim in arguments[0]]
    if rank == 0:
        return order
    if stem == "movedim":
        given = [[a] if isinstance(a, int) else list(a) for a in arguments]
        source, target = ([dim % rank for dim in dims] for dims in given)
        rest = iter(dim for dim in order if dim not in source)
        return [source[target.index(axis)] if axis in target else next(rest) for axis in order]
    first, second = arguments[0] % rank, arguments[1] % rank
    order[first], order[second] = order[second], order[first]
    return order


@respells("aten.expand", "aten.expand_as", "aten.broadcast_to", "aten.expand_copy")
def expand(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A broadcast is ``aten.expand``; to the same shape it is nothing."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or result.shape is None:
        return None
    if is_static(source) and source.shape == result.shape:
        return r.as_type(op.operands[0], op.results[0].type)
    name = view.op_name(op)
    if None not in result.shape:
        sizes = r.integers(list(result.shape))
        if name == "torch.aten.expand" and view.constant(op.operands[1]) == list(result.shape):
            return None
    elif name == "torch.aten.expand":
        return None
    else:
        sizes = r.integers(r.sizes(op.operands[1])) if name == "torch.aten.expand_as" else op.operands[1]
    return r.op("torch.aten.expand", [op.operands[0], sizes, r.boolean(False)], op.results[0].type)


@respells("aten.slice.Tensor", "aten.slice_copy.Tensor")
def whole_slice(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A slice of everything."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    start, end, step = (view.constant(v, "") for v in list(op.operands)[2:5])
    if is_static(source) and source == result and step == 1:
        return r.as_type(op.operands[0], op.results[0].type)
    if start in (0, None) and step == 1 and isinstance(end, int) and end >= 2**62:
        return r.as_type(op.operands[0], op.results[0].type)
    return None


@respells("aten.squeeze", "aten.squeeze.dim", "aten.squeeze.dims")
def squeeze(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A squeeze of a dimension that is not one is nothing; of several it is a view."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or source.shape is None or result.shape is None:
        return None
    if len(source.shape) == len(result.shape):
        return r.as_type(op.operands[0], op.results[0].type)
    return reshape(r, op) if view.op_name(op) != "torch.aten.squeeze.dim" else None


# -- a tensor that is a number -----------------------------------------------------------------------------

_SCALAR_FORM = {
    f"torch.aten.{stem}.Tensor": f"torch.aten.{stem}.Scalar"
    for stem in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod")
} | {
    "torch.aten.pow.Tensor_Tensor": "torch.aten.pow.Tensor_Scalar",
    "torch.aten.floor_divide": "torch.aten.floor_divide.Scalar",
}


@respells(*(name.removeprefix("torch.") for name in _SCALAR_FORM))
def scalar_operand(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``add.Tensor`` with a 0-d literal is ``add.Scalar``, where the result's dtype stays the same."""
    if view.op_name(op) == "torch.aten.eq.Tensor" and op.operands[0] == op.operands[1]:
        return _is_number(r, op)
    literal = view.defining_op(op.operands[1])
    kind, other = view.tensor_type(op.operands[0]), view.tensor_type(op.operands[1])
    if literal is None or literal.name != "torch.vtensor.literal" or kind is None or other is None:
        return None
    if (
        other.shape != ()
        or kind.dtype is None
        or other.dtype is None
        or view.resource_name(literal) is not None
    ):
        return None
    if (kind.shape == () and kind.dtype != other.dtype) or _category(kind.dtype) < _category(other.dtype):
        return None
    value = view.literal(literal, {}).item()
    operands = [op.operands[0], r.number(value), *list(op.operands)[2:]]
    return r.op(_SCALAR_FORM[view.op_name(op)], operands, op.results[0].type)


def _is_number(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``x == x`` asks for NaN; torch-mlir would fold it to true."""
    kind = view.tensor_type(op.operands[0])
    if kind is None or kind.dtype is None or not kind.dtype.is_floating_point:
        return None
    is_nan = r.op("torch.aten.isnan", [op.operands[0]], op.results[0].type)
    return r.op("torch.aten.logical_not", [is_nan], op.results[0].type)


def _category(dtype: torch.dtype) -> int:
    return 0 if dtype == torch.bool else 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


# -- whole ops from their parts ----------------------------------------------------------------------------


@respells("aten._softmax", "aten._log_softmax", "aten.softmax.int", "aten.log_softmax.int")
def softmax(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``softmax.int`` without a dtype where the dtype does not change."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or source.dtype != result.dtype:
        return None
    stem = view.op_name(op).split(".")[2].removeprefix("_")
    if view.op_name(op) == f"torch.aten.{stem}.int" and view.constant(op.operands[2], "") is None:
        return None
    return r.op(f"torch.aten.{stem}.int", [op.operands[0], op.operands[1], r.none()], op.results[0].type)


@respells("aten.native_layer_norm")
def layer_norm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``layer_norm`` where nobody reads the mean and the deviation."""
    if any(_is_used(result) for result in list(op.results)[1:]):
        return None
    x, shape, weight, bias, eps = op.operands
    return r.op("torch.aten.layer_norm", [x, shape, weight, bias, eps, r.boolean(False)], op.results[0].type)


@respells("aten._native_batch_norm_legit_no_training", "aten.native_batch_norm")
def batch_norm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``batch_norm`` of inference."""
    operands = list(op.operands)
    if view.op_name(op) == "torch.aten.native_batch_norm" and view.constant(operands[5]) is not False:
        return None
    if any(_is_used(result) for result in list(op.results)[1:]):
        return None
    x, weight, bias, mean, var = operands[:5]
    momentum, eps = operands[-2:]
    rest = [r.boolean(False), momentum, eps, r.boolean(False)]
    return r.op("torch.aten.batch_norm", [x, weight, bias, mean, var, *rest], op.results[0].type)


@respells("aten.batch_norm")
def batch_norm_flags(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """cudnn is not ours to enable."""
    if view.constant(op.operands[8]) is True:
        operands = [*list(op.operands)[:8], r.boolean(False)]
        return r.op("torch.aten.batch_norm", operands, op.results[0].type)
    return None


@respells("aten.layer_norm")
def layer_norm_flags(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    if view.constant(op.operands[5]) is True:
        operands = [*list(op.operands)[:5], r.boolean(False)]
        return r.op("torch.aten.layer_norm", operands, op.results[0].type)
    return None


@respells("aten.convolution", "aten._convolution", "aten._convolution.deprecated")
def convolution(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``convNd`` or ``conv_transposeNd`` by rank."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = list(op.operands)[:9]
    kind = view.tensor_type(x)
    flag = view.constant(transposed)
    if kind is None or kind.shape is None or flag is None or not 3 <= len(kind.shape) <= 5:
        return None
    n = len(kind.shape) - 2
    if not flag:
        return r.op(
            f"torch.aten.conv{n}d", [x, weight, bias, stride, padding, dilation, groups], op.results[0].type
        )
    suffix = "" if n == 1 else ".input"
    operands = [x, weight, bias, stride, padding, output_padding, groups, dilation]
    return r.op(f"torch.aten.conv_transpose{n}d{suffix}", operands, op.results[0].type)


@respells("aten.addmm")
def addmm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``addmm(bias, x, permute(w))`` is ``linear``."""
    bias, x, weight, beta, alpha = op.operands
    inner = _transposed(weight)
    kind = view.tensor_type(bias)
    if inner is None or view.constant(beta) != 1 or view.constant(alpha) != 1 or kind is None:
        return None
    if kind.shape is None or len(kind.shape) != 1:
        return None
    return r.op("torch.aten.linear", [x, inner, bias], op.results[0].type)


@respells("aten.mm")
def mm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``mm(x, permute(w))`` of a weight is ``linear``."""
    inner = _transposed(op.operands[1])
    if inner is None or (owner := view.defining_op(inner)) is None or owner.name != "torch.vtensor.literal":
        return None
    kind, given = view.tensor_type(op.results[0]), view.tensor_type(inner)
    if kind is None or given is None or kind.dtype != given.dtype:  # a product of int8 that gives int32
        return None
    return r.op("torch.aten.linear", [op.operands[0], inner, r.none()], op.results[0].type)


def _transposed(value: ir.Value) -> ir.Value | None:
    owner = view.defining_op(value)
    if owner is None or owner.name not in ("torch.aten.permute", "torch.aten.t"):
        return None
    if owner.name == "torch.aten.permute" and view.constant(owner.operands[1]) != [1, 0]:
        return None
    return owner.operands[0]


@respells("aten.diff")
def diff(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``diff`` of order one is a difference of two slices."""
    x, order, dim, prepend, append = op.operands
    source, result = view.tensor_type(x), view.tensor_type(op.results[0])
    axis = view.constant(dim)
    parts = [part for part in (prepend, x, append) if view.tensor_type(part) is not None]
    if view.constant(order) != 1 or axis is None or source is None or result is None or source.shape is None:
        return None
    kinds = [view.tensor_type(part) for part in parts]
    if source.dtype == torch.bool or result.shape is None or any(k is None or k.shape is None for k in kinds):
        return None
    axis %= len(source.shape)
    sizes = [k.shape[axis] for k in kinds if k is not None and k.shape is not None]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    joined_shape = (*result.shape[:axis], total, *result.shape[axis + 1 :])
    joined = x
    if len(parts) > 1:
        items = r.op("torch.prim.ListConstruct", parts, r.types.parse("!torch.list<vtensor>"))
        joined_type = r.types.tensor(TensorType(joined_shape, result.dtype))
        joined = r.op("torch.aten.cat", [items, r.integer(axis)], joined_type)
    kind = op.results[0].type
    last = r.op(
        "torch.aten.slice.Tensor", [joined, r.integer(axis), r.integer(1), r.none(), r.integer(1)], kind
    )
    first = r.op(
        "torch.aten.slice.Tensor", [joined, r.integer(axis), r.integer(0), r.integer(-1), r.integer(1)], kind
    )
    return r.op("torch.aten.sub.Tensor", [last, first, r.integer(1)], kind)


@respells("aten.group_norm")
def group_norm_flags(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """cudnn is not ours to enable."""
    if view.constant(op.operands[5]) is True:
        operands = [*list(op.operands)[:5], r.boolean(False)]
        return r.op("torch.aten.group_norm", operands, op.results[0].type)
    return None


@respells("aten.view_copy.dtype")
def bit_view(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """The bits of a tensor as another dtype."""
    return r.op("torch.aten.view.dtype", list(op.operands), op.results[0].type)
