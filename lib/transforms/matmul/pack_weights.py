"""Pack the weights of linear layers for the register tiles of :mod:`torch_tvm.schedules.cpu.matmul.rule`.

    y = matmul(x, permute_dims(w))            # w: [N, K]
becomes
    p = pack(w)                               # [ceil(N / NR), K, NR]; what follows column N is never stored
    y[…, n] = sum_k x[…, k] * p[n // NR, k, n % NR]

``pack`` depends on weights alone, so :mod:`torch_tvm.transforms.params.split` moves it to compile time. The
product is one PrimFunc whose op pattern lets FuseOps put bias, activation and residual behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.tiling import panel_vectors
from torch_tvm.schedules.instructions.dots import PAIR
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import ceil_div, compute_dtype, is_zero, product, static
from torch_tvm.transforms.base import Transform, current_cpu
from torch_tvm.transforms.matmul.bfloat16_weights import (
    is_memory_bound,
    pack_pairs,
    pack_rounded_panels,
    paired_matmul,
    rounded_matmul,
)
from torch_tvm.transforms.params.weight_prepacking import host_attribute, panel_steps
from torch_tvm.transforms.params.weights import Weights, is_full_matrix

OUT_ELEMWISE_FUSABLE = 4

Te = Callable[..., te.Tensor]


@dataclass(frozen=True)
class PackMatmulWeights(Transform):
    """Weights of linear layers are packed for the register tiles of the product's schedule.

    ``matmul(x, permute_dims(w))``  →  ``call_tir(matmul, (x, pack(w)))``, in functions with ``num_input``.
    With ``accuracy="fast"``, weights that are read by few rows are kept as bfloat16, as are all where the
    processor multiplies bfloat16.
    """

    accuracy: str = "default"

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        cpu = current_cpu()
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function) and func.attrs and "num_input" in func.attrs:
                mod = _Packer(mod, Weights(func), cpu, self.accuracy).run(gvar, func)
        return mod


@relax.expr_functor.mutator
class _Packer(relax.PyExprMutator):
    def __init__(self, mod: tvm.IRModule, weights: Weights, cpu: CpuModel, accuracy: str) -> None:
        super().__init__(mod)
        self.weights = weights
        self.cpu = cpu
        self.accuracy = accuracy
        self.packed: dict[tuple[relax.Var, Te], relax.Var] = {}

    def run(self, gvar: tvm.ir.GlobalVar, func: relax.Function) -> tvm.IRModule:
        self.builder_.update_func(gvar, self.visit_expr(func))
        return self.builder_.get()

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
        if (
            any(not isinstance(ty.shape, relax.ShapeExpr) for ty in types)
            or len({str(ty.dtype) for ty in types}) > 1
        ):
            return False
        return is_full_matrix(w) and len(x.ty.shape) >= 2 and not any(map(is_zero, x.ty.shape))

    def _rewrite(self, call: relax.Call) -> Expr:
        x, w = call.args
        depth, columns = (int(size) for size in w.ty.shape)
        pack, product = self._forms(x, depth, columns)
        packed = self.packed.get((w, pack))
        if packed is None:
            dtype = compute_dtype(str(w.ty.dtype))
            width = panel_vectors(columns, None, self.cpu, dtype) * self.cpu.lanes(dtype)
            transposed = self.weights.definition(w, "relax.permute_dims")
            is_transposed = transposed is not None and transposed.args[0] in self.weights
            source = self.visit_expr(transposed.args[0] if transposed is not None and is_transposed else w)
            shape = [int(size) for size in source.ty.shape]
            packed = self.builder_.emit(
                self.builder_.call_te(
                    pack,
                    source,
                    width,
                    is_transposed,
                    primfunc_name_hint="pack_weight",
                    primfunc_attrs=None
                    if pack is not pack_panels
                    else host_attribute(panel_steps(shape, width, is_transposed)),
                )
            )
            self.packed[w, pack] = packed
        return self.builder_.call_te(
            product,
            self.visit_expr(x),
            packed,
            columns,
            primfunc_name_hint="matmul",
            primfunc_attrs={"op_pattern": OUT_ELEMWISE_FUSABLE},
        )

    def _forms(self, x: relax.Var, depth: int, columns: int) -> tuple[Te, Te]:
        """How the weights are packed and multiplied with: as bfloat16 under ``accuracy="fast"`` where it pays."""
        if self.accuracy != "fast" or str(x.ty.dtype) != "float32":
            return pack_panels, packed_matmul
        rows = static(product(list(x.ty.shape)[:-1]))
        if self.cpu.dot(PAIR) is not None and (rows is None or rows > 1):
            return pack_pairs, paired_matmul
        if is_memory_bound(rows, depth, columns, self.cpu):
            return pack_rounded_panels, rounded_matmul
        return pack_panels, packed_matmul


def pack_panels(w: te.Tensor, width: int, is_transposed: bool) -> te.Tensor:
    """``w`` ([N, K] if ``is_transposed``, else [K, N]) as [ceil(N / width), K, width].

    Columns after the last repeat it.
    """
    columns, depth = (int(s) for s in (w.shape if is_transposed else reversed(w.shape)))

    def element(panel: tirx.Var, k: tirx.Var, lane: tirx.Var) -> Expr:
        n = panel * width + lane
        n = n if columns % width == 0 else tirx.min(n, tirx.const(columns - 1, "int64"))
        return w[n, k] if is_transposed else w[k, n]

    return te.compute((ceil_div(columns, width), depth, width), element, name="pack")


def packed_matmul(x: te.Tensor, packed: te.Tensor, columns: int) -> te.Tensor:
    """``x`` [..., K] times a weight that :func:`pack_panels` packed: [..., columns]."""
    width = int(packed.shape[2])
    k = te.reduce_axis((0, packed.shape[1]), "k")

    def element(*point: tirx.Var) -> Expr:
        *rows, n = point
        return te.sum(x[(*rows, k)] * packed[n // width, k, n % width], axis=k)

    return te.compute((*x.shape[:-1], columns), element, name="matmul")
