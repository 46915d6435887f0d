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
from torch_tvm.lowering.conversion import convert, differs, loaded
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import as_size
from torch_tvm.workloads.workload import POINTWISE


def _floordiv(a: Any, b: Any) -> Any:
    return tirx.floordiv(a, _divisor(b)) if is_symbolic(a) or is_symbolic(b) else a // b


def _floormod(a: Any, b: Any) -> Any:
    return tirx.floormod(a, _divisor(b)) if is_symbolic(a) or is_symbolic(b) else a % b


def _divisor(b: Any) -> Any:
    """``b`` where it is no zero: dividing by zero would end the process."""
    return b if isinstance(b, int) and b else tirx.Select(as_size(b) == 0, tirx.const(1, "int64"), as_size(b))


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


# -- the forms of run-time scalars, each one kernel ------------------------------------------------------

Form = Callable[..., tvm.ir.Expr]


def _wide(x: Any) -> Any:
    return convert(x, "float64")


def _run_floordiv(x: Any, y: Any) -> Any:
    if str(x.ty.dtype) == "float64":
        return tirx.floor(x / y)
    return tirx.Select(tirx.EQ(y, _one(-1)), -x, tirx.floordiv(x, _safe(y)))


def _run_floormod(x: Any, y: Any) -> Any:
    if str(x.ty.dtype) == "float64":
        return x - tirx.floor(x / y) * y
    return tirx.Select(tirx.EQ(y, _one(-1)), _one(0), tirx.floormod(x, _safe(y)))


def _safe(y: Any) -> Any:
    return tirx.Select(tirx.any(tirx.EQ(y, _one(0)), tirx.EQ(y, _one(-1))), _one(1), y)


def _one(value: int) -> Any:
    return tirx.const(value, "int64")


def _bits(boolean: Form, integer: Form) -> Form:
    return lambda x, y: boolean(x, y) if str(x.ty.dtype) == "bool" else integer(x, y)


def _run_max(x: Any, y: Any) -> Any:
    return tirx.Select(x < y, y, x)


def _run_min(x: Any, y: Any) -> Any:
    return tirx.Select(y < x, y, x)


_Row = tuple[Callable[..., Any], Form]

_ARITHMETIC: dict[str, _Row] = {
    "add": (operator.add, operator.add),
    "sub": (operator.sub, operator.sub),
    "mul": (operator.mul, operator.mul),
    "floordiv": (_floordiv, _run_floordiv),
    "remainder": (_floormod, _run_floormod),
    "div": (_truediv, lambda x, y: _wide(x) / _wide(y)),
    "truediv": (_truediv, lambda x, y: _wide(x) / _wide(y)),
    "pow": (operator.pow, lambda x, y: tirx.pow(_wide(x), _wide(y))),
    "neg": (operator.neg, operator.neg),
    "abs": (abs, lambda x: tirx.abs(x)),
    "eq": (operator.eq, lambda x, y: tirx.EQ(x, y)),
    "ne": (operator.ne, differs),
    "lt": (operator.lt, operator.lt),
    "le": (operator.le, operator.le),
    "gt": (operator.gt, operator.gt),
    "ge": (operator.ge, operator.ge),
    "max": (_maximum, _run_max),
    "min": (_minimum, _run_min),
    "__and__": (lambda a, b: a & b, _bits(tirx.all, lambda x, y: tirx.bitwise_and(x, y))),
    "__or__": (lambda a, b: a | b, _bits(tirx.any, lambda x, y: tirx.bitwise_or(x, y))),
    "__xor__": (lambda a, b: a ^ b, _bits(differs, lambda x, y: tirx.bitwise_xor(x, y))),
    "__not__": (lambda a: not a, lambda x: tirx.Not(x)),
    "sqrt": (math.sqrt, lambda x: tirx.sqrt(_wide(x))),
    "log": (math.log, lambda x: tirx.log(_wide(x))),
    "exp": (math.exp, lambda x: tirx.exp(_wide(x))),
    "ceil": (math.ceil, lambda x: tirx.ceil(_wide(x))),
    "floor": (math.floor, lambda x: tirx.floor(_wide(x))),
    "round": (round, lambda x: tirx.nearbyint(_wide(x))),
    "Int": (int, lambda x: convert(x, "int64")),
    "Float": (float, _wide),
    "Bool": (bool, lambda x: convert(x, "bool")),
    "ScalarImplicit": (lambda a: a, lambda x: x),
    "IntImplicit": (lambda a: a, lambda x: convert(x, "int64")),
    "FloatImplicit": (lambda a: a, _wide),
    "item": (lambda a: a, lambda x: x),
    "Scalar": (lambda a: a, lambda x: x),
    "NumToTensor": (lambda a: a, lambda x: x),
}

