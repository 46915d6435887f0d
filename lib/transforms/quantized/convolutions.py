"""Convolutions of dequantised operands as convolutions of their integers.

    y = conv2d((float32(q) - zq) * sq, (float32(w) - zw) * sw)                     # w: [O, I / groups, *kernel]
becomes
    p = pad(uint8(q), zq)                                                          # int8: 128 more, zq as well
    t = conv2d(p, w) - zq * sum(w) - zw * window_sums(p) + K * zq * zw             # int32; what is zero is left out
    y = (float32(t) * sq) * sw

``q`` has one scale and one zero point, the weight one for all or for each output. The convolution of bytes goes to
:mod:`torch_tvm.transforms.convolution.blocked_layout` like any other; products are in
:mod:`torch_tvm.transforms.quantized.products`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.transforms.convolution.choice import INTEGER, Convolution, fills_words, read_convolution
from torch_tvm.transforms.params.weights import Weights
from torch_tvm.transforms.quantized.dequantized import (
    LONGEST_SUM,
    Dequantized,
    as_signed,
    count,
    of_weight,
    read_dequantized,
    without_zeros,
)

CONVOLUTIONS = (tvm.ir.Op.get("relax.nn.conv2d"), tvm.ir.Op.get("relax.nn.conv3d"))


@dataclass(frozen=True)
class Operands:
    """A convolution, and the bytes behind its data and its weight."""

    conv: Convolution
    data: Dequantized
    weight: Dequantized
    is_padded: bool

    @property
    def depth(self) -> int:
        """How many products a sum has."""
        return self.conv.in_channels // self.conv.groups * math.prod(self.conv.kernel)


def convolution_of_bytes(
    call: relax.Call, values: Weights, rewriter: relax.PyExprMutator, cpu: CpuModel
) -> Expr | None:
    """What replaces ``call`` in the function that ``rewriter`` rewrites; None for one that is not of bytes."""
    found = _read(call, values, cpu)
    return None if found is None else _rewritten(call, found, rewriter)


def _read(call: relax.Call, values: Weights, cpu: CpuModel) -> Operands | None:
    x, w = call.args
    if not isinstance(x, relax.Var) or x in values or w not in values:
        return None
    try:
        conv = read_convolution(call)
    except Refusal:
        return None
    data, weight = read_dequantized(x, values), read_dequantized(w, values)
    if data is None or weight is None or weight.values not in values or conv.dtype != "float32":
        return None
    found = Operands(conv, data, weight, any(int(p) for p in call.attrs.padding))
    if not fills_words(conv, GROUP, cpu) or found.depth > LONGEST_SUM:
        return None
    if not all(_is_single(value) for value in (data.scale, data.zero)):
        return None
    if not all(_is_along_outputs(value, conv) for value in (weight.scale, weight.zero)):
        return None
    has_offsets = weight.zero is not None or str(weight.values.ty.dtype) == "uint8"
    if has_offsets and conv.groups > 1:
        return None
    if found.is_padded and isinstance(data.zero, Expr):
        return None
    return found


def _rewritten(call: relax.Call, found: Operands, rewriter: relax.PyExprMutator) -> Expr:
    op, emit, visit = relax.op, rewriter.builder_.emit, rewriter.visit_expr
    integer = lambda value: emit(op.astype(value, INTEGER))
    constant = lambda value: relax.const(value, INTEGER)
    conv, rank = found.conv, len(found.conv.kernel) + 2

    per_output = lambda value: of_weight(emit, value, [1, conv.out_channels, *[1] * (rank - 2)])

    def data_sums() -> Expr:
        channels = emit(op.sum(integer(data), axis=1, keepdims=True))
        window = lambda sums, spatial: window_sums(sums, conv, padding, spatial)
        spatial = list(conv.out_spatial)
        return emit(rewriter.builder_.call_te(window, channels, spatial, primfunc_name_hint="window_sums"))

    data, zq = visit(found.data.values), found.data.zero
    if isinstance(zq, Expr):
        zq = integer(visit(zq))
    if str(data.ty.dtype) == "int8":
        data = emit(op.astype(emit(op.add(integer(data), constant(128))), "uint8"))
        zq = emit(op.add(zq, constant(128))) if isinstance(zq, Expr) else (zq or 0) + 128
    padding = [int(p) for p in call.attrs.padding]
    if found.is_padded and zq:
        half = len(padding) // 2
        sides = [p for axis in range(half) for p in (padding[axis], padding[axis + half])]
        data = emit(op.nn.pad(data, [0, 0, 0, 0, *sides], "constant", float(zq)))
        padding = [0] * len(padding)
    zw = visit(found.weight.zero) if isinstance(found.weight.zero, Expr) else found.weight.zero
    weight, zw = as_signed(emit, visit(found.weight.values), zw)
    options = {"strides": call.attrs.strides, "dilation": call.attrs.dilation, "padding": padding}
    function = op.nn.conv2d if rank == 4 else op.nn.conv3d
    total = emit(function(data, weight, groups=conv.groups, out_dtype=INTEGER, **options))
    zq = constant(zq) if isinstance(zq, int) else zq
    if zw is not None:
        zw = constant(zw) if isinstance(zw, int) else per_output(integer(zw))
    weight_sums = lambda: per_output(emit(op.sum(integer(weight), axis=list(range(1, rank)))))
    total = without_zeros(emit, total, zq, zw, weight_sums, data_sums, found.depth)
    value = emit(op.multiply(emit(op.astype(total, "float32")), visit(found.data.scale)))
    return op.multiply(value, per_output(visit(found.weight.scale)))


def window_sums(data: te.Tensor, conv: Convolution, padding: list[int], out_spatial: list[Expr]) -> te.Tensor:
    """The sums over what each output of ``conv`` reads of ``data``, [N, 1, *spatial], with zeros around it."""
    taps = [te.reduce_axis((0, size), name=f"k{axis}") for axis, size in enumerate(conv.kernel)]

    def at(n: Expr, c: Expr, *point: Expr) -> Expr:
        places, inside = [], []
        for axis, (out, tap) in enumerate(zip(point, taps, strict=True)):
            place = out * conv.strides[axis] + tap * conv.dilation[axis] - padding[axis]
            places.append(place)
            if any(padding):
                inside += [place >= 0, place < data.shape[2 + axis]]
        value = data[(n, c, *places)]
        if inside:
            value = tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, data.dtype))
        return te.sum(value, axis=taps)

    return te.compute((data.shape[0], 1, *out_spatial), at, name="window_sums")


def _is_single(value: int | Expr | None) -> bool:
    if value is None or isinstance(value, int | tvm.ir.Constant):
        return True
    return isinstance(value.ty.shape, relax.ShapeExpr) and count(value) == 1


def _is_along_outputs(value: int | Expr | None, conv: Convolution) -> bool:
    """Whether a parameter of the weight changes along its first axis at most."""
    if _is_single(value) or not isinstance(value, Expr):
        return True
    shape = value.ty.shape
    rank = len(conv.kernel) + 2
    return isinstance(shape, relax.ShapeExpr) and len(shape) == rank and count(value) == int(shape[0])
