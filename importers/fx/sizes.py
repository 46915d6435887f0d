"""The constraints of an exported graph on its dynamic sizes.

``torch.export`` takes no size for 0 or 1 while it traces (ours does: :mod:`.open_sizes`), yet lets a call have either,
and keeps what else it assumed as guards. Whether the graph is right for 0 and 1 is found out by trying its ops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch_tvm.importers.size_conditions import bound
from torch_tvm.importers.size_probe import Probe, hints
from torch_tvm.importers.symbols import Range

aten = torch.ops.aten
_NOT_SPECIALISED = 2


@dataclass
class GraphSizes:
    """Ranges of the symbols of a graph, and conditions that are no ranges, each with the op that has it."""

    ranges: dict[Any, Any] = field(default_factory=dict)
    conditions: list[tuple[Any, str]] = field(default_factory=list)

    def known(self) -> list[Any]:
        """The ranges as conditions."""
        return [
            condition
            for symbol, limits in self.ranges.items()
            if isinstance(symbol, sympy.Symbol)
            for condition in (sympy.Ge(symbol, limits.lower), sympy.Le(symbol, limits.upper))
        ]

    def add(self, condition: Any, reason: str) -> None:
        limits = bound(condition)
        if limits is None or limits[0] not in self.ranges:
            if (condition, reason) not in self.conditions:
                self.conditions.append((condition, reason))
            return
        symbol, low, high = limits
        known = self.ranges[symbol]
        upper = min(known.upper, high) if high >= 0 else known.upper
        self.ranges[symbol] = Range(max(known.lower, low), upper)


def graph_sizes(graph: Graph, ranges: Mapping[Any, Any]) -> GraphSizes:
    """The sizes that an exported graph takes, within the ``ranges`` of the export."""
    environment = _environment(graph)
    traced = environment.var_to_range if environment else {}
    lowest = {symbol: _lower(limits.lower, symbol, traced.get(symbol)) for symbol, limits in ranges.items()}
    found = GraphSizes({symbol: Range(lowest[symbol], limits.upper) for symbol, limits in ranges.items()})
    if environment is None:
        return found
    specialised = {symbol for symbol in ranges if _is_specialised(symbol, traced.get(symbol))}
    known = {**found.ranges, **{symbol: ranges[symbol] for symbol in specialised}}
    for guard in environment.guards:
        if not _is_implied(guard.expr, known, specialised):
            found.add(guard.expr, "the graph was exported for other sizes")
    small = {symbol for symbol, limits in found.ranges.items() if limits.lower < _NOT_SPECIALISED}
    seen: set[Any] = set()
    for node in _ops(graph):
        args, kwargs = _metas(node)
        probe = Probe(node.target, args, kwargs, node.meta.get("val"), hints(environment))
        key = (node.target, repr(probe.leaves), repr(probe.expected))
        if not small & set(probe.symbols) or key in seen:
            continue
        seen.add(key)
        name = str(node.target)
        for condition in probe.conditions([], found.known()):
            found.add(condition, f"{name} does not take these sizes")
    return found


def _is_implied(guard: Any, ranges: Mapping[Any, Any], specialised: Collection[Any]) -> bool:
    """Whether a bound says no more than the range of its symbol."""
    limits = bound(guard)
    if limits is None or limits[0] not in ranges:
        return isinstance(guard, sympy.Ne) and guard.rhs in (0, 1) and guard.lhs in specialised
    symbol, low, high = limits
    return ranges[symbol].lower >= low and (high < 0 or ranges[symbol].upper <= high)


def _lower(lower: Any, symbol: Any, traced: Any) -> Any:
    """The least that a size was traced for, where its range says no more than what exports take for granted."""
    if lower > _NOT_SPECIALISED:
        return lower
    if _is_specialised(symbol, traced):
        return 0
    return min(lower, traced.lower) if traced else lower


def _is_specialised(symbol: Any, traced: Any) -> bool:
    """Whether a size, within the range that it was ``traced`` for, was taken for neither 0 nor 1 without a word."""
    return bool(symbol.is_positive) and not (traced and traced.lower == 1)


def _environment(graph: Graph) -> ShapeEnv | None:
    for node in graph.nodes:
        meta = node.meta.get("val")
        for size in meta.shape if isinstance(meta, torch.Tensor) else [meta]:
            if isinstance(size, torch.SymInt):
                return size.node.shape_env
    return None


def _ops(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        target = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
            continue
        if "val" in node.meta and torch.Tag.pointwise not in target.tags and not target._schema.is_mutable:
            yield node


def _metas(node: Node) -> tuple[Sequence[Any], Mapping[str, Any]]:
    return torch.fx.node.map_arg((list(node.args), dict(node.kwargs)), lambda each: each.meta.get("val"))


__all__ = ["GraphSizes", "graph_sizes"]
