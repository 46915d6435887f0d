"""The third tier: an op without a lowering is one call into ATen, described by a text that travels with it.

The call is ``torch_tvm.aten(spec, tensors…)``. ``spec`` is JSON: the op's name, its operands (a constant, or
``{"tensor": i}`` for the i-th argument, ``{"scalar": i}`` for a 0-d argument read as a number, ``{"size": i}``
for an integer argument, a list of these), per result its dtype, and of a random op how its operands lie in memory.
Complex tensors travel as pairs of reals, with a last dimension of 2.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax

from torch_tvm.aten.calls import is_random
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import MEMORY_ORDER
from torch_tvm.dialect.types import parse_tensor_type
from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor
from torch_tvm.lowering.registry import RELAX_DTYPE
from torch_tvm.support.errors import InternalError, SourceLocation, UnsupportedOp
from torch_tvm.support.packed_functions import ATEN
from torch_tvm.tir import as_size

_COMPLEX = {torch.complex32: "float16", torch.complex64: "float32", torch.complex128: "float64"}


def has_kernel_form(dtype: torch.dtype) -> bool:
    """Whether compiled code can hold tensors of a dtype."""
    return dtype in _COMPLEX or str(dtype) in RELAX_DTYPE


def relax_tensor_type(dtype: torch.dtype, sizes: list[Any]) -> relax.TensorType:
    """The Relax type of a torch dtype; complex numbers are pairs of reals in a last dimension of 2."""
    sizes = [as_size(size) for size in sizes]
    if dtype in _COMPLEX:
        return relax.TensorType([*sizes, as_size(2)], _COMPLEX[dtype])
    name = RELAX_DTYPE.get(str(dtype))
    if name is None:
        raise UnsupportedOp(
            f"a tensor of {str(dtype).removeprefix('torch.')} has no form in compiled code",
            stage="lowering",
            advice="convert it before and after the compiled part, or leave this part to PyTorch",
        )
    return relax.TensorType(sizes, name)


def constant_tensor(value: torch.Tensor) -> relax.Expr:
    """A small literal as a Relax constant."""
    if value.dtype in _COMPLEX:
        value = torch.view_as_real(value)
    if value.dtype == torch.bfloat16:
        return relax.const(value.float().numpy(), "bfloat16")
    return relax.const(np.ascontiguousarray(value.numpy()).reshape(tuple(value.shape)), RELAX_DTYPE[str(value.dtype)])


@dataclass(frozen=True)
class Opaque:
    """A value that only ATen made and only ATen can read: a list of unknown length, an optional, a dict."""

    value: relax.Expr


def emit(
    b: Builder,
    admit: Callable[[str, SourceLocation], None],
    op: ir.Operation,
    name: str,
    operands: list[Any],
) -> Any:
    """One op as a call into ATen; returns its value, or a list of values.

    An op without results and one that draws random numbers are called in the program's own order, even where
    nobody uses what they give. ``admit`` raises for an op that may not run.
    """
    admit(name, b.location)
    arguments: list[Any] = []
    described = [
        _describe(operand, str(value.type), arguments) for operand, value in zip(operands, op.operands, strict=True)
    ]
    kinds = [_result_type(b, value) for value in op.results]
    spec = {
        "op": name,
        "operands": described,
        "results": [_result_text(value) for value in op.results],
        "location": dataclasses.asdict(b.location),
    }
    if MEMORY_ORDER in op.attributes:
        spec["memory orders"] = [list(ir.DenseI64ArrayAttr(item)) for item in op.attributes[MEMORY_ORDER]]
    text = tvm.ir.StringImm(json.dumps(spec))
    fields = [relax.TupleType([_erase(kind) for kind in kinds])]
    if is_random(name) or not kinds:
        b.has_effect()
        call: relax.Expr = relax.Call(relax.ExternFunc(ATEN), [text, *arguments], ty_args=fields)
    else:
        call = relax.op.call_pure_packed(ATEN, text, *arguments, ty_args=fields)
    value = b.bb.emit(call)
    results: list[relax.Var | Opaque] = []
    for index, kind in enumerate(kinds):
        item = b.bb.emit(relax.TupleGetItem(value, index))
        if not isinstance(kind, relax.TensorType):
            results.append(Opaque(item))
        else:  # what nobody reads may have another shape than PyTorch's meta kernel says: embedding_bag's extras
            results.append(b.bb.match_cast(item, kind) if view.is_used(op.results[index]) else item)
    return results[0] if len(results) == 1 else results


def _erase(kind: Any) -> Any:
    if not isinstance(kind, relax.TensorType):
        return kind
    return relax.TensorType(dtype=kind.dtype, ndim=len(kind.shape.values))


_SCALARS = {
    "!torch.int": "int64",
    "!torch.float": "float64",
    "!torch.bool": "bool",
    "!torch.number": "float64",
}


def _result_type(b: Builder, value: ir.Value) -> Any:
    tensor = parse_tensor_type(value.type)
    if tensor is None:
        dtype = _SCALARS.get(str(value.type))
        return relax.AnyType() if dtype is None else relax.TensorType([], dtype)
    if tensor.shape is None or tensor.dtype is None:
        raise InternalError("a result of unknown rank or dtype reached the lowering", stage="lowering")
    sizes = [b.found_size() if size is None else size for size in tensor.shape]
    return relax_tensor_type(tensor.dtype, sizes)


def _result_text(value: ir.Value) -> str:
    tensor = parse_tensor_type(value.type)
    return str(tensor.dtype) if tensor is not None else str(value.type)


def _describe(operand: Any, kind: str, arguments: list[Any]) -> Any:
    """An operand as JSON; tensors and sizes are appended to the arguments of the call."""
    if isinstance(operand, list):
        element = kind.removeprefix("!torch.list<").removesuffix(">")
        element = element if element.startswith("!") else f"!torch.{element}"
        return [_describe(item, element, arguments) for item in operand]
    if isinstance(operand, Opaque):
        arguments.append(operand.value)
        is_complex = kind.startswith("!torch.list<") and "complex<" in kind
        return {"complex objects" if is_complex else "object": len(arguments) - 1}
    if is_tensor(operand):
        arguments.append(operand)
        scalar = kind.removeprefix("!torch.optional<").removesuffix(">")
        if kind in _SCALARS or f"!torch.{scalar}" in _SCALARS:
            return {"scalar": len(arguments) - 1}
        return {"complex" if "complex<" in kind else "tensor": len(arguments) - 1}
    if is_symbolic(operand):
        arguments.append(operand)
        return {"size": len(arguments) - 1}
    if isinstance(operand, float) and not math.isfinite(operand):
        return {"float": repr(operand)}
    if isinstance(operand, complex):
        return {"complex number": repr(operand)}
    return operand
