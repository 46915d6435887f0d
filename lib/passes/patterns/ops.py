"""Canonicalization patterns for tensors that are numbers, and for whole ops from their parts."""

from __future__ import annotations

import math

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import SCALAR_TYPE, TensorType
from torch_tvm.passes.patterns.rewriting import Rewriter, is_static
from torch_tvm.passes.patterns.table import pattern_for

# -- a tensor that is a number -----------------------------------------------------------------------------

_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")

COMPARISONS = frozenset(f"torch.aten.{stem}.Scalar" for stem in _COMPARED)
COMPARED_TENSORS = frozenset(f"torch.aten.{stem}.Tensor" for stem in _COMPARED)

_SCALAR_FORM = {
    f"torch.aten.{stem}.Tensor": f"torch.aten.{stem}.Scalar"
    for stem in ("add", "sub", "mul", "div", *_COMPARED, "remainder", "fmod")
} | {
    "torch.aten.pow.Tensor_Tensor": "torch.aten.pow.Tensor_Scalar",
    "torch.aten.floor_divide": "torch.aten.floor_divide.Scalar",
}


@pattern_for(*(name.removeprefix("torch.") for name in _SCALAR_FORM))
def scalar_operand(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``add.Tensor`` with a 0-d literal is ``add.Scalar``, where the result's dtype stays the same."""
    if view.op_name(op) in COMPARED_TENSORS and op.operands[0] == op.operands[1]:
        return _compared_with_itself(r, op)
    literal = view.defining_op(op.operands[1])
    kind, other = view.tensor_type(op.operands[0]), view.tensor_type(op.operands[1])
    if literal is None or literal.name != "torch.vtensor.literal" or kind is None or other is None:
        return None
    if other.shape != () or kind.dtype is None or other.dtype is None or view.resource_name(literal) is not None:
        return None
    if (kind.shape == () and kind.dtype != other.dtype) or _category(kind.dtype) < _category(other.dtype):
        return None
    value, name = view.literal(literal, {}).item(), _SCALAR_FORM[view.op_name(op)]
    value = int(value) if isinstance(value, bool) else value
    if name in COMPARISONS:
        return _comparison(r, name, op, _compared_as(kind, value))
    if kind.dtype == torch.bool:
        return None
    return r.op(name, [op.operands[0], r.number(value), *list(op.operands)[2:]], op.results[0].type)


def _compared_with_itself(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``x == x`` asks for NaN; torch-mlir would fold it to true, also where it cannot compute with that any further."""
    kind, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    stem = view.op_name(op).split(".")[2]
    if kind is None or kind.dtype is None or result is None:
        return None
    if kind.dtype.is_floating_point or kind.dtype.is_complex:
        if stem != "eq":
            return None
        is_nan = r.op("torch.aten.isnan", [op.operands[0]], op.results[0].type)
        return r.op("torch.aten.logical_not", [is_nan], op.results[0].type)
    if not is_static(result):
        return None
    sizes = "".join(f"{size}x" for size in result.shape or ())
    truth = "true" if stem in ("eq", "le", "ge") else "false"
    text = "dense<>" if 0 in (result.shape or ()) else f"dense<{truth}>"
    attribute = ir.Attribute.parse(f"{text} : tensor<{sizes}i1>", r.context)
    return r.op("torch.vtensor.literal", [], op.results[0].type, value=attribute)


@pattern_for(*(f"aten.{stem}.Scalar" for stem in _COMPARED))
def compared_number(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A tensor is compared with a number of the dtype that PyTorch compares in.

    torch-mlir folds a comparison of a tensor of equal elements as if both had one type: 2.0 and the integer 2 differ
    there, and an integer tensor with a floating number ends the process.
    """
    kind, number = view.tensor_type(op.operands[0]), view.constant(op.operands[1])
    if kind is None or kind.dtype is None or kind.dtype.is_complex or number is None:
        return None
    dtype, value = _compared_as(kind, number)
    if dtype == kind.dtype and type(value) is type(number) and value == number:
        return None
    return _comparison(r, view.op_name(op), op, (dtype, value))


def _compared_as(kind: TensorType, number: float) -> tuple[torch.dtype, float]:
    """The dtype in which a tensor and a number are compared, and what the number is there."""
    example = torch.empty([1] * min(1, len(kind.shape or ())), dtype=kind.dtype)
    dtype = torch.result_type(example, number)
    exact = torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else torch.int64)
    return dtype, exact.to(dtype).item()


def _comparison(r: Rewriter, name: str, op: ir.Operation, compared: tuple[torch.dtype, float]) -> ir.Value:
    dtype, value = compared
    return r.op(name, [r.as_dtype(op.operands[0], dtype), r.number(value)], op.results[0].type)


def _category(dtype: torch.dtype) -> int:
    return 0 if dtype == torch.bool else 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


# -- two names of one op -------------------------------------------------------------------------------------

_OTHER_NAMES = {
    "torch.aten._adaptive_avg_pool2d": "torch.aten.adaptive_avg_pool2d",
    "torch.aten._adaptive_avg_pool3d": "torch.aten.adaptive_avg_pool3d",
    "torch.aten.det": "torch.aten.linalg_det",
    "torch.aten.inverse": "torch.aten.linalg_inv",
    "torch.aten.matrix_exp": "torch.aten.linalg_matrix_exp",
    "torch.aten.matrix_power": "torch.aten.linalg_matrix_power",
    "torch.aten.orgqr": "torch.aten.linalg_householder_product",
    "torch.aten.special_xlogy": "torch.aten.xlogy.Tensor",
    "torch.aten.special_xlogy.self_scalar": "torch.aten.xlogy.Scalar_Self",
    "torch.aten.special_xlogy.other_scalar": "torch.aten.xlogy.Scalar_Other",
    "torch.aten.special_i0": "torch.aten.i0",
    "torch.aten.special_psi": "torch.aten.digamma",
    "torch.aten.special_digamma": "torch.aten.digamma",
    "torch.aten.special_gammaln": "torch.aten.lgamma",
    "torch.aten.special_gammainc": "torch.aten.igamma",
    "torch.aten.special_gammaincc": "torch.aten.igammac",
    "torch.aten.special_polygamma": "torch.aten.polygamma",
}


@pattern_for(*(name.removeprefix("torch.") for name in _OTHER_NAMES))
def one_name(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Linear algebra by its name in ``torch.linalg``, special functions and pooling by the one that has a kernel."""
    return r.op(_OTHER_NAMES[view.op_name(op)], list(op.operands), op.results[0].type)


_OPERATORS = {
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
    "__lshift__": "bitwise_left_shift",
    "__rshift__": "bitwise_right_shift",
}
_SHIFTS = ("bitwise_left_shift", "bitwise_right_shift")
_LOGIC = ("bitwise_and", "bitwise_or", "bitwise_xor")
_BITS = {"!torch.int": torch.int64, "!torch.bool": torch.bool}


@pattern_for(
    *(f"aten.{name}.{kind}" for name in _OPERATORS for kind in ("Tensor", "Scalar")),
    *(f"aten.{name}.Scalar" for name in _LOGIC[1:]),
    *(f"aten.{name}.Tensor_Scalar" for name in _SHIFTS),
    *(f"aten.{name}.Scalar_Tensor" for name in (*_LOGIC, *_SHIFTS)),
)
def bitwise(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``x | 3`` is ``bitwise_or`` of tensors: the dialect has those alone, and a tensor of no dimensions promotes as
    its number does.
    """
    kinds = [str(operand.type) for operand in op.operands if view.tensor_type(operand) is None]
    result = view.tensor_type(op.results[0])
    if result is None or result.dtype is None or result.dtype.is_floating_point or not _BITS.keys() >= set(kinds):
        return None
    operands = [value if view.tensor_type(value) is not None else _as_tensor(r, value) for value in op.operands]
    stem = view.op_name(op).removeprefix("torch.aten.").partition(".")[0]
    return r.op(f"torch.aten.{_OPERATORS.get(stem, stem)}.Tensor", operands, op.results[0].type)


def _as_tensor(r: Rewriter, number: ir.Value) -> ir.Value:
    kind = r.types.tensor(TensorType((), _BITS[str(number.type)]))
    return r.op("torch.prim.NumToTensor.Scalar", [number], kind)


@pattern_for("aten.linalg_pinv.atol_rtol_float", "aten.linalg_matrix_rank.atol_rtol_float")
def tolerance(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``linalg_pinv`` without a tolerance, which is an overload for tensors to FX and one for
    numbers to TorchScript.
    """
    x, *tolerances, hermitian = op.operands
    if any(view.constant(value, 0.0) is not None for value in tolerances):
        return None
    name = view.op_name(op).replace("atol_rtol_float", "atol_rtol_tensor")
    return r.op(name, [x, r.none(), r.none(), hermitian], op.results[0].type)


# -- whole ops from their parts ----------------------------------------------------------------------------


@pattern_for("aten._softmax", "aten._log_softmax", "aten.softmax.int", "aten.log_softmax.int")
def softmax(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``softmax.int`` without a dtype, of a tensor that has the result's."""
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or result.dtype is None:
        return None
    stem = view.op_name(op).split(".")[2].removeprefix("_")
    x = op.operands[0]
    if source.dtype != result.dtype:
        x = r.as_dtype(x, result.dtype)
    elif view.op_name(op) == f"torch.aten.{stem}.int" and view.constant(op.operands[2], "") is None:
        return None
    return r.op(f"torch.aten.{stem}.int", [x, op.operands[1], r.none()], op.results[0].type)


@pattern_for("aten.native_layer_norm")
def layer_norm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``layer_norm`` where nobody reads the mean and the deviation."""
    if any(view.is_used(result) for result in list(op.results)[1:]):
        return None
    x, shape, weight, bias, eps = op.operands
    return r.op("torch.aten.layer_norm", [x, shape, weight, bias, eps, r.boolean(False)], op.results[0].type)


@pattern_for("aten._native_batch_norm_legit_no_training", "aten.native_batch_norm")
def batch_norm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``batch_norm`` where nothing is written to running statistics, and nobody reads those of the batch.

    torch-mlir takes the batch's for one a channel outside of training, too.
    """
    operands = list(op.operands)
    training = False
    if view.op_name(op) == "torch.aten.native_batch_norm":
        training = view.constant(operands[5])
        if training is None or (training and not _is_none(operands[3])):
            return None
    for result in list(op.results)[1:]:
        if view.is_used(result) and (training or not _is_nothing(result)):
            return None
        if view.is_used(result):
            result.replace_all_uses_with(_empty(r, result))
    x, weight, bias, mean, var = operands[:5]
    momentum, eps = operands[-2:]
    rest = [r.boolean(training), momentum, eps, r.boolean(False)]
    return r.op("torch.aten.batch_norm", [x, weight, bias, mean, var, *rest], op.results[0].type)


def _is_nothing(value: ir.Value) -> bool:
    kind = view.tensor_type(value)
    return kind is not None and kind.shape == (0,)


def _empty(r: Rewriter, value: ir.Value) -> ir.Value:
    """A tensor of no elements: outside of training the batch has no statistics."""
    kind = view.tensor_type(value)
    assert kind is not None and kind.dtype is not None
    operands = [r.integers([0]), r.integer(SCALAR_TYPE[kind.dtype]), r.none(), r.none(), r.none()]
    return r.op("torch.aten.zeros", operands, value.type)


def _is_none(value: ir.Value) -> bool:
    return view.is_constant(value) and view.constant(value) is None


_CUDNN = {"batch_norm": 8, "instance_norm": 8, "layer_norm": 5, "group_norm": 5}


@pattern_for(*(f"aten.{name}" for name in _CUDNN))
def without_cudnn(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``cudnn_enabled`` is false: it changes nothing of what an op computes."""
    name = view.op_name(op)
    index = _CUDNN[name.removeprefix("torch.aten.")]
    if view.constant(op.operands[index]) is not True:
        return None
    operands = list(op.operands)
    operands[index] = r.boolean(False)
    return r.op(name, operands, op.results[0].type)


@pattern_for("aten.convolution", "aten._convolution", "aten._convolution.deprecated")
def convolution(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``convNd`` or ``conv_transposeNd`` by rank."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = list(op.operands)[:9]
    kind = view.tensor_type(x)
    flag = view.constant(transposed)
    if kind is None or kind.shape is None or flag is None or not 3 <= len(kind.shape) <= 5:
        return None
    n = len(kind.shape) - 2
    if not flag:
        return r.op(f"torch.aten.conv{n}d", [x, weight, bias, stride, padding, dilation, groups], op.results[0].type)
    suffix = "" if n == 1 else ".input"
    operands = [x, weight, bias, stride, padding, output_padding, groups, dilation]
    return r.op(f"torch.aten.conv_transpose{n}d{suffix}", operands, op.results[0].type)


@pattern_for("aten._convolution_mode")
def convolution_mode(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A convolution whose padding is a word is ``convNd.padding``."""
    kind = view.tensor_type(op.operands[0])
    if kind is None or kind.shape is None or not 3 <= len(kind.shape) <= 5:
        return None
    return r.op(f"torch.aten.conv{len(kind.shape) - 2}d.padding", list(op.operands), op.results[0].type)


_CONVOLUTIONS = {
    f"torch.aten.{name}": count
    for count in (1, 2, 3)
    for name in (
        f"conv{count}d", f"conv{count}d.padding", f"conv_transpose{count}d" + ("" if count == 1 else ".input")
    )
}  # fmt: skip


@pattern_for(*(name.removeprefix("torch.") for name in _CONVOLUTIONS))
def one_image(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A convolution without a batch dimension is one of a batch of one."""
    name = view.op_name(op)
    source, result = view.tensor_type(op.operands[0]), view.tensor_type(op.results[0])
    if source is None or result is None or source.shape is None or result.shape is None:
        return None
    if len(source.shape) != _CONVOLUTIONS[name] + 1:
        return None
    batch, images = (r.types.tensor(TensorType((1, *kind.shape), kind.dtype)) for kind in (source, result))
    x = r.op("torch.aten.unsqueeze", [op.operands[0], r.integer(0)], batch)
    convolved = r.op(name, [x, *list(op.operands)[1:]], images)
    return r.op("torch.aten.squeeze.dim", [convolved, r.integer(0)], op.results[0].type)


@pattern_for("aten.upsample_nearest1d", "aten._upsample_nearest_exact1d", "aten.upsample_linear1d")
def resize_to_size(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A resampling to a size without scales is the overload ``.vec``."""
    if not _is_none(op.operands[len(op.operands) - 1]):
        return None
    return r.op(f"{view.op_name(op)}.vec", list(op.operands), op.results[0].type)


@pattern_for("aten.addmm")
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


@pattern_for("aten.mm")
def mm(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``mm(x, permute(w))`` is ``linear``."""
    inner = _transposed(op.operands[1])
    if inner is None:
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


@pattern_for("aten.diff")
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
    last = r.op("torch.aten.slice.Tensor", [joined, r.integer(axis), r.integer(1), r.none(), r.integer(1)], kind)
    first = r.op("torch.aten.slice.Tensor", [joined, r.integer(axis), r.integer(0), r.integer(-1), r.integer(1)], kind)
    return r.op("torch.aten.sub.Tensor", [last, first, r.integer(1)], kind)


@pattern_for("aten.count_nonzero")
def count_nonzero(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """torch-mlir verifies that the dimension is one of none; a number is counted without."""
    kind = view.tensor_type(op.operands[0])
    if kind is None or kind.shape != () or _is_none(op.operands[1]):
        return None
    return r.op(view.op_name(op), [op.operands[0], r.none()], op.results[0].type)


# -- operands of one type --------------------------------------------------------------------------------


@pattern_for("aten.rad2deg", "aten.deg2rad")
def degrees(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Products with a number (torch-mlir takes 3.14159 for pi)."""
    result = view.tensor_type(op.results[0])
    if result is None or result.dtype is None:
        return None
    factor = 180 / math.pi if view.op_name(op) == "torch.aten.rad2deg" else math.pi / 180
    x = r.as_dtype(op.operands[0], result.dtype)
    return r.op("torch.aten.mul.Scalar", [x, r.number(factor)], op.results[0].type)


@pattern_for("aten.masked_scatter")
def masked_scatter(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Tensor and mask have the shape of the result: torch-mlir counts the elements of a tensor that is broadcast."""
    result = view.tensor_type(op.results[0])
    kinds = [view.tensor_type(operand) for operand in op.operands]
    if result is None or result.shape is None or None in result.shape:
        return None
    if all(kind is not None and kind.shape == result.shape for kind in kinds[:2]):
        return None
    sizes = r.integers([size for size in result.shape if size is not None])

    def expanded(operand: ir.Value, kind: TensorType | None) -> ir.Value:
        wanted = r.types.tensor(TensorType(result.shape, kind.dtype if kind is not None else result.dtype))
        return r.op("torch.aten.expand", [operand, sizes, r.boolean(False)], wanted)

    operands = [expanded(operand, kind) for operand, kind in zip(op.operands, kinds[:2], strict=False)]
    return r.op(view.op_name(op), [*operands, op.operands[2]], op.results[0].type)


@pattern_for("aten.mse_loss", "aten.l1_loss", "aten.smooth_l1_loss")
def loss(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Both sides of a loss have the dtype of the result: torch-mlir subtracts what it is given."""
    result, (x, target, *rest) = view.tensor_type(op.results[0]), op.operands
    kinds = view.tensor_type(x), view.tensor_type(target)
    if result is None or result.dtype is None or any(kind is None for kind in kinds):
        return None
    if any(kind is not None and kind.dtype is not None and kind.dtype.is_complex for kind in kinds):
        return _complex_distance(r, op)
    if all(kind is not None and kind.dtype == result.dtype for kind in kinds):
        return None
    sides = [r.as_dtype(x, result.dtype), r.as_dtype(target, result.dtype)]
    return r.op(view.op_name(op), [*sides, *rest], op.results[0].type)


def _complex_distance(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """``l1_loss`` of complex numbers: torch-mlir would take the real parts."""
    x, y, reduction = list(op.operands)[:3]
    kinds = [kind for value in (x, y) if (kind := view.tensor_type(value)) is not None]
    shapes = [kind.shape for kind in kinds if kind.shape is not None and is_static(kind)]
    dtypes = [kind.dtype for kind in kinds if kind.dtype is not None]
    if view.op_name(op) != "torch.aten.l1_loss" or len(shapes) < 2 or len(dtypes) < 2:
        return None
    shape, dtype = torch.broadcast_shapes(*shapes), torch.promote_types(*dtypes)
    difference = r.op("torch.aten.sub.Tensor", [x, y, r.integer(1)], r.types.tensor(TensorType(shape, dtype)))
    lengths = r.op("torch.aten.abs", [difference], r.types.tensor(TensorType(shape, dtype.to_real())))
    name = {0: None, 1: "torch.aten.mean", 2: "torch.aten.sum"}[view.constant(reduction)]
    return lengths if name is None else r.op(name, [lengths, r.none()], op.results[0].type)


@pattern_for("aten.float_power.Tensor_Tensor", "aten.float_power.Tensor_Scalar", "aten.float_power.Scalar")
def float_power(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A power of complex numbers in double precision; torch-mlir would take the real parts."""
    result = view.tensor_type(op.results[0])
    if result is None or result.dtype is None or not result.dtype.is_complex:
        return None
    operands = [v if view.tensor_type(v) is None else r.as_dtype(v, result.dtype) for v in op.operands]
    return r.op(view.op_name(op).replace("float_power", "pow"), operands, op.results[0].type)


@pattern_for("aten.ldexp.Tensor")
def load_exponent(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """A product with a power of 2, for complex numbers and for exponents that are no integers."""
    base, kind = (view.tensor_type(operand) for operand in op.operands)
    if base is None or base.dtype is None or kind is None or kind.dtype is None:
        return None
    is_integer = not (kind.dtype.is_floating_point or kind.dtype.is_complex)
    if is_integer and not base.dtype.is_complex:
        return None
    exponent = r.as_dtype(op.operands[1], torch.float32 if is_integer else kind.dtype)
    power = r.op("torch.aten.pow.Scalar", [r.number(2.0), exponent], exponent.type)
    return r.op("torch.aten.mul.Tensor", [op.operands[0], power], op.results[0].type)


@pattern_for("aten.pow.Tensor_Scalar")
def power_of_integers(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """Integers to the power of a float are floats: torch-mlir makes 2.0 an integer."""
    (x, exponent), result = op.operands, view.tensor_type(op.results[0])
    kind = view.tensor_type(x)
    if kind is None or kind.dtype is None or kind.dtype.is_floating_point or kind.dtype.is_complex:
        return None
    if result is None or result.dtype is None or not result.dtype.is_floating_point:
        return None
    return r.op(view.op_name(op), [r.as_dtype(x, result.dtype), exponent], op.results[0].type)


@pattern_for("prim.NumToTensor.Scalar")
def number_as_tensor(r: Rewriter, op: ir.Operation) -> ir.Value | None:
    """torch-mlir decomposes ``nll_loss`` into a number as a tensor whose rank it does not tell: 0."""
    kind = view.tensor_type(op.results[0])
    if kind is None or kind.dtype is None or kind.shape is not None:
        return None
    return r.op(view.op_name(op), list(op.operands), r.types.tensor(TensorType((), kind.dtype)))
