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
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        return _emit(emitter, sympy.Mul(*[expression.base] * int(expression.exp), evaluate=False), values)
    operation = _OPERATIONS.get(type(expression).__name__)
    if operation is None:
        raise ValueError(f"{type(expression).__name__} of sizes has no form in the dialect")
    operands = [_emit(emitter, argument, values) for argument in expression.args]
    name, kind = operation
    result = emitter.types.parse(f"!torch.{kind}")
    if name == "torch.aten.__not__":
        return emitter.op(name, operands, [result]).result
    return reduce(lambda a, b: emitter.op(name, [a, b], [result]).result, operands)


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