SCALAR_DTYPE = {"!torch.int": "int64", "!torch.float": "float64", "!torch.bool": "bool"}
"""The Relax dtype of a scalar type; a ``!torch.number`` has that of its value."""

BY_ZERO = "integer division or modulo by zero"
_BOOLEAN = {"eq", "ne", "lt", "le", "gt", "ge", "__and__", "__or__", "__not__", "__xor__", "Bool"}


def is_scalar_op(name: str, result_types: list[str]) -> bool:
    """Whether ``torch.aten.add.int`` and its kind: one scalar result and a row in the table."""
    return len(result_types) == 1 and result_types[0] in (*SCALAR_DTYPE, "!torch.number") and _stem(name) in _ARITHMETIC


def form_of(name: str) -> Form:
    """The TIR form of a scalar op, a function of operands that were brought to their common dtype."""
    return _ARITHMETIC[_stem(name)][1]


def _stem(name: str) -> str:
    return name.split(".")[2]


def evaluate(b: Builder, name: str, operands: list[Any], result_type: str) -> Any:
    """The value of a scalar op: folded, symbolic, or a 0-d tensor of int64, float64 or bool."""
    stem = _stem(name)
    fold, form = _ARITHMETIC[stem]
    if not any(is_tensor(operand) for operand in operands):
        if any(is_symbolic(operand) for operand in operands):
            return _fold_symbolic(b, stem, fold, operands, result_type)
        try:
            return _typed(fold(*operands), result_type)
        except (ArithmeticError, ValueError):
            pass
    if not all(is_tensor(v) or is_symbolic(v) or isinstance(v, (bool, int, float)) for v in operands):
        raise Refusal("an operand that is no number")
    return _at_run_time(b, stem, fold, form, operands, result_type)


def _at_run_time(
    b: Builder, stem: str, fold: Callable[..., Any], form: Form, operands: list[Any], result_type: str
) -> Any:
    """One kernel on 0-d tensors; sums and products of integers stay known as such for :meth:`Builder.size`."""
    common = common_dtype(b, operands)
    if stem in ("floordiv", "remainder") and common == "int64":
        _check_divisor(b, operands[1])
    if len(operands) == 1 and is_tensor(operands[0]):
        _check_one_element(b, operands[0])
    dtype = SCALAR_DTYPE.get(result_type) or _number_dtype(stem, common)
    tensors = [
        _zero_dim(b, b.tensor(operand, b.dtype(operand) if is_tensor(operand) else common)) for operand in operands
    ]
    if stem in _SAME and b.dtype(tensors[0]) == dtype:
        return tensors[0]

    def kernel(*sources: tvm.te.Tensor) -> tvm.te.Tensor:
        arguments = [convert(loaded(source()), common) for source in sources]
        return tvm.te.compute((), lambda: convert(form(*arguments), dtype), name="compute")

    result = b.te(kernel, *tensors, name=stem.strip("_"), attributes={POINTWISE: True})
    positive = len(operands) == 2 and type(operands[1]) is int and operands[1] > 0
    if dtype == common == "int64" and (stem in _LINEAR or (stem in ("floordiv", "remainder") and positive)):
        b.sums[result.__chandle__()] = (result, fold, list(operands))
    truth = _truth(b, stem, operands)
    if truth is not None:
        b.truths[result.__chandle__()] = (result, truth)
    return result


