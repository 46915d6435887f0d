"""What a program asks about a tensor: sizes, dtype, device, its one element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.dialect.types import DTYPE_OF_SCALAR_TYPE, SCALAR_TYPE
from torch_tvm.importers.storages import TensorRef
from torch_tvm.importers.torchscript import tensors
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.values import ListValue, Scalar

aten = torch.ops.aten
Handler = Callable[[Evaluator, list[Any]], Any]


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


def _length(ev: Evaluator, args: list[Any]) -> Any:
    if args[0].meta.dim() == 0:
        raise ev.failure("len() of a 0-d tensor")
    return tensors.size(ev, args[0], 0)


def _count(ev: Evaluator, args: list[Any]) -> Any:
    total: Any = 1
    for axis in range(args[0].meta.dim()):
        total = ev.scalars.mul(tensors.size(ev, args[0], axis), total)
    return total


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


def _is_contiguous(ev: Evaluator, args: list[Any]) -> bool:
    _ask_for_dense(ev, args[0])
    return bool(args[0].meta.is_contiguous())


def _ask_for_dense(ev: Evaluator, ref: TensorRef) -> None:
    """The program asks for strides, which are known where arguments are contiguous."""
    if not isinstance(ref.storage, tensors.LiteralStorage):
        ev.recorder.aliasing.asks("dense")


def _requires_grad(ev: Evaluator, args: list[Any]) -> bool:
    """Weights do, whatever they say: modules take their fused inference paths only where nothing does."""
    return isinstance(args[0].storage, tensors.LiteralStorage) and args[0].meta.dtype.is_floating_point


def _dtype_test(read: Callable[[torch.dtype], bool]) -> Handler:
    def test(ev: Evaluator, args: list[Any]) -> bool:
        given = args[0]
        return read(given.meta.dtype if isinstance(given, TensorRef) else DTYPE_OF_SCALAR_TYPE[given])

    return test


HANDLERS: dict[str, Handler] = {
    "aten::size": _size,
    "aten::sym_size": _size,
    "aten::len": _length,
    "aten::numel": _count,
    "aten::sym_numel": _count,
    "aten::stride": _stride,
    "aten::equal": _equal,
    "aten::item": _item(None),
    "aten::Int": _item("int"),
    "aten::Float": _item("float"),
    "aten::Bool": _item("bool"),
    "aten::IntImplicit": _item("int"),
    "aten::FloatImplicit": _item("float"),
    "aten::ScalarImplicit": _item(None),
    "aten::Scalar": _item(None),
    "aten::is_nonzero": _item("bool"),
    "aten::dim": _attribute(lambda t: t.dim()),
    "aten::ndimension": _attribute(lambda t: t.dim()),
    "aten::element_size": _attribute(lambda t: t.element_size()),
    "aten::get_device": _attribute(lambda t: t.get_device()),
    "aten::is_floating_point": _dtype_test(lambda d: d.is_floating_point),
    "aten::is_complex": _dtype_test(lambda d: d.is_complex),
    "aten::is_signed": _dtype_test(lambda d: d.is_signed),
    "aten::is_same_size": lambda ev, args: tuple(args[0].meta.shape) == tuple(args[1].meta.shape),
    "aten::is_contiguous": _is_contiguous,
    "aten::is_conj": lambda ev, args: False,
    "aten::is_neg": lambda ev, args: False,
    "aten::is_inference": lambda ev, args: False,
    "aten::is_leaf": lambda ev, args: True,
    "prim::dtype": _attribute(lambda t: SCALAR_TYPE[t.dtype]),
    "prim::device": _attribute(lambda t: t.device),
    "prim::layout": lambda ev, args: 0,
    "prim::itemsize": _attribute(lambda t: t.element_size()),
    "prim::requires_grad": _requires_grad,
    **{
        f"prim::is_{name}": _attribute(lambda t: False)
        for name in (
            "cuda xpu sparse sparse_csr quantized meta mps mkldnn vulkan ipu xla nested mtia ort"
        ).split()
    },
    "prim::is_cpu": _attribute(lambda t: True),
}
