"""Work on weights as a short program that the runtime runs in PyTorch, instead of kernels that run once.

Folding a batch norm and packing a weight take a few tensor operations each. Compiling a kernel for every
shape among them costs more than all else that a convolutional model compiles. So ``main_transform_params``
becomes a program in JSON (module attribute ``PROGRAM``) where every operation of it has a row below::

    {"steps": [["rsqrt", [[4]], {}], ["multiply", [[0], [5]], {}], …], "results": [[6], …]}

A value is ``[i]``: an original weight or, after these, the result of a step; a number stands for itself.
Kernels that rearrange elements describe themselves (:class:`~torch_tvm.workloads.rearrangement.Rearrangement`).
A function with any other operation stays compiled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from torch_tvm.support.attributes import PROGRAM, TRANSFORM_PARAMS
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import static_shape
from torch_tvm.transforms.base import Level, Transform
from torch_tvm.workloads.rearrangement import Rearrangement

Steps = list[list[Any]]

_SAME_NAME = {
    f"relax.{name}": name
    for name in ("add", "subtract", "multiply", "divide", "negative", "sqrt", "rsqrt", "maximum", "minimum")
}


class PrepackWeights(Transform):
    """``main_transform_params`` becomes a program of PyTorch's, where every operation of it has a row here.

    ``def main_transform_params(w): p = pack(w)``  →  the module's attribute ``PROGRAM``,
    ``{"steps": [["pack", …]], …}``
    """

    level = Level.WEIGHTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        gvar = next((g for g in mod.get_global_vars() if g.name_hint == TRANSFORM_PARAMS), None)
        if gvar is None:
            return mod
        try:
            program = _Reader(mod).read(mod[gvar])
        except Refusal:
            return mod
        kept = {g: f for g, f in mod.functions_items() if g.name_hint != TRANSFORM_PARAMS}
        result = tvm.IRModule(kept, attrs=mod.attrs).with_attr(PROGRAM, json.dumps(program))
        return relax.transform.DeadCodeElimination()(result)


class _Reader:
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.values: dict[relax.Var, Any] = {}
        self.steps: Steps = []
        self.count = 0

    def read(self, func: relax.Function) -> dict[str, Any]:
        (params,) = func.params
        if not isinstance(params.ty, relax.TupleType):
            raise Refusal("the weights are no tuple")
        self.tuple = params
        self.count = len(params.ty.fields)
        for block in func.body.blocks:
            for binding in block.bindings:
                if not isinstance(binding, relax.VarBinding):
                    raise Refusal("a binding that checks a shape")
                self.values[binding.var] = self._value(binding.value)
        return {"steps": self.steps, "results": self._results(func.body.body)}

    def _results(self, value: Any) -> list[Any]:
        found = self.values.get(value, value) if isinstance(value, relax.Var) else value
        fields = found if isinstance(found, list) and found and isinstance(found[0], list) else None
        if fields is not None:
            return fields
        if isinstance(found, relax.Tuple):
            return [self._operand(field) for field in found.fields]
        raise Refusal("the result is no tuple")

    def _operand(self, value: Any) -> Any:
        if isinstance(value, tvm.ir.GenericConst):
            if len(value.ty.shape) == 0 and str(value.ty.dtype) == "float32":
                return float(value.value.numpy())
            raise Refusal("a constant tensor")
        if isinstance(value, relax.Var) and value in self.values:
            return self.values[value]
        raise Refusal("an operand that is no value")

    def _value(self, value: Any) -> Any:
        if isinstance(value, relax.Var):
            return self._operand(value)
        if isinstance(value, relax.TupleGetItem):
            if not value.tuple_value.same_as(self.tuple):
                raise Refusal("a tuple inside")
            return [int(value.index)]
        if isinstance(value, relax.Tuple):
            return [self._operand(field) for field in value.fields]
        if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
            raise Refusal("an expression that is no call")
        return self._call(value)

    def _call(self, call: relax.Call) -> list[int]:
        name = call.op.name
        if name in _SAME_NAME:
            return self._step(_SAME_NAME[name], [self._operand(arg) for arg in call.args])
        rule = _RULES.get(name)
        if rule is None:
            raise Refusal(f"{name} is no step of the program on weights")
        return rule(self, call)

    def _step(self, name: str, operands: list[Any], attributes: Any = None) -> list[int]:
        self.steps.append([name, operands, attributes])
        self.count += 1
        return [self.count - 1]

    def reshape(self, call: relax.Call) -> list[int]:
        return self._step("reshape", [self._operand(call.args[0])], _sizes(call))

    def permute(self, call: relax.Call) -> list[int]:
        axes = call.attrs.axes
        rank = len(call.args[0].ty.shape)
        order = list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]
        return self._step("permute", [self._operand(call.args[0])], order)

    def concat(self, call: relax.Call) -> list[int]:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else None
        if fields is None:
            raise Refusal("operands that are not listed")
        return self._step("concat", [self._operand(field) for field in fields], int(call.attrs.axis or 0))

    def cast(self, call: relax.Call) -> list[int]:
        return self._step("cast", [self._operand(call.args[0])], str(call.ty.dtype))

    def kernel(self, call: relax.Call) -> list[int]:
        func = self.mod[call.args[0]]
        fields = call.args[1].fields
        rearrangement = Rearrangement.from_attr(func.attrs)
        if rearrangement is None or len(fields) != 1 or len(call.args) > 2:
            raise Refusal("a kernel that does more than rearrange")
        value = self._operand(fields[0])
        for name, attributes in rearrangement.steps:
            value = self._step(name, [value], attributes)
        return value


_RULES: dict[str, Callable[[_Reader, relax.Call], list[int]]] = {
    "relax.reshape": _Reader.reshape,
    "relax.expand_dims": _Reader.reshape,
    "relax.squeeze": _Reader.reshape,
    "relax.permute_dims": _Reader.permute,
    "relax.concat": _Reader.concat,
    "relax.astype": _Reader.cast,
    "relax.call_tir": _Reader.kernel,
}


def _sizes(value: Any) -> list[int]:
    sizes = static_shape(value)
    if sizes is None:
        raise Refusal("a shape that is not constant")
    return list(sizes)
