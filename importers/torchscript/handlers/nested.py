"""The nested tensors that ``nn.TransformerEncoder`` makes of a padded one: rows of full length, and which of them
count.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import NestedTensor
from torch_tvm.importers.tracing.encoder_padding import hidden

aten = torch.ops.aten


@handles("aten::_nested_tensor_from_mask_left_aligned")
def _is_left_aligned(ev: Evaluator, args: list[Any]) -> bool:
    """Yes, for now: :func:`_padded` asks again, and without it nothing but the padding differs."""
    return True


@handles("aten::_nested_tensor_from_mask")
def _nested(ev: Evaluator, args: list[Any]) -> NestedTensor:
    """``aten::_nested_tensor_from_mask(Tensor t, Tensor mask, bool mask_check=True) -> Tensor``"""
    padding = tensors.call(ev, aten.logical_not.default, [args[1]])
    return NestedTensor(args[0], padding)


@handles("prim::is_nested", of_tensor=True)
def _is_nested(ev: Evaluator, args: list[Any]) -> bool:
    return isinstance(args[0], NestedTensor)


@handles("aten::_transformer_encoder_layer_fwd")
def _layer(ev: Evaluator, args: list[Any]) -> Any:
    x, *others, mask, _ = args
    if not isinstance(x, NestedTensor) or mask is not None:
        return tensors.call(ev, ev.overload, args)
    return NestedTensor(tensors.call(ev, ev.overload, [x, *others, x.padding, 1]), x.padding)


@handles("aten::to_padded_tensor")
def _padded(ev: Evaluator, args: list[Any]) -> TensorRef:
    """``aten::to_padded_tensor(Tensor self, float padding, SymInt[]? output_size=None) -> Tensor``"""
    x, value, _ = args
    if not isinstance(x, NestedTensor):
        raise ev.failure("expected a nested tensor that the program makes of a mask")
    call = lambda op, *operands: tensors.call(ev, op, list(operands))
    return call(aten.masked_fill.Scalar, x, hidden(call, x.padding), value)
