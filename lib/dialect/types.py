"""Torch dialect types: tensors with shape and dtype, scalars, lists; and torch's dtypes beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.support.errors import ImportFailed, InvalidInput

_Form = TypeVar("_Form")


class _Forms(dict[torch.dtype, _Form]):
    """What the dialect calls a dtype; for those that it does not have, :class:`ImportFailed`."""

    def __missing__(self, dtype: torch.dtype) -> _Form:
        raise without_form(f"a tensor of {str(dtype).removeprefix('torch.')}")


def without_form(what: str) -> ImportFailed:
    """The error for a kind of tensor that compiled code does not have."""
    return ImportFailed(
        f"{what} has no form in compiled code",
        advice="convert it before and after the compiled part, or leave this part to PyTorch",
    )


DTYPE_TEXT: dict[torch.dtype, str] = _Forms[str](
    {
        torch.float32: "f32",
        torch.float64: "f64",
        torch.float16: "f16",
        torch.bfloat16: "bf16",
        torch.int8: "si8",
        torch.int16: "si16",
        torch.int32: "si32",
        torch.int64: "si64",
        torch.uint8: "ui8",
        torch.bool: "i1",
        torch.complex32: "complex<f16>",
        torch.complex64: "complex<f32>",
        torch.complex128: "complex<f64>",
        torch.float8_e4m3fn: "f8E4M3FN",
        torch.float8_e5m2: "f8E5M2",
        torch.qint8: "!torch.qint8",
        torch.quint8: "!torch.quint8",
    }
)
TEXT_DTYPE = {text: dtype for dtype, text in DTYPE_TEXT.items()}

# c10::ScalarType, the integer by which ATen schemas name a dtype.
SCALAR_TYPE: dict[torch.dtype, int] = _Forms[int](
    {
        torch.uint8: 0,
        torch.int8: 1,
        torch.int16: 2,
        torch.int32: 3,
        torch.int64: 4,
        torch.float16: 5,
        torch.float32: 6,
        torch.float64: 7,
        torch.complex32: 8,
        torch.complex64: 9,
        torch.complex128: 10,
        torch.bool: 11,
        torch.qint8: 12,
        torch.quint8: 13,
        torch.bfloat16: 15,
        torch.float8_e5m2: 23,
        torch.float8_e4m3fn: 24,
    }
)
DTYPE_OF_SCALAR_TYPE = {code: dtype for dtype, code in SCALAR_TYPE.items()}


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of a ``!torch.vtensor``; a ``None`` size is unknown, a ``None`` shape an unknown rank."""

    shape: tuple[int | None, ...] | None
    dtype: torch.dtype | None

    def __str__(self) -> str:
        if self.shape is None and self.dtype is None:
            return "!torch.vtensor"
        sizes = "*" if self.shape is None else f"[{','.join('?' if s is None else str(s) for s in self.shape)}]"
        return f"!torch.vtensor<{sizes},{DTYPE_TEXT[self.dtype] if self.dtype is not None else 'unk'}>"


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor argument will look like, for TorchScript; a ``None`` size is unknown.

    Raises :class:`InvalidInput` for what is no size or no dtype.

    >>> import torch, torch_tvm
    >>> rows = torch_tvm.TensorSpec((None, 3), torch.float32)
    >>> compiled = torch_tvm.compile(torch.jit.script(torch.nn.ReLU()), (rows,))
    >>> compiled(torch.ones(2, 3)).shape, compiled(torch.ones(5, 3)).shape
    (torch.Size([2, 3]), torch.Size([5, 3]))
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not isinstance(self.shape, (tuple, list)):
            raise _no_spec(f"expected a tuple of sizes, got {self.shape!r}")
        object.__setattr__(self, "shape", tuple(self.shape))
        for size in self.shape:
            if size is not None and (type(size) is not int or size < 0):
                raise _no_spec(f"{size!r} is no size")
        if not isinstance(self.dtype, torch.dtype):
            raise _no_spec(f"expected a torch.dtype, got {self.dtype!r}")


def _no_spec(problem: str) -> InvalidInput:
    return InvalidInput(
        problem,
        subject="TensorSpec",
        advice="write TensorSpec((None, 3), torch.float32); None is an unknown size",
    )


def tensor_type_of(tensor: torch.Tensor) -> TensorType:
    """The type of a (fake) tensor; symbolic sizes are unknown ones.

    Raises :class:`ImportFailed` for one that is not an array of plain numbers.
    """
    if tensor.is_nested:
        raise without_form("a nested tensor")
    if tensor.layout != torch.strided:
        raise without_form(f"a tensor of layout {str(tensor.layout).removeprefix('torch.')}")
    shape = tuple(size if isinstance(size, int) else _known_size(size) for size in tensor.shape)
    return TensorType(shape, tensor.dtype)


def is_array(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in memory: it is not nested, sparse, quantised, a wrapper, or freed."""
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ or tensor.is_nested:
        return False
    if tensor.layout != torch.strided or tensor.is_quantized:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor) and (
        tensor.numel() == 0 or tensor.data_ptr() != 0
    )


def _known_size(size: torch.SymInt) -> int | None:
    node = size.node
    return int(node.maybe_as_int()) if node.maybe_as_int() is not None else None


@lru_cache(maxsize=4096)
def _parse_tensor_type(text: str) -> TensorType | None:
    for head in ("!torch.vtensor", "!torch.tensor"):
        if text == head:
            return TensorType(None, None)
        if text.startswith(head + "<"):
            body = text[len(head) + 1 : -1]
            break
    else:
        return None
    if body.startswith("*"):
        sizes, rest = None, body[2:]
    else:
        end = body.index("]")
        inner = body[1:end]
        sizes = tuple(None if s == "?" else int(s) for s in inner.split(",")) if inner else ()
        rest = body[end + 2 :]
    return TensorType(sizes, TEXT_DTYPE.get(rest.split(",#")[0]))


def parse_tensor_type(mlir_type: ir.Type) -> TensorType | None:
    """The tensor type behind an MLIR type, ``None`` for anything that is not a tensor."""
    return _parse_tensor_type(str(mlir_type))


def is_value_tensor(mlir_type: ir.Type) -> bool:
    return str(mlir_type).startswith("!torch.vtensor")


class TypeTable:
    """MLIR types of one context, parsed once each."""

    def __init__(self, context: ir.Context) -> None:
        self.context = context
        self._types: dict[str, ir.Type] = {}

    def parse(self, text: str) -> ir.Type:
        found = self._types.get(text)
        if found is None:
            found = self._types[text] = ir.Type.parse(text, self.context)
        return found

    def tensor(self, tensor: torch.Tensor | TensorType) -> ir.Type:
        return self.parse(str(tensor if isinstance(tensor, TensorType) else tensor_type_of(tensor)))

    def list_of(self, element: ir.Type) -> ir.Type:
        return self.parse(f"!torch.list<{strip_prefix(element)}>")


def strip_prefix(mlir_type: ir.Type) -> str:
    """Inside ``!torch.list<…>`` the dialect spells its own types without ``!torch.``."""
    return str(mlir_type).removeprefix("!torch.")
