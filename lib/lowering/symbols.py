"""Symbolic sizes of the arguments, from ``torch.bind_symbolic_shape``, and their ranges."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import func, ir
from torch_tvm.dialect.types import parse_tensor_type

_UNBOUNDED = 2**62


@dataclass
class ArgumentShapes:
    """``shapes`` gives, per described argument, ints and TIR expressions; ``ranges`` the bounds of a symbol.

    ``unsettled`` symbols have their name from us: no importer said what the program needs of them.
    """

    shapes: dict[int, list[Any]] = field(default_factory=dict)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    symbols: dict[str, tirx.Var] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)


def argument_shapes(function: func.FuncOp) -> ArgumentShapes:
    """What the function says of the sizes of its arguments."""
    block = function.regions[0].blocks[0]
    positions = {argument: index for index, argument in enumerate(block.arguments)}
    found = ArgumentShapes()
    for op in block.operations:
        name = view.op_name(op)
        if name == "torch.symbolic_int":
            attributes = op.attributes
            symbol = attributes["symbol_name"].value
            low = attributes["min_val"].value if "min_val" in attributes else 0
            high = attributes["max_val"].value if "max_val" in attributes else _UNBOUNDED
            found.ranges[symbol] = (max(low, 0), min(high, _UNBOUNDED))
        if name != "torch.bind_symbolic_shape" or op.operands[0] not in positions:
            continue
        symbols = [value.owner.attributes["symbol_name"].value for value in list(op.operands)[1:]]
        variables = [found.symbols.setdefault(s, tirx.Var(s, "int64")) for s in symbols]
        results = op.attributes["shape_expressions"].value.results
        found.shapes[positions[op.operands[0]]] = [_expression(e, variables) for e in results]
    for index, sizes in unnamed_sizes(function, found.shapes).items():
        names = [size for size in sizes if isinstance(size, str)]
        found.unsettled.update(names)
        found.symbols.update({name: tirx.Var(name, "int64") for name in names})
        found.shapes[index] = [found.symbols[s] if isinstance(s, str) else s for s in sizes]
    return found


def unnamed_sizes(function: func.FuncOp, named: Container[int]) -> dict[int, list[int | str]]:
    """Sizes of the arguments with unknown ones that no ``torch.bind_symbolic_shape`` names, with names for those."""
    found: dict[int, list[int | str]] = {}
    for index, argument in enumerate(function.regions[0].blocks[0].arguments):
        tensor = parse_tensor_type(argument.type)
        shape = tensor.shape if tensor is not None and index not in named else None
        if shape is not None and None in shape:
            found[index] = [f"size_{index}_{axis}" if s is None else s for axis, s in enumerate(shape)]
    return found


def _expression(expression: ir.AffineExpr, variables: list[tirx.Var]) -> Any:
    """An affine expression over symbols as a Python int or a TIR expression."""
    if isinstance(expression, ir.AffineConstantExpr):
        return expression.value
    if isinstance(expression, ir.AffineSymbolExpr):
        return variables[expression.position]
    assert isinstance(expression, ir.AffineBinaryExpr), expression
    left = _expression(expression.lhs, variables)
    right = _expression(expression.rhs, variables)
    if isinstance(expression, ir.AffineAddExpr):
        return left + right
    if isinstance(expression, ir.AffineMulExpr):
        return left * right
    if isinstance(expression, ir.AffineModExpr):
        return tirx.floormod(left, right)
    if isinstance(expression, ir.AffineFloorDivExpr):
        return tirx.floordiv(left, right)
    return -tirx.floordiv(-left, right)
