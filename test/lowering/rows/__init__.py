"""A row tests one lowering: the ops it covers, an eager function, and cases of inputs for it.

All cases of a row become one program, ``(function(*case) for case in cases)``, so a row costs one compilation.
The rows of a family stand in ``rows/<family>.py`` as a list ``ROWS``; ``test_rows.py`` runs all of them
and checks that they name every registered op.
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._inductor.inductor_prims  # registers torch.ops.prims.fma
from torch.utils import _pytree as pytree

SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    1e-8,
    -1e-8,
    1e30,
    -1e30,
    float("inf"),
    -float("inf"),
    float("nan"),
)


@dataclass(frozen=True)
class Sample:
    """Fresh random tensors from one seeded generator."""

    generator: torch.Generator

    def floats(
        self, *shape: int, dtype: torch.dtype = torch.float32, low: float = -3.0, high: float = 3.0
    ) -> torch.Tensor:
        values = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (values * (high - low) + low).to(dtype)

    def ints(self, *shape: int, dtype: torch.dtype = torch.int64, low: int = -9, high: int = 10) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=self.generator).to(dtype)

    def bools(self, *shape: int) -> torch.Tensor:
        return torch.randint(0, 2, shape, generator=self.generator).bool()

    def distinct(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Different values in random order, so that an order or an arg-extremum is unique."""
        count = 1
        for size in shape:
            count *= size
        return ((torch.randperm(count, generator=self.generator) - count // 2).to(dtype)).reshape(shape)

    def special(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Zeros of both signs, ties, tiny and huge numbers, infinities and NaN."""
        return torch.tensor(SPECIAL, dtype=dtype)

    def special_pairs(self, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
        """Every pair of special values, as a column and a row that broadcast."""
        values = self.special(dtype)
        return values[:, None], values[None, :]


Cases = list[tuple[Any, ...]]
Inputs = Callable[[Sample], Cases]


@dataclass(frozen=True)
class Row:
    """``ops`` are Torch dialect names without ``torch.``; the canonical program of the row must contain them.

    ``inputs(sample)`` gives the cases; what is not a tensor in a case is a constant of the program.
    ``dynamic(sample, n)`` gives one case whose sizes depend on ``n``: it is compiled once with unknown
    sizes and run for several ``n``. ``xfail`` is the reason why the row does not pass yet; one that passes
    all the same fails. ``slack`` is the absolute part of the correctness rule. ``folds`` says that the op
    becomes a constant or another op when its sizes are known, so that only the dynamic program contains it.
    ``refused`` names the importers that cannot take the program, each with the reason: they have to refuse it. All
    others have to bring it to one canonical form.
    """

    ops: tuple[str, ...]
    function: Callable[..., Any]
    inputs: Inputs
    id: str
    dynamic: Callable[[Sample, int], tuple[Any, ...]] | None = None
    xfail: str | None = None
    slack: float = 1e-5
    folds: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)


def row(
    ops: str | Sequence[str],
    function: Callable[..., Any],
    inputs: Inputs,
    *,
    id: str | None = None,
    dynamic: Callable[[Sample, int], tuple[Any, ...]] | None = None,
    xfail: str | None = None,
    slack: float = 1e-5,
    folds: bool = False,
    refused: Mapping[str, str] | None = None,
) -> Row:
    """A :class:`Row` whose ``id`` is the first op's name where none is given."""
    names = (ops,) if isinstance(ops, str) else tuple(ops)
    id = id or names[0].removeprefix("aten.")
    return Row(names, function, inputs, id, dynamic, xfail, slack, folds, refused or {})


class CasesModule(torch.nn.Module):
    """The program of a row: its function on each case; tensors are arguments in order, the rest constants."""

    def __init__(self, function: Callable[..., Any], cases: Cases) -> None:
        super().__init__()
        self.function = function
        self.layouts: list[list[tuple[bool, Any]]] = []
        self.arguments: list[torch.Tensor] = []
        for case in cases:
            leaves, self.spec = pytree.tree_flatten(case)
            self.layouts.append([(isinstance(leaf, torch.Tensor), leaf) for leaf in leaves])
            self.arguments += [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self.specs = [pytree.tree_structure(case) for case in cases]

    def forward(self, *tensors: torch.Tensor) -> list[Any]:
        remaining = iter(tensors)
        results = []
        for layout, spec in zip(self.layouts, self.specs, strict=True):
            leaves = [next(remaining) if is_tensor else leaf for is_tensor, leaf in layout]
            results.append(self.function(*pytree.tree_unflatten(leaves, spec)))
        return results


def sample(row: Row, seed: int) -> Sample:
    """The generator of a row's inputs: a seed of its own for each run of the tests."""
    return Sample(torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(row.id.encode())))


def all_rows() -> list[Row]:
    """The rows of every family file beside this one."""
    rows: list[Row] = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        rows += importlib.import_module(f"lowering.rows.{module.name}").ROWS
    return rows
