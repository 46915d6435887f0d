"""Symbolic sizes of a program's arguments: declared with ranges, bound to the argument shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch

from torch_tvm.dialect.emitter import MAX_INT, Emitter
from torch_tvm.dialect.mlir import ir


def bind_argument_shapes(
    emitter: Emitter, arguments: Sequence[tuple[ir.Value, Any]], ranges: Mapping[Any, Any]
) -> None:
    """Emit ``torch.symbolic_int`` once a symbol and ``torch.bind_symbolic_shape`` for each symbolic argument.

    ``arguments`` pairs values with their fake tensors; ``ranges`` maps a sympy symbol to an object with
    ``lower`` and ``upper``. Symbols are named ``s0, s1, …`` in order of appearance, so that two captures of
    one program agree.
    """
    symbols: dict[Any, ir.Value] = {}
    described: list[tuple[ir.Value, list[Any]]] = []
    for value, meta in arguments:
        if isinstance(meta, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in meta.shape):
            sizes = [
                size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
                for size in meta.shape
            ]
            described.append((value, sizes))
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
