"""Products of dequantised operands as products of their integers.

    y = matmul((float32(q) - zq) * sq, permute_dims((float32(w) - zw) * sw))      # q: [..., K], w: [N, K]
becomes
    t = int8_matmul(q, pack(w))                                                   # int32 [..., N]
    t = t - zq * sum_k(w) - zw * sum_k(q) + K * zq * zw                           # what is zero is left out
    y = (float32(t) * sq) * sw

``q`` is int8 or uint8, ``w`` a weight of either, scales and zero points are constants or tensors with one
value for all, for each row of ``q``, or for each column of the product. Integers are summed exactly, and int32
wraps around, so only the final value must fit: that of ``K`` products of 9-bit numbers, which limits ``K``.
The product without its terms comes from :mod:`torch_tvm.transforms.matmul.packed_products`, as does that of
``torch._int_mm`` with a weight. Targets without ``vpdpbusd`` keep float32, which is as fast there.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax, tirx
from tvm.ir import Expr

from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import is_zero
from torch_tvm.transforms.base import Level, Transform, current_cpu, functions_with_weights, rewrite_function
from torch_tvm.transforms.matmul.packed_products import QUADS, pack, packed_weight, product
from torch_tvm.transforms.params.weights import Weights, is_full_matrix
from torch_tvm.transforms.quantized.convolutions import CONVOLUTIONS, convolution_of_bytes
from torch_tvm.transforms.quantized.dequantized import (
    BYTES,
    LONGEST_SUM,
    Dequantized,
    as_signed,
    count,
    of_weight,
    read_dequantized,
    without_zeros,
)

OUT_ELEMWISE_FUSABLE = 4


@dataclass(frozen=True)
class WeightOperand:
    """The right operand of a product: ``values`` is [N, K] if ``is_transposed``, else [K, N]."""

    values: Expr
    is_transposed: bool
    scale: Expr | None = None
    zero: int | Expr | None = None


class MultiplyBytes(Transform):
    """Products of dequantised operands as products of their integers, where the target multiplies bytes.

    It leaves functions without ``num_input`` alone; see the module's text.
    """

    level = Level.LAYOUTS

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        cpu = current_cpu()
        if cpu.dot(GROUP) is None:
            return mod
        for gvar, func in functions_with_weights(mod):
            values = Weights(func)
            if any(str(var.ty.dtype) in BYTES for var in _tensors(func, values)):
                mod = rewrite_function(_Rewriter(mod, values, cpu), gvar, func)
                mod = relax.transform.DeadCodeElimination()(mod)
        return mod


def _tensors(func: relax.Function, values: Weights) -> list[relax.Var]:
    return [var for var in (*func.params, *values.bound) if isinstance(var.ty, relax.TensorType)]


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, values: Weights, cpu: CpuModel) -> None:
        super().__init__(mod)
        self.values = values
        self.cpu = cpu
        self.packed: dict[WeightOperand, relax.Var] = {}

    def visit_call_(self, call: relax.Call) -> Expr:
        if call.op == tvm.ir.Op.get("relax.matmul") and _is_static_product(call):
            rewritten = self._integer(call) if str(call.ty.dtype) == "int32" else self._dequantized(call)
            if rewritten is not None:
                return rewritten
        if call.op in CONVOLUTIONS:
            rewritten = convolution_of_bytes(call, self.values, self, self.cpu)
            if rewritten is not None:
                return rewritten
        return super().visit_call_(call)

    # -- matching ----------------------------------------------------------------------------------------

    def _integer(self, call: relax.Call) -> Expr | None:
        """``_int_mm`` with a weight."""
        x, w = call.args
        if w not in self.values or x in self.values or str(w.ty.dtype) != "int8":
            return None
        if str(x.ty.dtype) not in BYTES:
            return None
        source, is_transposed = self._untransposed(w)
        return self._product(self.visit_expr(x), WeightOperand(source, is_transposed))

    def _dequantized(self, call: relax.Call) -> Expr | None:
        x, w = call.args
        if w not in self.values or x in self.values or str(call.ty.dtype) != "float32":
            return None
        left, right = read_dequantized(x, self.values), self._weight(w)
        if left is None or right is None or int(w.ty.shape[0]) > LONGEST_SUM:
            return None
        if not all(_is_along_rows(value) for value in (left.scale, left.zero)):
            return None
        return self._scaled(left, right, int(w.ty.shape[0]), int(w.ty.shape[1]))

    def _untransposed(self, w: relax.Var) -> tuple[relax.Var, bool]:
        call = self.values.definition(w, "relax.permute_dims")
        if call is None or call.args[0] not in self.values:
            return w, False
        return call.args[0], True

    def _weight(self, w: relax.Var) -> WeightOperand | None:
        source, is_transposed = self._untransposed(w)
        found = read_dequantized(source, self.values)
        if found is None or not is_full_matrix(found.values):
            return None
        axis = 0 if is_transposed else 1
        if not all(_is_along(value, axis) for value in (found.scale, found.zero)):
            return None
        return WeightOperand(found.values, is_transposed, found.scale, found.zero)

    # -- rewriting ---------------------------------------------------------------------------------------

    def _scaled(self, left: Dequantized, right: WeightOperand, depth: int, columns: int) -> Expr:
        op, emit = relax.op, self.builder_.emit
        integer = lambda value: emit(op.astype(value, "int32"))
        constant = lambda value: relax.const(value, "int32")
        x = self.visit_expr(left.values)
        zero = self.visit_expr(right.zero) if isinstance(right.zero, Expr) else right.zero
        values, zero = as_signed(emit, self._visited(right.values), zero)
        right = WeightOperand(values, right.is_transposed, right.scale, zero)
        total = emit(self._product(x, right))
        as_int = lambda zero: constant(zero) if isinstance(zero, int) else integer(self.visit_expr(zero))
        zq = None if left.zero is None else as_int(left.zero)
        zw = None if right.zero is None else as_int(right.zero)
        if zw is not None and not isinstance(right.zero, int):
            zw = of_weight(emit, zw, [columns])
        axis = 1 if right.is_transposed else 0
        weight_sums = lambda: emit(op.sum(integer(self._visited(right.values)), axis=axis))
        data_sums = lambda: emit(op.sum(integer(x), axis=-1, keepdims=True))
        total = without_zeros(emit, total, zq, zw, weight_sums, data_sums, depth)
        value = emit(op.multiply(emit(op.astype(total, "float32")), self.visit_expr(left.scale)))
        return op.multiply(value, of_weight(emit, self.visit_expr(right.scale), [columns]))

    def _visited(self, value: Expr) -> Expr:
        return self.visit_expr(value) if value in self.values else value

    def _product(self, x: Expr, weight: WeightOperand) -> Expr:
        """``x`` times the integers of a weight: int32."""
        shape = [int(size) for size in weight.values.ty.shape]
        depth, columns = reversed(shape) if weight.is_transposed else shape
        key = WeightOperand(weight.values, weight.is_transposed)
        panels = packed_weight(QUADS, depth, columns, "int32", self.cpu)
        if key not in self.packed:
            self.packed[key] = self.builder_.emit(
                self.builder_.call_te(
                    lambda w: pack(w, QUADS, panels, weight.is_transposed),
                    self._visited(weight.values),
                    primfunc_name_hint="pack_int8_weight",
                )
            )
        return self.builder_.call_te(
            lambda x, packed: product(x, packed, QUADS, panels),
            x,
            self.packed[key],
            primfunc_name_hint="int8_matmul",
            primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )


def _is_static_product(call: relax.Call) -> bool:
    """A left operand with rows and a matrix on the right, no size of either zero."""
    x, w = call.args
    if not all(isinstance(arg, relax.Var) for arg in (x, w)) or not is_full_matrix(w):
        return False
    if not isinstance(x.ty.shape, relax.ShapeExpr) or len(x.ty.shape) < 2:
        return False
    return not any(map(is_zero, x.ty.shape))


def _is_along_rows(value: int | Expr | None) -> bool:
    """Whether a parameter of the left operand is the same along its last axis."""
    if value is None or isinstance(value, int):
        return True
    if not isinstance(value.ty.shape, relax.ShapeExpr):
        return False
    sizes = list(value.ty.shape)
    return not sizes or (isinstance(sizes[-1], tirx.IntImm) and int(sizes[-1]) == 1)


def _is_along(value: int | Expr | None, axis: int) -> bool:
    """Whether a parameter of a weight matrix changes along ``axis`` at most."""
    if value is None or isinstance(value, int):
        return True
    if not isinstance(value.ty.shape, relax.ShapeExpr) or count(value) is None:
        return False
    sizes = [1, 1, *(int(size) for size in value.ty.shape)][-2:]
    return len(value.ty.shape) <= 2 and sizes[1 - axis] == 1
