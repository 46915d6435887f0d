"""What a TorchScript value is while the importer evaluates the program.

Known values are plain Python objects. ``TensorRef`` (from the recorder) is a tensor, ``Scalar`` a number that
only exists at run time. Containers are shared by reference and journalled, so that what one branch of a
run-time ``if`` did to them can be undone and joined with what the other did.
"""

from __future__ import annotations

import itertools
import re
from collections import namedtuple
from functools import lru_cache
from typing import Any

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.storages import TensorRef

_serial = itertools.count()


def next_serial() -> int:
    """A number greater than the serial of every container so far."""
    return next(_serial)


class Uninitialized:
    """The value on a path that never reads it (``prim::Uninitialized``)."""

    def __repr__(self) -> str:
        return "<uninitialized>"


UNINITIALIZED = Uninitialized()


class Scalar:
    """A run-time ``int``, ``float`` or ``bool``.

    ``fake`` is a ``SymInt`` for an ``int`` (used in shapes) and unused otherwise; ``origin`` holds the flat
    positions of the user's arguments that it was computed from.
    """

    __slots__ = ("fake", "kind", "origin", "value")

    def __init__(self, kind: str, value: ir.Value, fake: Any = None, origin: frozenset[int] = frozenset()) -> None:
        self.kind = kind
        self.value = value
        self.fake = fake
        self.origin = origin


RUNTIME_TEXT = "<value>"
"""Text, never empty, that only run time knows."""


class RuntimeText(str):
    """A message with run-time values in it, printed as :data:`RUNTIME_TEXT`, or one of two messages.

    Only error messages may use it, and the question whether there is a message.
    """

    __slots__ = ("refusal",)
    refusal: Exception | None

    def __new__(cls, text: str, refusal: Exception | None = None) -> RuntimeText:
        """``refusal`` is the error for whoever returns the text."""
        made = super().__new__(cls, text)
        made.refusal = refusal
        return made


class Maybe:
    """An optional that only run time decides: ``value`` is meaningful where ``flag`` is true."""

    __slots__ = ("flag", "value")

    def __init__(self, flag: Any, value: Any) -> None:
        self.flag = flag
        self.value = value

    def children(self) -> list[Any]:
        return [self.flag, self.value]

    def rebuild(self, parts: list[Any]) -> Any:
        """The value or ``None`` where the flag is known by now."""
        flag, value = parts
        return Maybe(flag, value) if isinstance(flag, Scalar) else (value if flag else None)


def maybe_parts(value: Any) -> tuple[Any, Any]:
    """Presence and value of an optional, however it is known."""
    if isinstance(value, Maybe):
        return value.flag, value.value
    if value is None or value is UNINITIALIZED:
        return (False if value is None else UNINITIALIZED), UNINITIALIZED
    return True, value


class Container:
    """A mutable object of the program; ``serial`` orders them by creation.

    Its one child is what it holds: a list, a dict or a :class:`Stack`.
    """

    __slots__ = ("serial",)

    def __init__(self) -> None:
        self.serial = next_serial()

    def snapshot(self) -> Any:
        raise NotImplementedError

    def restore(self, contents: Any) -> None:
        raise NotImplementedError

    def children(self) -> list[Any]:
        raise NotImplementedError

    def rebuild(self, parts: list[Any]) -> Container:
        raise NotImplementedError


class Stack:
    """The elements of a list whose length is only known at run time, stacked along axis 0.

    ``kind`` is ``tensor``, ``int``, ``float`` or ``bool``: what one element is.
    """

    __slots__ = ("kind", "tensor")

    def __init__(self, kind: str, tensor: TensorRef) -> None:
        self.kind = kind
        self.tensor = tensor

    def children(self) -> list[Any]:
        return [self.tensor]

    def rebuild(self, parts: list[Any]) -> Stack:
        return Stack(self.kind, parts[0])


class ListValue(Container):
    """A TorchScript list: ``items``, or a :class:`Stack` once its length is a run-time number."""

    __slots__ = ("items", "type")

    def __init__(self, items: list[Any] | Stack | Any, type: Any = None) -> None:
        super().__init__()
        self.items = items
        self.type = type

    def snapshot(self) -> Any:
        return self.items if isinstance(self.items, Stack) else tuple(self.items)

    def restore(self, contents: Any) -> None:
        self.items = contents if isinstance(contents, Stack) else list(contents)

    def children(self) -> list[Any]:
        return [self.items]

    def rebuild(self, parts: list[Any]) -> ListValue:
        return ListValue(parts[0], self.type)


class DictValue(Container):
    """A TorchScript dict with known keys."""

    __slots__ = ("entries", "type")

    def __init__(self, entries: dict[Any, Any], type: Any = None) -> None:
        super().__init__()
        self.entries = entries
        self.type = type

    def snapshot(self) -> Any:
        return dict(self.entries)

    def restore(self, contents: Any) -> None:
        self.entries = dict(contents)

    def children(self) -> list[Any]:
        return [self.entries]

    def rebuild(self, parts: list[Any]) -> DictValue:
        return DictValue(parts[0], self.type)


