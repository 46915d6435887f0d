"""The registry of op lowerings and the contract between one and its operands.

A lowering is a function of a :class:`~torch_tvm.lowering.builder.Builder` and the op's operands in order.
The annotation of a parameter says what it may be bound to:

========================  ======================================================================
``Tensor``                a Relax expression of tensor type
``float int bool str``    a compile-time constant
``Number``                a compile-time ``int``, ``float`` or ``bool``
``Size``                  a constant or symbolic integer; one computed at run time becomes a symbol
``DType``                 a Relax dtype such as ``"float32"``, from the integer in the schema
``Complex``               the :class:`Parts` of a complex tensor, or of a real one or a number as such
``Any``                   whatever the operand is (also a run-time scalar: a 0-d Relax expression)
``list[X]``               a list of these
``X | None``              the same, or ``None`` for ``torch.constant.none``
========================  ======================================================================

An operand that does not fit is a refusal: the op then runs in ATen, or is an error.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from torch_tvm.dialect.mlir import new_context
from torch_tvm.dialect.types import DTYPE_OF_SCALAR_TYPE
from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor
from torch_tvm.support.errors import InvalidInput, Refusal
from torch_tvm.tir import as_size

if TYPE_CHECKING:
    Tensor: TypeAlias = Any
    Number: TypeAlias = float
    Size: TypeAlias = Any
    DType: TypeAlias = str
    Complex: TypeAlias = "Parts"
else:

    class Tensor:
        """Annotation: a Relax expression whose type is ``relax.TensorType``."""

    class Number:
        """Annotation: a compile-time Python number."""

    class Size:
        """Annotation: a compile-time integer or a symbolic one."""

    class DType:
        """Annotation: a dtype operand, given as the Relax dtype string."""

    class Complex:
        """Annotation: the parts of a complex tensor; numbers and real tensors have an imaginary part of 0."""


RELAX_DTYPE = {
    "torch.float32": "float32",
    "torch.float64": "float64",
    "torch.float16": "float16",
    "torch.bfloat16": "bfloat16",
    "torch.int8": "int8",
    "torch.int16": "int16",
    "torch.int32": "int32",
    "torch.int64": "int64",
    "torch.uint8": "uint8",
    "torch.bool": "bool",
}

Lowering = Callable[..., Any]
F = TypeVar("F", bound=Lowering)


@dataclass(frozen=True)
class Parts:
    """The real and the imaginary part of a complex tensor, each a real tensor or a number."""

    re: Any
    im: Any


@dataclass(frozen=True)
class Entry:
    """A registered lowering: ``function(builder, *operands)``."""

    name: str
    function: Lowering
    parameters: tuple[tuple[str, Any], ...]


LOWERINGS: dict[str, Entry] = {}
COMPLEX: dict[str, Entry] = {}
"""Lowerings for ops with a complex operand or result."""

_dialect: list[Any] = []


def lowers(*names: str) -> Callable[[F], F]:
    """Register a lowering for Torch dialect ops; ``custom=True`` names are registered by ``register``."""

    def decorate(function: F) -> F:
        for name in names:
            register(name, function)
        return function

    return decorate


def register(name: str, function: Lowering, *, custom: bool = False) -> None:
    """Add one entry. A name that is no Torch dialect op, or is registered twice, raises ``ValueError``."""
    if not custom and not _is_dialect_op(name):
        raise ValueError(f"{_place(function)}: '{name}' is not an op of the Torch dialect")
    _add(LOWERINGS, name, function)


def lowers_complex(*names: str) -> Callable[[F], F]:
    """Register what is done where an operand or a result of an op is complex; names need not be in the dialect."""

    def decorate(function: F) -> F:
        for name in names:
            _add(COMPLEX, name, function)
        return function

    return decorate


def _add(table: dict[str, Entry], name: str, function: Lowering) -> None:
    if name in table:
        raise ValueError(f"'{name}' is lowered twice: at {_place(table[name].function)} and at {_place(function)}")
    table[name] = _entry(name, function)


def own_entry(name: str, function: Lowering) -> Entry:
    """A lowering that is asked before the registered one; raises :class:`InvalidInput` where there is none."""
    if name not in LOWERINGS:
        raise InvalidInput(
            f"'{name.removeprefix('torch.')}' has no built-in lowering",
            subject="options['lowerings']",
            advice="register one with torch_tvm.register_lowering",
        )
    return _entry(name, function)


def _entry(name: str, function: Lowering) -> Entry:
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)[1:]
    return Entry(name, function, tuple((p, hints.get(p, Any)) for p in parameters))


def _place(function: Lowering) -> str:
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _is_dialect_op(name: str) -> bool:
    if not _dialect:
        _dialect.append(new_context())
    return bool(_dialect[0].is_registered_operation(name))


def bind(entry: Entry, operands: list[Any], builder: Builder | None = None) -> list[Any]:
    """Check the operands against the annotations; a mismatch raises :class:`Refusal` naming the operand.

    Integers that the program computes become symbols where ``Size`` asks for one and a builder is given.
    """
    if len(operands) != len(entry.parameters):
        raise Refusal(f"takes {len(entry.parameters)} operands, got {len(operands)}")
    bound = [_bound(name, hint, value) for (name, hint), value in zip(entry.parameters, operands, strict=True)]
    if builder is None:
        return bound
    return [_sized(builder, p, value) for p, value in zip(entry.parameters, bound, strict=True)]


_EXTENTS = {"size", "shape", "repeats", "dims", "split_sizes", "output_size", "n", "m", "length"}


def _sized(b: Builder, parameter: tuple[str, Any], value: Any) -> Any:
    """A run-time integer for ``Size`` as a symbol; one that is an extent is checked to be no negative number."""
    name, hint = parameter
    if isinstance(value, list):
        members = typing.get_args(hint) or (hint,)
        return [_sized(b, (name, member), item) for member in members[:1] for item in value]
    if not is_tensor(value) or hint is Tensor or not _admits_size(hint):
        return value
    size = b.size(value)
    if name in _EXTENTS:
        b.check(as_size(size) >= 0, f"'{name}' must not be negative")
    return size


def _admits_size(hint: Any) -> bool:
    return hint is Size or Size in typing.get_args(hint)


def _bound(name: str, hint: Any, value: Any) -> Any:
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        members = typing.get_args(hint)
        if value is None and type(None) in members:
            return None
        reasons = []
        for member in members:
            if member is type(None):
                continue
            try:
                return _bound(name, member, value)
            except Refusal as refusal:
                reasons.append(refusal.reason)
        raise Refusal(reasons[-1])
    if origin is list:
        if not isinstance(value, list):
            raise Refusal(f"operand '{name}' must be a compile-time list")
        return [_bound(name, typing.get_args(hint)[0], item) for item in value]
    return _bound_scalar(name, hint, value)


def _bound_scalar(name: str, hint: Any, value: Any) -> Any:
    if hint is Tensor:
        if is_tensor(value):
            return value
        raise Refusal(f"operand '{name}' must be a tensor")
    if hint is Complex:
        return _as_parts(name, value)
    if hint is Size:
        if type(value) is int or is_symbolic(value) or _is_run_time_integer(value):
            return value
        raise Refusal(f"operand '{name}' must be an integer")
    if hint is Number:
        if isinstance(value, (bool, int, float)):
            return value
        raise Refusal(f"operand '{name}' must be a compile-time constant number")
    if hint is DType:
        return _relax_dtype(name, value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if type(value) is hint:
        return value
    raise Refusal(f"operand '{name}' must be a compile-time constant {getattr(hint, '__name__', hint)}")


def _as_parts(name: str, value: Any) -> Parts:
    if isinstance(value, Parts):
        return value
    if is_tensor(value) or isinstance(value, (bool, int, float)):
        return Parts(value, 0)
    if isinstance(value, complex):
        return Parts(value.real, value.imag)
    raise Refusal(f"operand '{name}' must be a complex tensor or a number")


def _is_run_time_integer(value: Any) -> bool:
    return is_tensor(value) and int(value.ty.ndim) == 0 and str(value.ty.dtype).startswith("int")


def _relax_dtype(name: str, value: Any) -> str:
    if type(value) is int and value in DTYPE_OF_SCALAR_TYPE:
        dtype = RELAX_DTYPE.get(str(DTYPE_OF_SCALAR_TYPE[value]))
        if dtype is not None:
            return dtype
    raise Refusal(f"operand '{name}' must be a dtype that TVM has")
