"""Conditions on sizes as operations on ``!torch.int`` and ``!torch.bool``, demanded by ``torch.runtime.assert``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import sympy

from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir

Values = Callable[[sympy.Symbol], ir.Value]


def assert_size(emitter: Emitter, condition: Any, values: Values, message: str) -> None:
    """Demand a condition where the program is; ``values`` gives the value of a symbol.

    Raises ``ValueError`` for a condition that the dialect has no form of.
    """
    value = _emit(emitter, condition, values)
    attributes = {"message": ir.StringAttr.get(message, emitter.context)}
    emitter.op("torch.runtime.assert", [value], [], attributes)


def bound(condition: Any) -> tuple[sympy.Symbol, int, int] | None:
    """``(symbol, lowest, highest)`` of a condition that is a bound of one symbol; -1 stands for none."""
    if not isinstance(condition, sympy.core.relational.Relational):
        return None
    left, right = condition.args
    mirrored = {">=": "<=", "<=": ">=", ">": "<", "<": ">"}
    operation = condition.rel_op
    if right.is_Symbol and left.is_Integer:
        left, right, operation = right, left, mirrored.get(operation, operation)
    if not (left.is_Symbol and right.is_Integer):
        return None
    number = int(right)
    bounds = {">=": (number, -1), ">": (number + 1, -1), "<=": (-1, number), "<": (-1, number - 1)}
    if operation == "!=" and number == 0:
        return left, 1, -1
    return (left, *bounds[operation]) if operation in bounds else None


def _emit(emitter: Emitter, expression: Any, values: Values) -> ir.Value:
    if expression in (sympy.true, sympy.false):
        return emitter.constant(bool(expression))
    if expression.is_Symbol:
        return values(expression)
    if expression.is_Integer:
        return emitter.constant(int(expression))
    if expression.is_Float:
        return emitter.constant(float(expression))
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        return _emit(emitter, sympy.Mul(*[expression.base] * int(expression.exp), evaluate=False), values)
    name = type(expression).__name__
    operation = _OPERATIONS.get(name)
    conversion = _CONVERSIONS.get(name)
    operands = [_emit(emitter, argument, values) for argument in expression.args]
    if conversion is not None:
        return emitter.op(conversion[0], operands, [emitter.types.parse(f"!torch.{conversion[1]}")]).result
    if operation is None:
        raise ValueError(f"{name} of sizes has no form in the dialect")
    stem, kind = operation
    if name == "Not":
        return emitter.op(stem, operands, [emitter.types.parse("!torch.bool")]).result
    return reduce(lambda a, b: _binary(emitter, stem, kind, a, b), operands)


def _binary(emitter: Emitter, stem: str, kind: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """An operation on two integers or, where one is a float, on floats."""
    floating = emitter.types.parse("!torch.float")
    if floating not in (a.type, b.type) or (kind == "bool" and stem.endswith(".bool")):
        return emitter.op(stem, [a, b], [emitter.types.parse(f"!torch.{kind}")]).result
    form = _FLOATS.get(stem)
    if form is None:
        raise ValueError(f"'{stem}' of floats has no form in the dialect")
    both = [x if x.type == floating else emitter.op("torch.aten.Float.Scalar", [x], [floating]).result for x in (a, b)]
    name, swapped = form
    result = floating if kind == "int" else emitter.types.parse("!torch.bool")
    return emitter.op(name, both[::-1] if swapped else both, [result]).result


_CONVERSIONS: Mapping[str, tuple[str, str]] = {
    "ToFloat": ("torch.aten.Float.Scalar", "float"),
    "TruncToInt": ("torch.aten.Int.float", "int"),
}
_FLOATS: Mapping[str, tuple[str, bool]] = {
    "torch.aten.add.int": ("torch.aten.add.float", False),
    "torch.aten.mul.int": ("torch.aten.mul.float", False),
    "torch.aten.ge.int": ("torch.aten.ge.float", False),
    "torch.aten.gt.int": ("torch.aten.gt.float", False),
    "torch.aten.le.int": ("torch.aten.ge.float", True),
    "torch.aten.lt.int": ("torch.aten.gt.float", True),
    "torch.aten.eq.int": ("torch.aten.eq.float", False),
}
"""The form for floats of an operation on integers, and whether its operands change places."""

_OPERATIONS: Mapping[str, tuple[str, str]] = {
    "Add": ("torch.aten.add.int", "int"),
    "Mul": ("torch.aten.mul.int", "int"),
    "FloorDiv": ("torch.aten.floordiv.int", "int"),
    "CleanDiv": ("torch.aten.floordiv.int", "int"),
    "Mod": ("torch.aten.remainder.int", "int"),
    "PythonMod": ("torch.aten.remainder.int", "int"),
    "Min": ("torch.prim.min.int", "int"),
    "Max": ("torch.prim.max.int", "int"),
    "Equality": ("torch.aten.eq.int", "bool"),
    "Unequality": ("torch.aten.ne.int", "bool"),
    "GreaterThan": ("torch.aten.ge.int", "bool"),
    "StrictGreaterThan": ("torch.aten.gt.int", "bool"),
    "LessThan": ("torch.aten.le.int", "bool"),
    "StrictLessThan": ("torch.aten.lt.int", "bool"),
    "And": ("torch.aten.__and__.bool", "bool"),
    "Or": ("torch.aten.__or__.bool", "bool"),
    "Not": ("torch.aten.__not__", "bool"),
}

__all__ = ["assert_size", "bound"]
