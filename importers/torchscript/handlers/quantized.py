"""Quantised tensors of scripts as integers with their scale, and linear layers that quantise their
input at each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torch_tvm.dialect.types import SCALAR_TYPE
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import ListValue, ObjectValue, QuantizedValue

aten = torch.ops.aten

_STORED = {12: torch.int8, 13: torch.uint8, 14: torch.int32}
"""What elements of a quantised dtype are stored as, by its number in schemas."""

_LEAST = 6.1e-5
"""The least scale of an input that is quantised at each call."""


def _quantized(ev: Evaluator, value: Any) -> QuantizedValue:
    if isinstance(value, QuantizedValue):
        return value
    raise ev.failure("expected a tensor that the program quantises itself")


@handles("aten::quantize_per_tensor")
def _quantize(ev: Evaluator, args: list[Any]) -> QuantizedValue:
    x, scale, zero_point, code = args
    if code not in _STORED or not isinstance(scale, float) or not isinstance(zero_point, int):
        raise ev.failure("a scale or a zero point that only the run knows", advice="make it a constant")
    stored = _STORED[code]
    bounds = torch.iinfo(stored)
    inverse = float(1 / torch.tensor(scale, dtype=torch.float32))
    rounded = tensors.call(ev, aten.round.default, [tensors.call(ev, aten.mul.Scalar, [x, inverse])])
    moved = tensors.call(ev, aten.add.Scalar, [rounded, zero_point, 1])
    bounded = tensors.call(ev, aten.clamp.default, [moved, bounds.min, bounds.max])
    return QuantizedValue(_cast(ev, bounded, stored), scale, zero_point)


@handles("aten::dequantize")
def _dequantize(ev: Evaluator, args: list[Any]) -> Any:
    if isinstance(args[0], ListValue):
        return ListValue([_dequantize(ev, [item]) for item in ev.items(args[0])])
    value = _quantized(ev, args[0])
    moved = tensors.call(ev, aten.sub.Scalar, [_cast(ev, value.elements, torch.float32), value.zero_point, 1])
    return tensors.call(ev, aten.mul.Scalar, [moved, value.scale])


@handles("aten::int_repr")
def _elements(ev: Evaluator, args: list[Any]) -> TensorRef:
    return tensors.call(ev, aten.clone.default, [_quantized(ev, args[0]).elements, None])


@handles("aten::q_scale")
def _scale(ev: Evaluator, args: list[Any]) -> float:
    return _quantized(ev, args[0]).scale


@handles("aten::q_zero_point")
def _zero_point(ev: Evaluator, args: list[Any]) -> int:
    return _quantized(ev, args[0]).zero_point


# -- linear layers whose input is quantised at each call -----------------------------------------------


@dataclass(frozen=True)
class Packed:
    """Weights that were packed before, by their name in the program.

    An input is rounded to seven bits rather than eight where that ``reduces_range``.
    """

    source: torch.ScriptObject
    path: str
    reduces_range: bool


@handles("quantized::linear_dynamic", "quantized::linear_relu_dynamic")
def _linear(ev: Evaluator, args: list[Any]) -> TensorRef:
    x, packed, reduces_range = args
    return _activated(ev, product(ev, x, Packed(script_object(ev, packed), packed.path, reduces_range)))


@handles("quantized::linear_dynamic_fp16", "quantized::linear_relu_dynamic_fp16")
def _linear_of_halves(ev: Evaluator, args: list[Any]) -> TensorRef:
    x, packed = args
    return _activated(ev, product(ev, x, Packed(script_object(ev, packed), packed.path, False)))


def _activated(ev: Evaluator, x: TensorRef) -> TensorRef:
    return tensors.call(ev, aten.relu.default, [x]) if "_relu_" in ev.overload._schema.name else x


def product(ev: Evaluator, x: TensorRef, packed: Packed) -> TensorRef:
    """A linear layer: products of whole numbers, computed in float32 where they are exact up to 2**24, and scaled.

    Of weights that were rounded to float16, the products are those of float32.
    """
    call = lambda op, *operands: tensors.call(ev, op, list(operands))
    literal = lambda tensor, name: tensors.literal(ev, tensor.detach(), f"{packed.path}.{name}")
    weight, bias = torch.ops.quantized.linear_unpack(packed.source)
    if weight.dtype == torch.float32:
        return call(aten.linear.default, x, literal(weight, "weight"), None if bias is None else literal(bias, "bias"))
    if weight.dtype != torch.qint8:
        raise ev.failure(f"weights of {weight.dtype}", advice="quantise them with dtype=torch.qint8")
    scale, zero_point = _chosen(ev, x, 127 if packed.reduces_range else 255)
    whole = call(aten.add.Tensor, call(aten.round.default, call(aten.div.Tensor, x, scale)), zero_point, 1)
    bounded = call(aten.sub.Tensor, call(aten.clamp.default, whole, 0, 255), zero_point, 1)
    if weight.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        scales, offsets = weight.q_per_channel_scales().float(), weight.q_per_channel_zero_points()
    else:
        scales, offsets = torch.tensor(weight.q_scale()), torch.tensor(weight.q_zero_point())
    numbers = weight.int_repr().float() - offsets.reshape(-1, 1)
    products = call(aten.linear.default, bounded, literal(numbers, "weight"), None)
    result = call(aten.mul.Tensor, products, call(aten.mul.Tensor, literal(scales.clone(), "scale"), scale))
    return result if bias is None else call(aten.add.Tensor, result, literal(bias, "bias"), 1)


def script_object(ev: Evaluator, packed: Any) -> torch.ScriptObject:
    """The object behind weights that were packed before."""
    source = packed.source if isinstance(packed, ObjectValue) else None
    if not isinstance(source, torch.ScriptObject):
        raise ev.failure("expected weights that were packed before")
    return source


def _chosen(ev: Evaluator, x: TensorRef, most: int) -> tuple[TensorRef, TensorRef]:
    """Scale and zero point of ``x`` in ``[0, most]``, as FBGEMM's ``ChooseQuantizationParams`` finds them.

    The range holds 0; where the scale becomes the least one, the zero point is that of its own.
    """
    call = lambda op, *operands: tensors.call(ev, op, list(operands))
    low = call(aten.clamp.default, _cast(ev, call(aten.min.default, x), torch.float64), None, 0)
    high = call(aten.clamp.default, _cast(ev, call(aten.max.default, x), torch.float64), 0, None)
    scale = call(aten.div.Scalar, call(aten.sub.Tensor, high, low, 1), most)
    is_none = call(aten.eq.Scalar, _cast(ev, scale, torch.float32), 0)
    scale = call(aten.masked_fill.Scalar, scale, is_none, 0.1)
    from_low = call(aten.neg.default, call(aten.div.Tensor, low, scale))
    from_high = call(aten.rsub.Scalar, call(aten.div.Tensor, high, scale), most, 1)
    # the end with the smaller error: |low / scale| < most + |high / scale|
    is_low = call(aten.lt.Tensor, from_low, call(aten.rsub.Scalar, from_high, 2 * most, 1))
    nudged = call(aten.round.default, call(aten.where.self, is_low, from_low, from_high))
    bounded = call(aten.clamp.default, nudged, 0, most)
    kept = call(aten.clamp.default, scale, _LEAST, None)
    return _cast(ev, kept, torch.float32), _cast(ev, bounded, torch.float32)


def _cast(ev: Evaluator, ref: TensorRef, dtype: torch.dtype) -> TensorRef:
    result: TensorRef = tensors.call(ev, aten.to.dtype, [ref, SCALAR_TYPE[dtype], False, False, None])
    return result
