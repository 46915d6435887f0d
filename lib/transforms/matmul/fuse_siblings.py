"""Compute linear layers that read one tensor and feed one attention as a single product.

    q = x @ wq + bq;  k = x @ wk + bk;  v = x @ wv + bv
becomes
    q, k, v = split(x @ concat(wq, wk, wv) + concat(bq, bk, bv))

The concatenations depend on weights alone and happen once. Attention reads the parts where they lie
(:mod:`torch_tvm.transforms.fuse_attention`), so nothing is copied; other consumers would need copies, and
their products stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Expr

from torch_tvm.tir import static_shape
from torch_tvm.transforms.base import Level, Transform, functions_with_weights, rewrite_function
from torch_tvm.transforms.params.weights import Weights

VIEWS = ("relax.reshape", "relax.permute_dims", "relax.expand_dims", "relax.broadcast_to", "relax.repeat")


@dataclass
class Linear:
    """``result = x @ weight + bias``; without a bias ``result`` is the product itself."""

    x: relax.Var
    weight: relax.Var
    bias: relax.Var | None
    result: relax.Var


class FuseSiblingMatmuls(Transform):
    """Linear layers that read one tensor and feed one attention are a single product.

    ``x @ wq + bq, x @ wk + bk``  →  ``split(x @ concat(wq, wk) + concat(bq, bk))``. A function without ``num_input``
    has no weights and stays as it is.
    """

    level = Level.WEIGHTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        for gvar, func in functions_with_weights(mod):
            values = Weights(func)
            groups = _find_groups(values)
            if groups:
                mod = rewrite_function(_Fuser(mod, values, groups), gvar, func)
                mod = relax.transform.DeadCodeElimination()(mod)
        return mod


def _find_groups(values: Weights) -> list[list[Linear]]:
    """Linear layers with the same input, two or more, all with a bias or all without."""
    users = _users(values)
    groups: dict[tuple[relax.Var, bool], list[Linear]] = {}
    for var in values.bound:
        linear = _read_linear(var, values, users)
        if linear is not None and _feeds_attention(linear.result, values, users):
            groups.setdefault((linear.x, linear.bias is None), []).append(linear)
    return [group for group in groups.values() if len(group) > 1]


def _users(values: Weights) -> dict[relax.Var, list[relax.Var]]:
    users: dict[relax.Var, list[relax.Var]] = {}
    for var, value in values.bound.items():
        args = value.args if isinstance(value, relax.Call) else []
        for arg in args:
            if isinstance(arg, relax.Var):
                users.setdefault(arg, []).append(var)
    return users


def _read_linear(var: relax.Var, values: Weights, users: dict[relax.Var, list[relax.Var]]) -> Linear | None:
    product = values.definition(var, "relax.matmul")
    if product is None or not all(isinstance(arg, relax.Var) for arg in product.args):
        return None
    x, weight = product.args
    if (
        x in values
        or weight not in values
        or len(static_shape(weight) or ()) != 2
        or str(x.ty.dtype) != str(weight.ty.dtype)
    ):
        return None
    if values.uses.get(var) == 1 and len(users.get(var, [])) == 1:
        total = users[var][0]
        add = values.definition(total, "relax.add")
        if add is not None:
            bias = add.args[1] if add.args[0].same_as(var) else add.args[0]
            if bias in values and static_shape(bias) == (static_shape(weight) or ())[1:]:
                return Linear(x, weight, bias, total)
    return Linear(x, weight, None, var)


def _feeds_attention(value: relax.Var, values: Weights, users: dict[relax.Var, list[relax.Var]]) -> bool:
    """Whether ``value`` is seen through views by attention alone, or by a product of two activations."""
    consumers = users.get(value, [])
    if len(consumers) != values.uses.get(value) or not consumers:
        return False
    for consumer in consumers:
        call = values.bound[consumer]
        if not isinstance(call, relax.Call):
            return False
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name in VIEWS:
            if not _feeds_attention(consumer, values, users):
                return False
        elif name == "relax.matmul":
            if any(arg in values for arg in call.args):
                return False
        elif name not in ("relax.nn.attention", "relax.nn.attention_bias"):
            return False
    return True


@relax.expr_functor.mutator
class _Fuser(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, values: Weights, groups: list[list[Linear]]) -> None:
        super().__init__(mod)
        self.values = values
        self.groups = groups
        self.place = {
            linear.result: (group, position)
            for group, linears in enumerate(groups)
            for position, linear in enumerate(linears)
        }
        self.parts: dict[int, relax.Var] = {}
        self.current: relax.Var | None = None

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self.current = binding.var
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> Expr:
        where = None if self.current is None else self.place.get(self.current)
        if where is None:
            return super().visit_call_(call)
        group, position = where
        if group not in self.parts:
            self.parts[group] = self._emit_joint(self.groups[group])
        return relax.TupleGetItem(self.parts[group], position)

    def _emit_joint(self, linears: list[Linear]) -> relax.Var:
        emit = self.builder_.emit
        weight = emit(relax.op.concat([self._weight(linear.weight) for linear in linears], axis=1))
        result = emit(relax.op.matmul(self.visit_expr(linears[0].x), weight))
        biases = [linear.bias for linear in linears if linear.bias is not None]
        if biases:
            bias = emit(relax.op.concat([self._weight(each) for each in biases], axis=0))
            result = emit(relax.op.add(result, bias))
        ends, total = [], 0
        for linear in linears[:-1]:
            total += int(linear.weight.ty.shape[1])
            ends.append(total)
        return emit(relax.op.split(result, ends, axis=-1))

    def _weight(self, value: Expr) -> Expr:
        """Compute a weight here: its own binding may come later than the first product of its group."""
        definition = self.values.bound.get(value) if isinstance(value, relax.Var) else None
        if isinstance(definition, relax.Call):
            args = [self._weight(arg) for arg in definition.args]
            return self.builder_.emit(relax.Call(definition.op, args, definition.attrs, definition.ty_args))
        return self.visit_expr(value)
