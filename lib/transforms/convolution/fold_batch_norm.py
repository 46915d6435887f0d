"""Inference batch norm becomes the weights and the bias of the convolution before it.

``batch_norm(conv(x, w) + b)`` becomes ``conv(x, w * s) + ((b - mean) * s + beta)`` with
``s = gamma / sqrt(var + eps)``. The same happens to its decomposed form, any chain of additions and multiplications
with weights that are constant along batch and space. A batch norm that follows no convolution becomes ``x * s + t``.
``s`` and ``t`` are work on weights alone, which ``lift_params`` takes out of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeGuard

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Constant, Expr
from tvm.relax.expr_functor import PyExprMutator, mutator

from torch_tvm.transforms.base import Level, Transform

CONVOLUTIONS = frozenset(
    f"relax.nn.{name}" for name in "conv1d conv2d conv3d conv1d_transpose conv2d_transpose conv3d_transpose".split()
)
AFFINE = frozenset(f"relax.{name}" for name in ("add", "subtract", "multiply", "divide"))


class FoldBatchNorm(Transform):
    """Inference batch norms become the weights and the bias of the convolution before them.

    ``batch_norm(conv(x, w) + b)``  →  ``conv(x, w * s) + ((b - mean) * s + beta)``, in every Relax function.
    """

    level = Level.WEIGHTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        updates = {}
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function) and not (func.attrs and "Primitive" in func.attrs):
                updated = _Folder(mod, func).visit_expr(func)
                if not updated.same_as(func):
                    updates[gvar] = updated
        result = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        for gvar, func in updates.items():
            result.update_func(gvar, func)
        return result


@dataclass(frozen=True)
class _Affine:
    """``conv * scale + shift``; scale and shift are ``[1, C, 1, …]`` (None: 1 and 0)."""

    conv: relax.Call
    scale: Expr | None = None
    shift: Expr | None = None


@mutator
class _Folder(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, func: relax.Function) -> None:
        super().__init__(mod)
        self.weights = _weights_only(func)
        self.uses = _count_uses(func)
        self.pending: dict[relax.Var, _Affine] = {}
        self.norms: dict[relax.Var, relax.Call] = {}
        self.in_dataflow = False

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.BindingBlock:
        self.in_dataflow = True
        result = super().visit_dataflow_block_(block)
        self.in_dataflow = False
        return result

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if not self.in_dataflow:
            super().visit_var_binding_(binding)
            return
        if _is_call(value, {"relax.nn.batch_norm"}) and not value.attrs.training and _only_normalised(binding, self):
            self.norms[binding.var] = value
            return
        affine = self._affine(value)
        is_inner = isinstance(binding.var, relax.DataflowVar)
        if affine is None:
            super().visit_var_binding_(binding)
        elif isinstance(affine, _Affine) and is_inner and self.uses.get(binding.var, 0) == 1:
            self.pending[binding.var] = affine
        else:
            result = self._materialise(affine) if isinstance(affine, _Affine) else affine
            emit = self.builder_.emit if is_inner else self.builder_.emit_output
            self.set_var_remap(binding.var, emit(result, binding.var.name))

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> Expr:
        if var in self.pending:
            emitted = self.builder_.emit(self._materialise(self.pending.pop(var)), var.name)
            self.set_var_remap(var, emitted)
            return emitted
        return super().visit_dataflow_var_(var)

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> Expr:
        """The normalised tensor inside another binding: a ``match_cast``, where channels are unknown."""
        if item.tuple_value not in self.norms:
            return super().visit_tuple_getitem_(item)
        affine = self._normalised(self.norms[item.tuple_value])
        return self._emit(self._materialise(affine) if isinstance(affine, _Affine) else affine)

    # --- recognition ---------------------------------------------------------------------------------

    def _affine(self, value: Expr) -> _Affine | Expr | None:
        """``value`` as an affine function of a convolution (or of a tensor, for a lone batch norm)."""
        if _is_call(value, CONVOLUTIONS):
            return _Affine(value) if all(arg.ty.shape is not None for arg in value.args) else None
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.norms:
            return self._normalised(self.norms[value.tuple_value])
        if _is_call(value, AFFINE):
            return self._arithmetic(value)
        return None

    def _normalised(self, norm: relax.Call) -> _Affine | Expr:
        data, gamma, beta, mean, var = norm.args
        axis = int(norm.attrs.axis) % len(data.ty.shape)
        along = lambda vector: self._along(vector, axis, len(data.ty.shape))
        deviation = self._emit(relax.op.sqrt(self._emit(relax.op.add(var, _scalar(norm.attrs.epsilon, var)))))
        inverse = self._emit(relax.op.divide(gamma, deviation)) if norm.attrs.scale else None
        if inverse is None:
            inverse = self._emit(relax.op.divide(_scalar(1.0, var), deviation))
        shift = self._emit(relax.op.negative(self._emit(relax.op.multiply(mean, inverse))))
        if norm.attrs.center:
            shift = self._emit(relax.op.add(shift, beta))
        before = self.pending.pop(data, None) if axis == 1 else None
        if before is not None and all(_is_weight(arg, self.weights) for arg in norm.args[1:]):
            return self._compose(before, along(inverse), along(shift))
        if before is not None:
            self.pending[data] = before
        scaled = self._emit(relax.op.multiply(self.visit_expr(data), along(inverse)))
        return relax.op.add(scaled, along(shift))

    def _arithmetic(self, call: relax.Call) -> _Affine | None:
        name = call.op.name.removeprefix("relax.")
        lhs, rhs = call.args
        if rhs in self.pending and name in ("add", "multiply"):
            lhs, rhs = rhs, lhs
        if lhs not in self.pending or not _is_weight(rhs, self.weights):
            return None
        if not _is_per_channel(rhs, self.pending[lhs].conv):
            return None
        before = self.pending.pop(lhs)
        operand = self._as_channels(rhs, len(before.conv.ty.shape))
        if name == "add":
            return self._compose(before, None, operand)
        if name == "subtract":
            return self._compose(before, None, self._emit(relax.op.negative(operand)))
        if name == "divide":
            operand = self._emit(relax.op.divide(_scalar(1.0, operand), operand))
        return self._compose(before, operand, None)

    def _compose(self, before: _Affine, scale: Expr | None, shift: Expr | None) -> _Affine:
        """``(conv * a + b) * scale + shift``."""
        if scale is not None:
            before = replace(
                before,
                scale=scale if before.scale is None else self._emit(relax.op.multiply(before.scale, scale)),
                shift=None if before.shift is None else self._emit(relax.op.multiply(before.shift, scale)),
            )
        if shift is not None:
            before = replace(
                before, shift=shift if before.shift is None else self._emit(relax.op.add(before.shift, shift))
            )
        return before

    # --- emission ------------------------------------------------------------------------------------

    def _emit(self, value: Expr) -> relax.Var:
        return self.builder_.emit(value)

    def _along(self, vector: Expr, axis: int, rank: int) -> relax.Var:
        """``[C]`` as ``[1, …, C, …, 1]``."""
        axes = [a for a in range(rank) if a != axis]
        return self._emit(relax.op.expand_dims(self.visit_expr(vector), axes))

    def _as_channels(self, operand: Expr, rank: int) -> Expr:
        operand = self.visit_expr(operand)
        missing = rank - len(operand.ty.shape)
        return self._emit(relax.op.expand_dims(operand, list(range(missing)))) if missing else operand

    def _materialise(self, affine: _Affine) -> Expr:
        conv = affine.conv
        data, weight = (self.visit_expr(arg) for arg in conv.args)
        if affine.scale is not None:
            weight = self._scaled(weight, affine.scale, conv)
        result = relax.Call(conv.op, [data, weight], conv.attrs)
        if affine.shift is None:
            return result
        return relax.op.add(self._emit(result), affine.shift)

    def _scaled(self, weight: Expr, scale: Expr, conv: relax.Call) -> Expr:
        """``weight`` with its output channels scaled by ``scale``, ``[1, C, 1, …]`` or all ones."""
        shape = [int(size) for size in weight.ty.shape]
        spatial = [1] * (len(shape) - 2)
        if all(isinstance(s, tirx.IntImm) and int(s) == 1 for s in scale.ty.shape):
            return self._emit(relax.op.multiply(weight, scale))
        if "transpose" not in conv.op.name:
            factors = self._emit(relax.op.reshape(scale, (shape[0], 1, *spatial)))
            return self._emit(relax.op.multiply(weight, factors))
        groups = int(conv.attrs.groups)
        split = self._emit(relax.op.reshape(weight, (groups, shape[0] // groups, *shape[1:])))
        factors = self._emit(relax.op.reshape(scale, (groups, 1, shape[1], *spatial)))
        product = self._emit(relax.op.multiply(split, factors))
        return self._emit(relax.op.reshape(product, shape))


def _is_call(value: Expr, names: frozenset[str] | set[str]) -> TypeGuard[relax.Call]:
    return isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) and value.op.name in names


def _scalar(value: float, like: Expr) -> Expr:
    return relax.const(float(value), str(like.ty.dtype))


def _only_normalised(binding: relax.VarBinding, folder: _Folder) -> bool:
    """Whether only the first field (the normalised tensor) of a batch norm is used."""
    fields = folder.uses.fields.get(binding.var, set())
    return isinstance(binding.var, relax.DataflowVar) and fields == {0}


def _is_weight(value: Expr, weights: set[relax.Var]) -> bool:
    return isinstance(value, Constant) or value in weights


def _is_per_channel(operand: Expr, conv: relax.Call) -> bool:
    """Whether ``operand`` broadcasts over the convolution's result as ``[1, C, 1, …]``."""
    if operand.ty.shape is None or conv.ty.shape is None or operand.ty.dtype != conv.ty.dtype:
        return False
    rank = len(conv.ty.shape)
    shape = [1] * (rank - len(operand.ty.shape)) + [
        int(size) if isinstance(size, tirx.IntImm) else None for size in operand.ty.shape
    ]
    channels = conv.ty.shape[1]
    allowed = {1, int(channels)} if isinstance(channels, tirx.IntImm) else {1}
    return len(shape) == rank and shape[1] in allowed and all(s == 1 for i, s in enumerate(shape) if i != 1)


