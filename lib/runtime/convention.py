"""The calling convention of a compiled module, free of any compiler's types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

SCALAR_DTYPE = {"int": torch.int64, "float": torch.float64, "bool": torch.bool}

Size = int | str
"""A number, or a Python expression over the symbols of the function (``"s0"``, ``"2 * s0 + 1"``)."""


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
        return f"{describe_dtype(self.dtype)}[{sizes}]"


@dataclass
class Convention:
    """How a Python call becomes arguments of ``main`` and its results a Python value.

    ``arguments`` are those of the user, in flat order; ``state`` the names of the tensors passed after them.
    ``results`` gives the torch dtype or, for a number, the kind of every user result of ``main``; the values
    after those are copied into the arguments that ``writes`` lists (indices count the state after the
    arguments). ``constants`` are flat positions of the user's arguments that are fixed; ``outputs`` gives per
    flat result ``None`` (the next result of ``main``) or ``(value,)``. ``ranges`` bounds a symbol, both ends
    included.
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


def describe_dtype(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def describe_value(value: Any) -> str:
    """A value as an error message shows it: ``float32[2, 3]``, ``int 3``, ``list``."""
    if isinstance(value, torch.Tensor):
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        layout = "" if value.layout == torch.strided else f" ({str(value.layout).removeprefix('torch.')})"
        return f"{describe_dtype(value.dtype)}{list(value.shape)}{device}{layout}"
    if isinstance(value, (bool, int, float, str)) or value is None:
        return f"{type(value).__name__} {value!r}" if value is not None else "None"
    return type(value).__name__


__all__ = ["SCALAR_DTYPE", "Argument", "Convention", "Size", "describe_dtype", "describe_value"]
