"""Which results of a Relax function may share memory with its parameters, its constants or each other."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from torch_tvm.support.packed_functions import ATEN

_FRESH = {
    "relax.call_tir",
    "relax.call_dps_packed",
    "relax.call_tir_with_grad",
    "relax.builtin.alloc_tensor",
    "relax.shape_of",
}
_FOREIGN = ("memory of a function outside the module",)


def results_to_copy(function: relax.Function) -> set[int]:
    """Indices of results that must be copied before a user may own them.

    A result that may be (a view of) a parameter, a constant of the executable or an earlier result is one. A
    function that returns a single tensor has result 0.
    """
    sources = _Sources(function)
    seen: set[Any] = set()
    copies = set()
    for index, roots in enumerate(sources.results()):
        if any(root in sources.shared for root in roots) or roots & seen:
            copies.add(index)
        seen |= roots
    return copies


def returns_first_parameter(function: relax.Function) -> bool:
    """Whether a result may share memory with the first parameter."""
    sources = _Sources(function)
    first = sources.root_of_parameter(function.params[0])
    return any(first in roots for roots in sources.results())


_Value = frozenset[Any]


class _Sources:
    """For every variable the allocations that it may refer to; tuples keep their fields apart."""

    def __init__(self, function: relax.Function) -> None:
        self.shared: set[Any] = set()
        self._env: dict[Any, Any] = {}
        self._fresh = 0
        for parameter in function.params:
            self._env[parameter] = self._parameter(parameter.name, parameter.ty)
        self._result = self._block(function.body)

    def root_of_parameter(self, parameter: relax.Var) -> Any:
        value = self._env[parameter]
        return next(iter(_flat(value)), None)

    def results(self) -> list[_Value]:
        value = self._result
        return [_flat(item) for item in value] if isinstance(value, list) else [_flat(value)]

    def _parameter(self, name: str, kind: Any) -> Any:
        if isinstance(kind, relax.TupleType):
            return [self._parameter(f"{name}[{i}]", field) for i, field in enumerate(kind.fields)]
        root = ("parameter", name)
        self.shared.add(root)
        return frozenset([root])

    def _new(self) -> _Value:
        self._fresh += 1
        return frozenset([("fresh", self._fresh)])

    def _fresh_like(self, kind: Any) -> Any:
        if isinstance(kind, relax.TupleType):
            return [self._fresh_like(field) for field in kind.fields]
        return self._new()

    def _block(self, body: Any) -> Any:
        if not isinstance(body, relax.SeqExpr):
            return self._value(body)
        for block in body.blocks:
            for binding in block.bindings:
                self._env[binding.var] = self._value(binding.value)
        return self._value(body.body)

    def _value(self, expr: Any) -> Any:
        if isinstance(expr, tvm.ir.Constant):
            root = ("constant", expr.__hash__())
            self.shared.add(root)
            return frozenset([root])
        if isinstance(expr, relax.Tuple):
            return [self._value(field) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            value = self._value(expr.tuple_value)
            return value[expr.index] if isinstance(value, list) else value
        if isinstance(expr, relax.If):
            return _join(self._block(expr.true_branch), self._block(expr.false_branch))
        if isinstance(expr, relax.SeqExpr):
            return self._block(expr)
        if isinstance(expr, relax.Call):
            return self._call(expr)
        return self._env.get(expr, frozenset()) if isinstance(expr, tvm.ir.Expr) else frozenset()

    def _call(self, call: relax.Call) -> Any:
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        arguments = list(call.args)
        if isinstance(call.op, relax.ExternFunc):
            name, arguments = "relax.call_pure_packed", [call.op, *arguments]
        if name in ("relax.call_pure_packed", "relax.call_inplace_packed"):
            callee, arguments = arguments[0], arguments[1:]
            symbol = callee.global_symbol if isinstance(callee, relax.ExternFunc) else ""
            if symbol == ATEN:
                return self._fresh_like(call.ty)
        if name in _FRESH:
            return self._fresh_like(call.ty)
        roots = frozenset().union(*(_flat(self._value(argument)) for argument in arguments))
        if symbol_is_foreign := name.endswith("packed"):
            self.shared.add(_FOREIGN)
        return _spread(roots | self._new() | ({_FOREIGN} if symbol_is_foreign else set()), call.ty)


def _spread(roots: _Value, kind: Any) -> Any:
    if isinstance(kind, relax.TupleType):
        return [_spread(roots, field) for field in kind.fields]
    return roots


def _flat(value: Any) -> _Value:
    if isinstance(value, list):
        return frozenset().union(*(_flat(item) for item in value)) if value else frozenset()
    return value


def _join(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [_join(a, b) for a, b in zip(left, right, strict=True)]
    return _flat(left) | _flat(right)


__all__ = ["results_to_copy", "returns_first_parameter"]
