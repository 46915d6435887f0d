"""Arithmetic on ``!torch.int``, ``!torch.float`` and ``!torch.bool`` values.

A scalar is a Python number when it is known, a TIR expression when it comes from a symbolic size, and a 0-d
Relax tensor when it is known only at run time. One table row gives the Python and the Relax form.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder, is_symbolic, is_tensor
from torch_tvm.support.errors import Refusal

op = relax.op


def _floordiv(a: Any, b: Any) -> Any:
    return a // b if not (is_symbolic(a) or is_symbolic(b)) else tirx.floordiv(a, b)


def _floormod(a: Any, b: Any) -> Any:
    return a % b if not (is_symbolic(a) or is_symbolic(b)) else tirx.floormod(a, b)


def _maximum(a: Any, b: Any) -> Any:
    return tirx.max(a, b) if is_symbolic(a) or is_symbolic(b) else max(a, b)


def _minimum(a: Any, b: Any) -> Any:
    return tirx.min(a, b) if is_symbolic(a) or is_symbolic(b) else min(a, b)


def _truediv(a: Any, b: Any) -> Any:
    if is_symbolic(a) or is_symbolic(b):
        return _as_float(a) / _as_float(b)
    return a / b


def _as_float(a: Any) -> Any:
    return tirx.Cast("float64", a) if is_symbolic(a) and str(a.ty.dtype).startswith("int") else a


def _relax_truediv(a: relax.Expr, b: relax.Expr) -> relax.Expr:
    return op.divide(op.astype(a, "float64"), op.astype(b, "float64"))


_Row = tuple[Callable[..., Any], Callable[..., relax.Expr] | None]

_ARITHMETIC: dict[str, _Row] = {
    "add": (operator.add, op.add),
    "sub": (operator.sub, op.subtract),
    "mul": (operator.mul, op.multiply),
    "floordiv": (_floordiv, op.floor_divide),
    "remainder": (_floormod, op.floor_mod),
    "div": (_truediv, _relax_truediv),
    "truediv": (_truediv, _relax_truediv),
    "pow": (operator.pow, op.power),
    "neg": (operator.neg, op.negative),
    "abs": (abs, op.abs),
    "eq": (operator.eq, op.equal),
    "ne": (operator.ne, op.not_equal),
    "lt": (operator.lt, op.less),
    "le": (operator.le, op.less_equal),
    "gt": (operator.gt, op.greater),
    "ge": (operator.ge, op.greater_equal),
    "max": (_maximum, op.maximum),
    "min": (_minimum, op.minimum),
    "__and__": (lambda a, b: a & b, op.logical_and),
    "__or__": (lambda a, b: a | b, op.logical_or),
    "__not__": (lambda a: not a, op.logical_not),
    "__xor__": (lambda a, b: a != b, op.logical_xor),
    "sqrt": (math.sqrt, lambda a: op.sqrt(op.astype(a, "float64"))),
    "log": (math.log, lambda a: op.log(op.astype(a, "float64"))),
    "exp": (math.exp, lambda a: op.exp(op.astype(a, "float64"))),
    "ceil": (math.ceil, lambda a: op.astype(op.ceil(a), "int64")),
    "floor": (math.floor, lambda a: op.astype(op.floor(a), "int64")),
    "round": (round, None),
    "Int": (int, lambda a: op.astype(a, "int64")),
    "Float": (float, lambda a: op.astype(a, "float64")),
    "Bool": (bool, lambda a: op.astype(a, "bool")),
    "ScalarImplicit": (lambda a: a, lambda a: a),
    "IntImplicit": (lambda a: a, lambda a: op.astype(a, "int64")),
    "FloatImplicit": (lambda a: a, lambda a: op.astype(a, "float64")),
    "item": (lambda a: a, lambda a: a),
    "Scalar": (lambda a: a, lambda a: a),
    "NumToTensor": (lambda a: a, lambda a: a),
}

_SCALAR_DTYPE = {"!torch.int": "int64", "!torch.float": "float64", "!torch.bool": "bool"}
_BOOLEAN = {"eq", "ne", "lt", "le", "gt", "ge", "__and__", "__or__", "__not__", "__xor__", "Bool"}


def is_scalar_op(name: str, result_types: list[str]) -> bool:
    """Whether ``torch.aten.add.int`` and its kind: one scalar result and a row in the table."""
    return (
        len(result_types) == 1
        and result_types[0] in (*_SCALAR_DTYPE, "!torch.number")
        and _stem(name) in _ARITHMETIC
    )


def _stem(name: str) -> str:
    return name.split(".")[2]


def evaluate(b: Builder, name: str, operands: list[Any], result_type: str) -> Any:
    """The value of a scalar op: folded, symbolic, or a 0-d tensor of int64, float64 or bool."""
    stem = _stem(name)
    fold, run = _ARITHMETIC[stem]
    if not any(is_tensor(operand) for operand in operands):
        if any(is_symbolic(operand) for operand in operands):
            return _fold_symbolic(b, stem, fold, operands, result_type)
        value = fold(*operands)
        return _typed(value, result_type)
    if run is None:
        raise Refusal("this scalar op has no run-time form")
    dtype = _SCALAR_DTYPE.get(result_type)
    common = _common_dtype(b, operands)
    tensors = [b.tensor(operand, common) for operand in operands]
    if stem == "floordiv" and common == "int64":
        result = b.te(
            lambda x, y: tvm.te.compute((), lambda: tirx.floordiv(x(), y())), *tensors, name="floordiv"
        )
    else:
        result = b.emit(run(*tensors))
    result = b.reshape(result, []) if b.rank(result) else result
    return b.cast(result, dtype) if dtype is not None else result


def _fold_symbolic(
    b: Builder, stem: str, fold: Callable[..., Any], operands: list[Any], result_type: str
) -> Any:
    if stem in ("Int", "Float"):
        value = operands[0]
        return _as_float(value) if stem == "Float" else value
    if stem in _BOOLEAN or stem in ("sqrt", "log", "exp", "ceil", "floor", "round", "pow"):
        if stem in _BOOLEAN and stem not in ("__and__", "__or__", "__not__", "__xor__", "Bool"):
            decided = tvm.sym.Analyzer().simplify(fold(*operands))
            if isinstance(decided, tirx.IntImm):
                return bool(decided)
        common = "float64" if stem not in _BOOLEAN else _common_dtype(b, operands)
        return evaluate(
            b, f"torch.aten.{stem}", [b.tensor(operand, common) for operand in operands], result_type
        )
    return fold(*operands)


def _typed(value: Any, result_type: str) -> Any:
    kinds: dict[str, Callable[[Any], Any]] = {"!torch.int": int, "!torch.float": float, "!torch.bool": bool}
    return kinds[result_type](value) if result_type in kinds else value


def _common_dtype(b: Builder, operands: list[Any]) -> str:
    dtypes = set()
    for operand in operands:
        if is_tensor(operand):
            dtypes.add(b.dtype(operand))
        elif is_symbolic(operand):
            dtypes.add("float64" if "float" in str(operand.ty.dtype) else "int64")
        else:
            dtypes.add({bool: "bool", int: "int64", float: "float64"}[type(operand)])
    if any(dtype.startswith(("float", "bfloat")) for dtype in dtypes):
        return "float64"
    return "bool" if dtypes == {"bool"} else "int64"
