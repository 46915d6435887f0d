"""Whole numbers of TIR as Python source: sizes, launch extents, and conditions on them."""

from __future__ import annotations

import keyword
import re
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import Call, Expr, Var
from tvm.ir.prim import expr as prim

from torch_tvm.support.errors import InternalError

_INFIX: dict[type, str] = {
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.FloorDiv: "//",
    tirx.FloorMod: "%",
    tirx.EQ: "==",
    tirx.NE: "!=",
    tirx.LT: "<",
    tirx.LE: "<=",
    tirx.GT: ">",
    tirx.GE: ">=",
    tirx.And: "and",
    tirx.Or: "or",
    prim.RShift: ">>",
    prim.LShift: "<<",
    prim.BitwiseAnd: "&",
    prim.BitwiseOr: "|",
    prim.BitwiseXor: "^",
}
_PREFIX: dict[type, str] = {tirx.Min: "min", tirx.Max: "max", tirx.Div: "truncated", tirx.Mod: "remainder"}
_CALLS = {
    "tirx.shift_left": "<<",
    "tirx.shift_right": ">>",
    "tirx.bitwise_and": "&",
    "tirx.bitwise_or": "|",
    "tirx.bitwise_xor": "^",
}


FUNCTION = "f_"
"""What the names of functions begin with, and no other names."""

_RESERVED = frozenset(
    "allocate bool constants float foreign foreign_into int8 int16 int32 int64 launch match_cast match_rank max min "
    "numbers"
    " range remainder truncated truth tuple uint8 uint16 uint32 uint64 float16 float32 float64".split()
)


def function_name(hint: str) -> str:
    """What a function of the module is called; raises ``InternalError`` for a text that is no name."""
    if not hint.isidentifier():
        raise InternalError(f"'{hint}' is no name of a function", stage="code generation")
    return f"{FUNCTION}{hint}"


class Names:
    """A Python name for each variable, none given twice."""

    def __init__(self) -> None:
        self._names: dict[Var, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, var: Var) -> str:
        if var not in self._names:
            self._names[var] = self.fresh(var.name)
        return self._names[var]

    def __setitem__(self, var: Var, name: str) -> None:
        self._names[var] = name

    def __contains__(self, var: Var) -> bool:
        return var in self._names

    def fresh(self, hint: str) -> str:
        """A name like ``hint`` that nothing has."""
        base = re.sub(r"\W", "_", hint) or "v"
        if base[0].isdigit() or base.startswith(FUNCTION) or base in _RESERVED or keyword.iskeyword(base):
            base = f"v_{base}"
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def number(expr: Expr | int, names: Names) -> str:
    """A whole number, a float or a condition as Python source. Raises ``InternalError`` for what is none."""
    if isinstance(expr, int):
        return str(expr)
    each = lambda part: number(part, names)
    match expr:
        case tirx.IntImm():
            return str(bool(expr)) if str(expr.ty.dtype) == "bool" else str(int(expr))
        case tirx.FloatImm():
            return f"float({str(float(expr.value))!r})"
        case Var():
            return names[expr]
        case tirx.Cast():
            return each(expr.value)
        case tirx.Not():
            return f"(not {each(expr.a)})"
        case tirx.Select():
            return f"({each(expr.true_value)} if {each(expr.condition)} else {each(expr.false_value)})"
        case tirx.Let():
            return f"(lambda {names[expr.var]}: {each(expr.body)})({each(expr.value)})"
        case Call():
            return _call(expr, each)
    binary: Any = expr  # no class of TVM says what all of these have
    if type(expr) in _INFIX:
        return f"({each(binary.a)} {_INFIX[type(expr)]} {each(binary.b)})"
    if type(expr) in _PREFIX:
        return f"{_PREFIX[type(expr)]}({each(binary.a)}, {each(binary.b)})"
    raise InternalError(f"no Python for {type(expr).__name__} {expr}", stage="code generation")


def _call(call: Call, each: Any) -> str:
    name = getattr(call.op, "name", "")
    if name in _CALLS:
        return f"({each(call.args[0])} {_CALLS[name]} {each(call.args[1])})"
    if name == "tirx.if_then_else":
        return f"({each(call.args[1])} if {each(call.args[0])} else {each(call.args[2])})"
    if name == "tirx.likely":
        return str(each(call.args[0]))
    raise InternalError(f"no Python for the call {call}", stage="code generation")


def dtype_of(expr: tvm.ir.Expr) -> str:
    """The dtype of a number."""
    return str(expr.ty.dtype)


__all__ = ["Names", "dtype_of", "function_name", "number"]
