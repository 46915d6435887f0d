"""The packed right operand of a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm.ir import Expr

from torch_tvm.tir import ceil_div
from torch_tvm.workloads.rearrangement import Rearrangement
from torch_tvm.workloads.workload import Workload


@dataclass(frozen=True)
class PackedWeight(Workload):
    """A matrix ``[K, N]`` in panels of ``width`` columns: ``[ceil(N / width), ceil(K / word), width * word]``.

    ``word`` elements of a column lie side by side, where the target multiplies so many at once. What follows the last
    element of a column is zero, what follows the last column is anything. Where it ``has_starts``, a panel ends with a
    row of what the sums of its columns start from. A product has it on its block.
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.packed_weight"

    depth: int
    columns: int
    width: int
    word: int = 1
    has_starts: bool = False

    @property
    def panels(self) -> int:
        return ceil_div(self.columns, self.width)

    @property
    def groups(self) -> int:
        """How many groups of ``word`` elements a column has."""
        return ceil_div(self.depth, self.word)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.panels, self.groups + self.has_starts, self.width * self.word)

    def place(self, k: Expr, n: Expr) -> tuple[Expr, ...]:
        """Where the element of row ``k`` and column ``n`` lies."""
        if self.word == 1:
            return n // self.width, k, n % self.width
        return n // self.width, k // self.word, n % self.width * self.word + k % self.word

    def packing(self, is_transposed: bool) -> Rearrangement:
        """From ``[N, K]`` (if ``is_transposed``) or ``[K, N]``; without the starts."""
        columns, depth = self.panels * self.width, self.groups * self.word
        if is_transposed:
            whole = Rearrangement().extend(0, columns).pad(1, depth)
            split = whole.reshape(self.panels, self.width, self.groups, self.word).permute(0, 2, 1, 3)
        else:
            whole = Rearrangement().pad(0, depth).extend(1, columns)
            split = whole.reshape(self.groups, self.word, self.panels, self.width).permute(2, 0, 3, 1)
        return split.reshape(self.panels, self.groups, self.width * self.word)
