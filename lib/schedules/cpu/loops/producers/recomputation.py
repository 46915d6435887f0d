"""What a kernel stores although it could be computed where it is read: it would be computed there again and again.

Of eight steps ``y = y * .5 + roll(y) * .5`` the first is read at 256 places, if none of them is stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import sym, tirx
from tvm.ir import TensorLoad, Var

from torch_tvm.schedules.cpu.loops.program import CALL_COST, Stage, is_expensive, weight
from torch_tvm.tir import substitute

MOST_AGAIN = 16
"""Operations, of a value and of what it is made of, that may be done again for the sake of not storing it."""

Scope = tuple[int, ...]
"""The branches around a place, outermost first: what is computed in one is not there outside of it."""


@dataclass(frozen=True)
class _Place:
    """Where a value is read: the stored stage it is computed for, the branches of that, and its indices."""

    root: int
    scope: Scope
    indices: tuple[tirx.Expr, ...]


class _Places:
    """The different places at which one value is computed."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, tuple[int, ...]], list[_Place]] = {}

    def add(self, place: _Place) -> None:
        key = (place.root, tuple(tvm_ffi.structural_hash(index) for index in place.indices))
        same = self.found.setdefault(key, [])
        if not any(other.scope == place.scope[: len(other.scope)] for other in same):
            same.append(place)

    def __iter__(self) -> Iterator[_Place]:
        return itertools.chain.from_iterable(self.found.values())

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))


def worth_storing(stages: Sequence[Stage], inlined: dict[tirx.Buffer, Stage]) -> set[tirx.Buffer]:
    """Those of ``inlined`` whose value would be computed at too many places of the stages that read them.

    It goes from the last stage to the first, so it knows the places where a stage is computed when it comes to what
    that stage reads.
    """
    costs = _Costs(stages, inlined)
    places = {buffer: _Places() for buffer in inlined}
    branches = itertools.count()
    stored: set[tirx.Buffer] = set()
    for number, stage in reversed(list(enumerate(stages))):
        reads = [(load, scope) for load, scope in _scoped_loads(stage, branches) if load.source in inlined]
        buffer = stage.buffers[0]
        mine: list[_Place] = list(places.get(buffer, ()))
        if len(mine) > 1 and (len(mine) - 1) * costs.of(buffer) > MOST_AGAIN:
            stored.add(buffer)
        if buffer in stored or buffer not in inlined:
            mine = [_Place(number, (), tuple(stage.indices[0]))]
        for place in mine:
            for load, scope in reads:
                indices = _composed(load, stage, place)
                places[load.source].add(_Place(place.root, place.scope + scope, indices))
    return stored


class _Costs:
    """How many operations a value takes, with those that it is made of, each counted once."""

    def __init__(self, stages: Sequence[Stage], inlined: dict[tirx.Buffer, Stage]) -> None:
        self.own: list[int] = []
        self.cones: dict[tirx.Buffer, int] = {}
        for stage in stages:
            buffer = stage.buffers[0]
            if buffer not in inlined:
                continue
            cone = 1 << len(self.own)
            self.own.append(sum(work(value) for value in stage.values))
            for load, _ in _scoped_loads(stage, itertools.count()):
                cone |= self.cones.get(load.source, 0)
            self.cones[buffer] = cone

    def of(self, buffer: tirx.Buffer) -> int:
        cone = self.cones[buffer]
        return sum(own for bit, own in enumerate(self.own) if cone >> bit & 1)


def work(value: tirx.Expr) -> int:
    """Elementary operations of one value; a transcendental function counts as the polynomial that it is."""
    return weight(value) + CALL_COST * is_expensive(value)


def _composed(load: TensorLoad, stage: Stage, place: _Place) -> tuple[tirx.Expr, ...]:
    """The indices of ``load`` where ``stage`` is computed at ``place``."""
    own = stage.indices[0]
    if len(own) == len(load.indices) and all(a.same_as(b) for a, b in zip(load.indices, own, strict=True)):
        return place.indices
    mapping = {var: at for var, at in zip(own, place.indices, strict=True) if isinstance(var, Var)}
    analyzer = sym.Analyzer()
    return tuple(
        index if isinstance(index, tirx.IntImm) else analyzer.simplify(substitute(index, mapping))
        for index in load.indices
    )


def _scoped_loads(stage: Stage, branches: Iterator[int]) -> list[tuple[TensorLoad, Scope]]:
    """Every load of ``stage`` with the branches around it, numbered by ``branches``."""
    found: list[tuple[TensorLoad, Scope]] = []

    def collect(expr: tirx.Expr, scope: Scope) -> None:
        def load(node: TensorLoad) -> None:
            found.append((node, scope))

        def call(node: tvm.ir.Call) -> Any:
            if getattr(node.op, "name", "") != "prim.if_then_else":
                return tvm_ffi.WalkResult.ADVANCE
            collect(node.args[0], scope)
            for branch in node.args[1:]:
                collect(branch, (*scope, next(branches)))
            return tvm_ffi.WalkResult.SKIP

        tvm_ffi.structural_walk(expr, [(TensorLoad, load), (tvm.ir.Call, call)], order="pre")

    for value in stage.values:
        collect(value, ())
    return found
