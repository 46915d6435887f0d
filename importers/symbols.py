"""Symbolic sizes of a program's arguments: declared with ranges, bound to the argument shapes."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv

from torch_tvm.dialect.emitter import MAX_INT, Emitter
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.size_conditions import assert_size
from torch_tvm.support.errors import ImportFailed


@dataclass
class Range:
    """The bounds of a symbol, both included."""

    lower: Any = 0
    upper: Any = sympy.oo


@dataclass
class Symbols:
    """Where a program finds the symbols of its sizes.

    ``places`` has an argument and an axis for each symbol that is a size by itself. ``solved`` has a symbol that
    only occurs in expressions (``2 * s0``) as an expression over one that stands for such a size. ``wholes`` has the
    symbol that stands for an expression.
    """

    emitter: Emitter
    places: dict[sympy.Symbol, tuple[ir.Value, int]] = field(default_factory=dict)
    solved: dict[sympy.Symbol, Any] = field(default_factory=dict)
    wholes: dict[Any, sympy.Symbol] = field(default_factory=dict)

    def spelled(self, size: Any) -> Any:
        """A size over symbols that have a place."""
        return self.wholes.get(size, size.xreplace(self.solved))

    def demand(self, condition: Any, message: str) -> None:
        """Assert a condition on sizes; one on symbols that no argument has is left to the program."""
        condition = condition.xreplace(self.solved)
        if condition.free_symbols <= set(self.places):
            try:
                assert_size(self.emitter, condition, self._value, message)
            except ValueError as error:
                raise ImportFailed(f"the program needs {condition} of its sizes, and {error}") from None

    def _value(self, symbol: sympy.Symbol) -> ir.Value:
        value, axis = self.places[symbol]
        return self.emitter.call(torch.ops.aten.size.int, (value, axis), {}, [0])[0]


def bind_argument_shapes(
    emitter: Emitter, arguments: Sequence[tuple[ir.BlockArgument, Any]], ranges: MutableMapping[Any, Any]
) -> Symbols:
    """Emit ``torch.symbolic_int`` once a symbol and ``torch.bind_symbolic_shape`` for each symbolic argument.

    ``arguments`` pairs values with their fake tensors; ``ranges`` maps a sympy symbol to an object with
    ``lower`` and ``upper``. Symbols are named ``s0, s1, …`` in order of appearance, so that two captures of
    one program agree.
    """
    symbols: dict[Any, ir.Value] = {}
    described: list[tuple[ir.BlockArgument, list[Any]]] = []
    for value, meta in arguments:
        if isinstance(meta, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in meta.shape):
            sizes = [size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size) for size in meta.shape]
            described.append((value, sizes))
    known, conditions = _solved(emitter, described, ranges)
    described = [(value, [known.spelled(size) for size in sizes]) for value, sizes in described]
    for _, sizes in described:
        for size in sizes:
            for symbol in sorted(size.free_symbols, key=str):
                if symbol not in symbols:
                    symbols[symbol] = _declare(emitter, f"s{len(symbols)}", ranges.get(symbol))
    names = {symbol: f"s{index}" for index, symbol in enumerate(symbols)}
    for value, sizes in described:
        used = [symbol for symbol in symbols if any(symbol in size.free_symbols for size in sizes)]
        texts = ", ".join(_affine_text(size, names) for size in sizes)
        header = ", ".join(names[symbol] for symbol in used)
        attribute = ir.Attribute.parse(f"affine_map<()[{header}] -> ({texts})>", emitter.context)
        emitter.op(
            "torch.bind_symbolic_shape",
            [value, *(symbols[symbol] for symbol in used)],
            [],
            {"shape_expressions": attribute},
        )
    for condition in conditions:
        known.demand(condition, "the size is no such multiple as dynamic_shapes says")
    return known


def _solved(
    emitter: Emitter,
    described: Sequence[tuple[ir.BlockArgument, Sequence[Any]]],
    ranges: MutableMapping[Any, Any],
) -> tuple[Symbols, list[Any]]:
    """A place for every symbol: where ``a * s + b`` is all that there is of ``s``, a new symbol is that size. One is
    ``s * t`` too where no argument has ``s``, as the memory that a gradient has of a tensor that was flattened.

    Adds the ranges of new symbols, and gives the conditions under which there is such an ``s``.
    """
    known, conditions = Symbols(emitter), []
    found = [(value, axis, size) for value, sizes in described for axis, size in enumerate(sizes)]
    for value, axis, size in found:
        if size.is_Symbol:
            known.places.setdefault(size, (value, axis))
    for value, axis, size in found:
        missing = size.free_symbols - set(known.places) - set(known.solved)
        if len(size.free_symbols) != 1 or not missing:
            continue
        (symbol,) = missing
        factor, offset = size.coeff(symbol), size.subs(symbol, 0)
        if not factor.is_Integer or sympy.expand(factor * symbol + offset - size) != 0 or factor <= 0:
            continue
        whole = sympy.Symbol(f"{symbol}_{value.arg_number}_{axis}", integer=True, nonnegative=True)
        known.places[whole] = (value, axis)
        known.wholes[size] = whole
        known.solved[symbol] = FloorDiv(whole - offset, factor)
        limits = ranges.get(symbol, Range())
        ranges[whole] = Range(factor * limits.lower + offset, factor * limits.upper + offset)
        if factor != 1:
            conditions.append(sympy.Eq(sympy.Mod(whole - offset, factor), 0))
    for value, axis, size in found:
        if not known.spelled(size).free_symbols <= set(known.places):
            whole = sympy.Symbol(f"size_{value.arg_number}_{axis}", integer=True, nonnegative=True)
            known.places[whole] = (value, axis)
            known.wholes[size] = whole
    return known, conditions


def _declare(emitter: Emitter, name: str, bounds: Any) -> ir.Value:
    low, high = (0, MAX_INT) if bounds is None else (_bound(bounds.lower), _bound(bounds.upper))
    i64 = ir.IntegerType.get_signless(64, emitter.context)
    return emitter.op(
        "torch.symbolic_int",
        [],
        [emitter.types.parse("!torch.int")],
        {
            "symbol_name": ir.StringAttr.get(name, emitter.context),
            "min_val": ir.IntegerAttr.get(i64, low),
            "max_val": ir.IntegerAttr.get(i64, high),
        },
    ).result


def _bound(value: Any) -> int:
    """A bound as a 64-bit integer; symbolic infinities become the largest one."""
    try:
        return max(-MAX_INT, min(int(value), MAX_INT))
    except (AttributeError, TypeError, OverflowError, ValueError):
        return MAX_INT


def _affine_text(expression: Any, names: Mapping[Any, str]) -> str:
    """A sympy size as affine-map text; floor division and modulus keep their meaning."""
    if expression.is_Integer:
        return str(int(expression))
    if expression.is_Symbol:
        return names[expression]
    parts = [_affine_text(argument, names) for argument in expression.args]
    kind = type(expression).__name__
    if expression.is_Add:
        return "(" + " + ".join(parts) + ")"
    if expression.is_Mul:
        return "(" + " * ".join(parts) + ")"
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        return "(" + " * ".join([parts[0]] * int(expression.exp)) + ")"
    if kind in ("FloorDiv", "CleanDiv"):
        return f"({parts[0]} floordiv {parts[1]})"
    if kind in ("Mod", "PythonMod"):
        return f"({parts[0]} mod {parts[1]})"
    raise ValueError(f"size {expression} is not affine")