class _Uses(dict):
    """How often a variable is used; ``fields`` holds the tuple fields that are, with -1 for other uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[relax.Var, set[int]] = {}


def _count_uses(func: relax.Function) -> _Uses:
    uses = _Uses()

    def count(expr: Expr) -> None:
        if isinstance(expr, relax.TupleGetItem) and isinstance(expr.tuple_value, relax.Var):
            uses.fields.setdefault(expr.tuple_value, set()).add(int(expr.index))
            uses[expr.tuple_value] = uses.get(expr.tuple_value, 0) + 1
            return
        tvm_ffi.structural_walk(expr, (relax.Var, lambda var: _note(uses, var)))

    for block in _blocks(func.body):
        for binding in block.bindings:
            count(binding.value)
    count(func.body.body if isinstance(func.body, relax.SeqExpr) else func.body)
    return uses


def _note(uses: _Uses, var: relax.Var) -> None:
    uses[var] = uses.get(var, 0) + 1
    uses.fields.setdefault(var, set()).add(-1)


def _blocks(body: Expr) -> list[relax.BindingBlock]:
    return list(body.blocks) if isinstance(body, relax.SeqExpr) else []


def _weights_only(func: relax.Function) -> set[relax.Var]:
    """Variables that depend on weights alone: parameters after ``num_input``, and what is computed from them."""
    if not func.attrs or "num_input" not in func.attrs:
        return set()
    weights = set(list(func.params)[int(func.attrs["num_input"]) :])
    for block in _blocks(func.body):
        for binding in block.bindings:
            found: list[relax.Var] = []
            tvm_ffi.structural_walk(binding.value, (relax.Var, found.append))
            is_pure = isinstance(block, relax.DataflowBlock)
            if is_pure and all(var in weights for var in found if isinstance(var.ty, relax.TensorType)):
                if found or isinstance(binding.value, Constant):
                    weights.add(binding.var)
    return weights
