"""The calling convention of a compiled module, free of any compiler's types."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import dtype_name


@dataclass(frozen=True)
class SizeExpression:
    """A size that follows from symbols: ``left operation right``, where ``operation`` is a key of ``OPERATIONS``."""

    operation: str
    left: Size
    right: Size

    def __str__(self) -> str:
        text = f"{self.left} {self.operation} {self.right}"
        return text if self.operation == "*" else f"({text})"


Size = int | str | SizeExpression
"""A number, the name of a symbol, or an expression over both. A name may come from a file and is never code."""

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "*": operator.mul,
    "%": operator.mod,
    "//": operator.floordiv,
    "ceildiv": lambda left, right: -(-left // right),
    "-": operator.sub,
    "min": min,
    "max": max,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "and": lambda left, right: bool(left and right),
    "or": lambda left, right: bool(left or right),
}


def symbols_of(size: Size | None) -> list[str]:
    """The symbols that a size depends on, each once, in order."""
    if isinstance(size, SizeExpression):
        return list(dict.fromkeys([*symbols_of(size.left), *symbols_of(size.right)]))
    return [size] if isinstance(size, str) else []


def evaluate(size: Size, known: Mapping[str, int]) -> int | None:
    """The number that a size is where its symbols are ``known``; ``None`` for a division by zero."""
    if not isinstance(size, SizeExpression):
        return known[size] if isinstance(size, str) else size
    left, right = evaluate(size.left, known), evaluate(size.right, known)
    if left is None or right is None or (right == 0 and size.operation in ("%", "//", "ceildiv")):
        return None
    return OPERATIONS[size.operation](left, right)


@dataclass(frozen=True)
class Argument:
    """One argument of ``main``.

    ``kind`` is ``"tensor"``, or ``"int"``, ``"float"``, ``"bool"`` for a Python number, which travels as a
    0-d tensor. ``sizes`` are those of the torch tensor (a complex one travels with one more dimension, of 2).
    """

    name: str
    kind: str
    dtype: torch.dtype
    sizes: tuple[Size | None, ...] = ()

    def __str__(self) -> str:
        if self.kind != "tensor":
            return self.kind
        sizes = ", ".join("?" if size is None else str(size) for size in self.sizes)
        return f"{dtype_name(self.dtype)}[{sizes}]"


@dataclass(frozen=True)
class Requirement:
    """A condition on the sizes of a call, and what is wrong where it does not hold."""

    condition: Size
    message: str


@dataclass
class Convention:
    """How a Python call becomes arguments of ``main`` and its results a Python value.

    ``arguments`` are those of the user, in flat order; ``state`` the names of the tensors passed after them.
    ``results`` gives the torch dtype or, for a number, the kind of every user result of ``main``; the values
    after those are copied into the arguments that ``writes`` lists (indices count the state after the
    arguments). ``constants`` are flat positions of the user's arguments that are fixed; ``outputs`` gives per
    flat result ``None`` (the next result of ``main``) or ``(value,)``. ``ranges`` bounds a symbol, both ends
    included; ``requirements`` are what else the sizes must fulfil. ``layout`` is ``"dense"`` where the program gives
    other numbers for other strides, ``"whole"`` where it also reads memory around its arguments.
    """

    arguments: list[Argument]
    results: list[torch.dtype | str]
    in_spec: pytree.TreeSpec | None = None
    out_spec: pytree.TreeSpec | None = None
    state: list[str] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    constant_names: dict[int, str] = field(default_factory=dict)
    outputs: list[tuple[Any] | None] | None = None
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    requirements: list[Requirement] = field(default_factory=list)
    layout: str = ""


def describe_value(value: Any) -> str:
    """A value as an error message shows it: ``float32[2, 3]``, ``int 3``, ``list``."""
    if isinstance(value, torch.Tensor) and value.is_nested:
        return "a nested tensor"
    if isinstance(value, torch.Tensor):
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        layout = "" if value.layout == torch.strided else f" ({str(value.layout).removeprefix('torch.')})"
        return f"{dtype_name(value.dtype)}{list(value.shape)}{device}{layout}"
    if isinstance(value, (bool, int, float, str)) or value is None:
        return f"{type(value).__name__} {value!r}" if value is not None else "None"
    return type(value).__name__


__all__ = [
    "Argument",
    "Convention",
    "Requirement",
    "Size",
    "SizeExpression",
    "describe_value",
    "evaluate",
    "symbols_of",
]