class ObjectValue(Container):
    """An object: of a script class when ``source`` is ``None``, else the module or object ``source``.

    ``attributes`` holds what was read or set so far; ``path`` is its name in the program (``layers.0``).
    """

    __slots__ = ("attributes", "path", "source", "type")

    def __init__(self, type: Any, source: Any = None, path: str = "") -> None:
        super().__init__()
        self.type = type
        self.source = source
        self.path = path
        self.attributes: dict[str, Any] = {}

    def snapshot(self) -> Any:
        return dict(self.attributes)

    def restore(self, contents: Any) -> None:
        self.attributes = dict(contents)

    def children(self) -> list[Any]:
        """None of a module's: it is the same object on every path."""
        return [self.attributes] if self.source is None else []

    def rebuild(self, parts: list[Any]) -> ObjectValue:
        made = ObjectValue(self.type)
        made.attributes = parts[0]
        return made


class FunctionValue:
    """A free function of the program."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, type: Any) -> None:
        self.name = name
        self.type = type


class FutureValue:
    """The result of ``torch.jit.fork``, computed at once."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class QuantizedValue:
    """A tensor that the program quantises: its elements as integers, and what these stand for."""

    __slots__ = ("elements", "scale", "zero_point")

    def __init__(self, elements: TensorRef, scale: float, zero_point: int) -> None:
        self.elements = elements
        self.scale = scale
        self.zero_point = zero_point


class NestedTensor(TensorRef):
    """A tensor (N, L, E) of which the rows that ``padding`` (N, L) names do not count: PyTorch has
    a nested one for it.
    """

    __slots__ = ("padding",)

    def __init__(self, rows: TensorRef, padding: TensorRef) -> None:
        super().__init__(rows.place)
        self.padding = padding


class KnownTensor(TensorRef):
    """A small tensor whose elements are known at import: ``known`` until somebody writes to it."""

    __slots__ = ("_elements",)

    def __init__(self, base: TensorRef, elements: torch.Tensor) -> None:
        super().__init__(base.place)
        self._elements = elements

    @property
    def known(self) -> torch.Tensor | None:
        return self._elements if self.storage.version == 0 and self.place is self.made else None


class ScalarTensor(TensorRef):
    """A 0-d tensor made from a run-time number that is still at hand (``prim::NumToTensor``)."""

    __slots__ = ("_scalar",)

    def __init__(self, base: TensorRef, scalar: Scalar) -> None:
        super().__init__(base.place)
        self._scalar = scalar

    @property
    def scalar(self) -> Scalar | None:
        return self._scalar if self.storage.version == 0 and self.place is self.made else None


def children(value: Any) -> list[Any]:
    """The values that a structured value is made of; none of a leaf."""
    if isinstance(value, (tuple, list)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    return value.children() if isinstance(value, (Container, Maybe, Stack)) else []


def rebuild(value: Any, parts: list[Any]) -> Any:
    """A new value like ``value``, of other ``children``."""
    if isinstance(value, tuple):
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return parts
    if isinstance(value, dict):
        return dict(zip(value, parts, strict=True))
    return value.rebuild(parts)


def is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, Scalar))


def kind_of(value: Any) -> str | None:
    """``int``, ``float`` or ``bool`` of a known or run-time number, else ``None``."""
    if isinstance(value, Scalar):
        return value.kind
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else None


def origins(values: Any) -> frozenset[int]:
    """The user's arguments that the run-time numbers inside ``values`` came from."""
    if isinstance(values, Scalar):
        return values.origin
    if isinstance(values, ListValue):
        return origins(values.items) if isinstance(values.items, list) else frozenset()
    if isinstance(values, (list, tuple)):
        return frozenset().union(*(origins(value) for value in values))
    return frozenset()


@lru_cache(maxsize=256)
def named_tuple(name: str, fields: tuple[str, ...]) -> type:
    """One Python class per NamedTuple of the program, so that equal results have equal types."""
    return namedtuple(name, fields)


def tuple_class(type_text: str, annotation: str) -> type | None:
    """The class for a ``NamedTuple(a : Tensor, b : int)`` type, ``None`` for a plain tuple.

    What an op returns has fields but no name: TorchScript's own result is a plain tuple then.
    """
    name = annotation.split(".")[-1]
    if not type_text.startswith("NamedTuple(") or not name.isidentifier():
        return None
    fields, depth, start = [], 0, 0
    body = type_text[len("NamedTuple(") : -1]
    for index, char in enumerate(body + ","):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(char, 0)
        if char == "," and depth == 0:
            match = re.match(r"\s*(\w+)\s*:", body[start:index])
            if match:
                fields.append(match.group(1))
            start = index + 1
    return named_tuple(name, tuple(fields))
