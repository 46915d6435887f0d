"""Pack the weights of linear layers for the register tiles of :mod:`torch_tvm.schedules.cpu.matmul.rule`.

    y = matmul(x, permute_dims(w))            # w: [N, K]
becomes
    p = pack(w)                               # [ceil(N / NR), K, NR]; what follows column N is never stored
    y[…, n] = sum_k x[…, k] * p[n // NR, k, n % NR]

``pack`` depends on weights alone, so :mod:`torch_tvm.transforms.params.split` moves it to compile time. The
product is one PrimFunc whose op pattern lets FuseOps put bias, activation and residual behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Expr

from torch_tvm.schedules.instructions.dots import PAIR
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import compute_dtype, is_zero, product, static
from torch_tvm.transforms.base import Level, Transform, current_cpu, functions_with_weights, rewrite_function
from torch_tvm.transforms.matmul.packed_products import (
    PAIRS,
    PLAIN,
    ROUNDED,
    Kind,
    is_memory_bound,
    pack,
    packed_weight,
)
from torch_tvm.transforms.matmul.packed_products import product as packed_product
from torch_tvm.transforms.params.weights import Weights, is_full_matrix
from torch_tvm.workloads.matmul import PackedWeight

OUT_ELEMWISE_FUSABLE = 4


@dataclass(frozen=True)
class PackMatmulWeights(Transform):
    """Weights of linear layers are packed for the register tiles of the product's schedule.

    ``matmul(x, permute_dims(w))``  →  ``call_tir(matmul, (x, pack(w)))``, in functions with ``num_input``.
    With ``accuracy="fast"``, weights that are read by few rows are kept as bfloat16, as are all where the
    processor multiplies bfloat16.
    """

    level = Level.WEIGHTS

    accuracy: str = "default"

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        cpu = current_cpu()
        for gvar, func in functions_with_weights(mod):
            mod = rewrite_function(_Packer(mod, Weights(func), cpu, self.accuracy), gvar, func)
        return mod


@relax.expr_functor.mutator
class _Packer(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, weights: Weights, cpu: CpuModel, accuracy: str) -> None:
        super().__init__(mod)
        self.weights = weights
        self.cpu = cpu
        self.accuracy = accuracy
        self.packed: dict[tuple[relax.Var, Kind], relax.Var] = {}

    def visit_call_(self, call: relax.Call) -> Expr:
        if call.op == tvm.ir.Op.get("relax.matmul") and self._packs(call):
            return self._rewrite(call)
        return super().visit_call_(call)

    def _packs(self, call: relax.Call) -> bool:
        """Whether the right operand is a weight matrix, the left one is none, and both have one dtype."""
        x, w = call.args
        if w not in self.weights or x in self.weights:
            return False
        types = (x.ty, w.ty, call.ty)
        if any(not isinstance(ty.shape, relax.ShapeExpr) for ty in types) or len({str(ty.dtype) for ty in types}) > 1:
            return False
        return is_full_matrix(w) and len(x.ty.shape) >= 2 and not any(map(is_zero, x.ty.shape))

    def _rewrite(self, call: relax.Call) -> Expr:
        x, w = call.args
        depth, columns = (int(size) for size in w.ty.shape)
        kind = self._kind(x, depth, columns)
        weight = packed_weight(kind, depth, columns, compute_dtype(str(w.ty.dtype)), self.cpu)
        if (w, kind) not in self.packed:
            self.packed[w, kind] = self.builder_.emit(self._pack(w, kind, weight))
        return self.builder_.call_te(
            lambda x, packed: packed_product(x, packed, kind, weight),
            self.visit_expr(x),
            self.packed[w, kind],
            primfunc_name_hint="matmul",
            primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )

    def _pack(self, w: relax.Var, kind: Kind, weight: PackedWeight) -> relax.Call:
        transposed = self.weights.definition(w, "relax.permute_dims")
        is_transposed = transposed is not None and transposed.args[0] in self.weights
        return self.builder_.call_te(
            lambda w: pack(w, kind, weight, is_transposed),
            self.visit_expr(transposed.args[0] if transposed is not None and is_transposed else w),
            primfunc_name_hint="pack_weight",
            primfunc_attrs=weight.packing(is_transposed).to_attr() if kind is PLAIN else None,
        )

    def _kind(self, x: relax.Var, depth: int, columns: int) -> Kind:
        """How the weights are packed and multiplied with: as bfloat16 under ``accuracy="fast"`` where it pays."""
        if self.accuracy != "fast" or str(x.ty.dtype) != "float32":
            return PLAIN
        rows = static(product(list(x.ty.shape)[:-1]))
        if self.cpu.dot(PAIR) is not None and (rows is None or rows > 1):
            return PAIRS
        if is_memory_bound(rows, depth, columns, self.cpu):
            return ROUNDED
        return PLAIN
