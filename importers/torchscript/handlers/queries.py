"""What a program asks about a tensor: sizes, dtype, device, its one element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.dialect.types import DTYPE_OF_SCALAR_TYPE, SCALAR_TYPE
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator, Handler
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import ListValue, Scalar

aten = torch.ops.aten


@handles("aten::size", "aten::sym_size", of_tensor=True)
def _size(ev: Evaluator, args: list[Any]) -> Any:
    ref = args[0]
    if len(args) == 1:
        return ListValue([tensors.size(ev, ref, axis) for axis in range(ref.meta.dim())])
    axis = args[1]
    if isinstance(axis, Scalar):
        raise ev.failure("the axis must be known at import", origin=axis.origin)
    rank = ref.meta.dim()
    if not -rank <= axis < rank:
        raise ev.failure(f"axis {axis} is out of range for a tensor of rank {rank}")
    return tensors.size(ev, ref, axis)


@handles("aten::len", of_tensor=True)
def _length(ev: Evaluator, args: list[Any]) -> Any:
    if args[0].meta.dim() == 0:
        raise ev.failure("len() of a 0-d tensor")
    return tensors.size(ev, args[0], 0)


@handles("aten::numel", "aten::sym_numel", of_tensor=True)
def _count(ev: Evaluator, args: list[Any]) -> Any:
    total: Any = 1
    for axis in range(args[0].meta.dim()):
        total = ev.scalars.mul(tensors.size(ev, args[0], axis), total)
    return total


@handles("aten::stride", of_tensor=True)
def _stride(ev: Evaluator, args: list[Any]) -> Any:
    strides = args[0].meta.stride()
    _ask_for_dense(ev, args[0])
    if not all(isinstance(stride, int) for stride in strides):
        raise ev.failure("the strides of a tensor with unknown sizes")
    return strides[args[1]] if len(args) > 1 else ListValue(list(strides))


def _item(kind: str | None) -> Handler:
    def item(ev: Evaluator, args: list[Any]) -> Any:
        return tensors.element(ev, args[0], kind)

    return item


@handles("aten::equal", of_tensor=True)
def _equal(ev: Evaluator, args: list[Any]) -> Any:
    a, b = args
    if a.meta.dim() != b.meta.dim():
        return False
    same: Any = True
    for axis in range(a.meta.dim()):
        x, y = tensors.size(ev, a, axis), tensors.size(ev, b, axis)
        if isinstance(x, int) and isinstance(y, int):
            if x != y:
                return False
        elif ev.scalars.binary("eq", x, y) is not True:
            raise ev.failure("torch.equal of tensors whose sizes may differ")
    equal = tensors.call(ev, aten.eq.Tensor, [a, b])
    same = tensors.call(ev, aten.all.default, [equal])
    return tensors.element(ev, same, "bool")


def _attribute(read: Callable[[torch.Tensor], Any]) -> Handler:
    return lambda ev, args: read(args[0].meta)


@handles("aten::storage_offset", of_tensor=True)
def _storage_offset(ev: Evaluator, args: list[Any]) -> Any:
    _ask_for_dense(ev, args[0], "whole")
    return args[0].meta.storage_offset()


@handles("aten::is_contiguous", of_tensor=True)
def _is_contiguous(ev: Evaluator, args: list[Any]) -> bool:
    _ask_for_dense(ev, args[0])
    return bool(args[0].meta.is_contiguous())


def _ask_for_dense(ev: Evaluator, ref: TensorRef, layout: str = "dense") -> None:
    """The program asks for strides, which are known where arguments are contiguous, or where a tensor starts."""
    if not isinstance(ref.storage, tensors.LiteralStorage):
        ev.recorder.strides.asks(layout)


@handles("prim::requires_grad", of_tensor=True)
def _requires_grad(ev: Evaluator, args: list[Any]) -> bool:
    """Weights do, whatever they say: modules take their fused inference paths only where nothing does."""
    return isinstance(args[0].storage, tensors.LiteralStorage) and args[0].meta.dtype.is_floating_point


def _dtype_test(read: Callable[[torch.dtype], bool]) -> Handler:
    def test(ev: Evaluator, args: list[Any]) -> bool:
        given = args[0]
        return read(given.meta.dtype if isinstance(given, TensorRef) else DTYPE_OF_SCALAR_TYPE[given])

    return test


handles("aten::item", "aten::ScalarImplicit", "aten::Scalar", of_tensor=True)(_item(None))
handles("aten::Int", "aten::IntImplicit", of_tensor=True)(_item("int"))
handles("aten::Float", "aten::FloatImplicit", of_tensor=True)(_item("float"))
handles("aten::Bool", "aten::is_nonzero", of_tensor=True)(_item("bool"))
handles("aten::dim", "aten::ndimension", of_tensor=True)(_attribute(lambda t: t.dim()))
handles("aten::element_size", "prim::itemsize", of_tensor=True)(_attribute(lambda t: t.element_size()))
handles("aten::get_device", of_tensor=True)(_attribute(lambda t: t.get_device()))
handles("aten::is_floating_point", of_tensor=True)(_dtype_test(lambda d: d.is_floating_point))
handles("aten::is_complex", of_tensor=True)(_dtype_test(lambda d: d.is_complex))
handles("aten::is_signed", of_tensor=True)(_dtype_test(lambda d: d.is_signed))
handles("aten::is_same_size", of_tensor=True)(lambda ev, args: tuple(args[0].meta.shape) == tuple(args[1].meta.shape))
handles("aten::is_conj", "aten::is_neg", "aten::is_inference", of_tensor=True)(lambda ev, args: False)
handles("aten::is_leaf", of_tensor=True)(lambda ev, args: True)
handles("prim::dtype", of_tensor=True)(_attribute(lambda t: SCALAR_TYPE[t.dtype]))
handles("prim::device", of_tensor=True)(_attribute(lambda t: t.device))
handles("prim::layout", of_tensor=True)(lambda ev, args: 0)
_ELSEWHERE = "cuda xpu sparse sparse_csr quantized meta mps mkldnn vulkan ipu xla mtia ort"
handles(*(f"prim::is_{name}" for name in _ELSEWHERE.split()), of_tensor=True)(_attribute(lambda t: False))
handles("prim::is_cpu", of_tensor=True)(_attribute(lambda t: True))
