"""The program of an import, and the assumptions that earlier attempts to import it led to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Program:
    """What is imported: a graph, its schema arguments, and the object that it belongs to."""

    graph: Any
    schema: Any
    owner: Any = None
    keep: Any = None
    importer: str = "torchscript"
    name: str = "forward"


HINTS = (12, 80640, 2)
"""Sizes that fit each other; a large one that windows, heads and factors divide, 256 * 9 * 5 * 7; and a small one."""


@dataclass
class Assumptions:
    """What an earlier attempt found out: arguments to fix, number attributes that change, sizes to tie.

    ``owners`` are tensors by the address of memory that several share. ``state`` are attributes that others change.
    ``hints`` are what is left to try for all unknown sizes alike; without a ``hint``, each has one of its own.
    ``sizes`` are examples of single sizes, by argument and axis, that fit an op, ``asked`` those of them that a
    tensor of known sizes asks for; ``known_sizes`` are those that have to be one number.
    """

    state: frozenset[str] = frozenset()
    constants: set[int] = field(default_factory=set)
    numbers: dict[str, Any] = field(default_factory=dict)
    owners: dict[int, tuple[str, torch.Tensor]] = field(default_factory=dict)
    hint: int | None = None
    hints: list[int] = field(default_factory=lambda: list(HINTS))
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    asked: set[tuple[int, int]] = field(default_factory=set)
    known_sizes: dict[tuple[int, int], int] = field(default_factory=dict)
