"""The time loop of a recurrent layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir import SizeLike, ceil_div, const
from torch_tvm.workloads.rearrangement import Rearrangement
from torch_tvm.workloads.workload import Workload

T = TypeVar("T")


@dataclass(frozen=True)
class RecurrentWorkload(Workload):
    """One layer. Tensors in order: x gates ``[T, B, D · G · H]``, a state ``[layers · D, B, H]`` or two, weights
    ``[D, G · H, H]``, and where ``has_bias`` ``[D, G · H]``; results: output ``[T, B, D · H]``, last states
    ``[D, B, H]``.

    ``batch_first`` swaps T and B. The second of two directions runs backwards. ``layer`` says which states
    are its own. The bias is added to the products with the hidden state.
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.recurrent"

    cell: str
    gates: int
    states: int
    directions: int
    layer: int
    batch_first: bool
    has_bias: bool

    @property
    def first_slot(self) -> int:
        """The first of the layer's own initial states."""
        return self.layer * self.directions

    def split(self, tensors: Sequence[T]) -> tuple[T, Sequence[T], T, T | None]:
        """The operands: x gates, initial states, weights and bias."""
        bias = tensors[2 + self.states] if self.has_bias else None
        return tensors[0], tensors[1 : 1 + self.states], tensors[1 + self.states], bias


@dataclass(frozen=True)
class GatePanels:
    """Recurrent weights ``[D, G · H, H]`` as ``[D, ceil(H / width), H, G · width]``: panels of units with all their
    gates.

    A last panel that is not full moves back until it fits.
    """

    directions: int
    gates: int
    hidden: int
    width: int

    @property
    def panels(self) -> int:
        return ceil_div(self.hidden, self.width)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.directions, self.panels, self.hidden, self.gates * self.width)

    def packing(self) -> Rearrangement:
        return (
            Rearrangement()
            .reshape(self.directions, self.gates, self.hidden, self.hidden)
            .windows(2, self.width)
            .permute(0, 2, 4, 1, 3)
            .reshape(*self.shape)
        )

    def start(self, panel: SizeLike) -> Expr:
        """The first unit of a panel."""
        return tirx.min(panel * self.width, const(self.hidden - self.width))

    def place(self, d: Expr, row: Expr, k: Expr) -> list[Expr]:
        """Where the weight ``[d, row, k]`` lies."""
        gate, unit = row // self.hidden, row % self.hidden
        panel = tirx.min(unit // self.width, const(self.panels - 1))
        return [d, panel, k, gate * self.width + unit - self.start(panel)]


class Arithmetic(Protocol):
    """The functions that cells are made of; ``keep`` may give a value a place that it is read from again."""

    def keep(self, value: Expr) -> Expr: ...

    def sigmoid(self, value: Expr) -> Expr: ...

    def tanh(self, value: Expr) -> Expr: ...

    def zero(self) -> Expr: ...


def new_states(cell: str, a: Arithmetic, x: Sequence[Expr], h: Sequence[Expr], state: Sequence[Expr]) -> list[Expr]:
    """A step of ``cell``, from the gates of the input, those of the hidden state, and the states."""
    return _CELLS[cell](a, x, h, state)


def _lstm(a: Arithmetic, x: Sequence[Expr], h: Sequence[Expr], state: Sequence[Expr]) -> list[Expr]:
    enter, forget = a.sigmoid(x[0] + h[0]), a.sigmoid(x[1] + h[1])
    cell, leave = a.tanh(x[2] + h[2]), a.sigmoid(x[3] + h[3])
    memory = a.keep(forget * state[1] + enter * cell)
    return [a.keep(leave * a.tanh(memory)), memory]


def _gru(a: Arithmetic, x: Sequence[Expr], h: Sequence[Expr], state: Sequence[Expr]) -> list[Expr]:
    reset, update = a.sigmoid(x[0] + h[0]), a.sigmoid(x[1] + h[1])
    candidate = a.tanh(x[2] + reset * h[2])
    return [a.keep(candidate + update * (state[0] - candidate))]


def _rnn_tanh(a: Arithmetic, x: Sequence[Expr], h: Sequence[Expr], state: Sequence[Expr]) -> list[Expr]:
    return [a.tanh(x[0] + h[0])]


def _rnn_relu(a: Arithmetic, x: Sequence[Expr], h: Sequence[Expr], state: Sequence[Expr]) -> list[Expr]:
    return [a.keep(tirx.max(a.keep(x[0] + h[0]), a.zero()))]


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}