def _truth(b: Builder, stem: str, operands: list[Any]) -> tvm.ir.Expr | None:
    """A condition on sizes as a TIR expression too, for :meth:`Builder.check`; ``None`` for anything else."""
    if stem in _ORDER and all(is_symbolic(v) or type(v) is int for v in operands):
        return _ORDER[stem](*map(as_size, operands))
    if stem not in _LOGIC:
        return None
    known = [b.truths.get(v.__chandle__(), (None, None))[1] if is_tensor(v) else v for v in operands]
    if any(each is None for each in known):
        return None
    return _LOGIC[stem](*(tirx.const(v, "bool") if isinstance(v, bool) else v for v in known))


_ORDER: dict[str, Callable[..., tvm.ir.Expr]] = {
    "eq": tirx.EQ,
    "ne": tirx.NE,
    "lt": tirx.LT,
    "le": tirx.LE,
    "gt": tirx.GT,
    "ge": tirx.GE,
}
_LOGIC: dict[str, Callable[..., tvm.ir.Expr]] = {"__and__": tirx.And, "__or__": tirx.Or, "__not__": tirx.Not}


_LINEAR = {"add", "sub", "mul", "neg", "max", "min"}
_SAME = {
    "Int",
    "Float",
    "Bool",
    "ScalarImplicit",
    "IntImplicit",
    "FloatImplicit",
    "item",
    "Scalar",
    "NumToTensor",
}
_FLOATING = {"div", "truediv", "sqrt", "log", "exp", "pow"}


def _number_dtype(stem: str, common: str) -> str:
    if stem in _BOOLEAN:
        return "bool"
    return "float64" if stem in _FLOATING else common


def _check_divisor(b: Builder, divisor: Any) -> None:
    if is_tensor(divisor):
        zero = _zero_dim(b, b.tensor(divisor, "int64"))
        form = lambda x: tvm.te.compute((), lambda: tirx.NE(x(), tirx.const(0, "int64")), name="compute")
        b.check(b.te(form, zero, name="divisor"), BY_ZERO)
    else:
        b.check(as_size(divisor) != 0 if is_symbolic(divisor) else divisor != 0, BY_ZERO)


def _check_one_element(b: Builder, x: relax.Expr) -> None:
    """Only a tensor of one element is a number; another is an error when the program runs."""
    count: Any = 1
    for size in b.shape(x):
        count = count * size
    if is_symbolic(count):
        b.check(count == 1, "only a tensor of one element can be converted to a number")
    elif count != 1:
        raise Refusal(f"a tensor with {count} elements cannot be converted to a number")


def _zero_dim(b: Builder, x: relax.Expr) -> relax.Expr:
    return b.reshape(x, []) if b.rank(x) else x


def _fold_symbolic(b: Builder, stem: str, fold: Callable[..., Any], operands: list[Any], result_type: str) -> Any:
    if stem == "Float":
        return _as_float(operands[0])
    if stem == "Int" and str(operands[0].ty.dtype).startswith("int"):
        return operands[0]
    if stem in ("floordiv", "remainder"):
        _check_divisor(b, operands[1])
    if stem in ("eq", "ne", "lt", "le", "gt", "ge"):
        decided = tvm.sym.Analyzer().simplify(fold(*operands))
        if isinstance(decided, tirx.IntImm):
            return bool(decided)
    if stem in _BOOLEAN or stem in _FLOATING or stem in ("ceil", "floor", "round", "Int"):
        form = _ARITHMETIC[stem][1]
        return _at_run_time(b, stem, fold, form, operands, result_type)
    return fold(*operands)


def _typed(value: Any, result_type: str) -> Any:
    kinds: dict[str, Callable[[Any], Any]] = {"!torch.int": int, "!torch.float": float, "!torch.bool": bool}
    return kinds[result_type](value) if result_type in kinds else value


def common_dtype(b: Builder, operands: list[Any]) -> str:
    """int64, float64 or bool: what arithmetic on these scalars is done in."""
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
