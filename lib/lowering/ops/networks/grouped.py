"""Products of groups of rows with a matrix for each group: mixtures of experts."""

from __future__ import annotations

from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.conversion import convert, loaded
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.tir import compute_dtype

Expr: TypeAlias = relax.Expr


def grouped_mm_fallback(b: Builder, x: Tensor, weight: Tensor, offs: Tensor) -> Expr:
    """transformers::grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor

    Group ``g`` are the rows from ``offs[g - 1]`` to ``offs[g]``; rows after the last group give zeros.
    """
    if b.rank(x) != 2 or b.rank(weight) != 3:
        b.unsupported("groups of other than rows")
    groups, out = b.shape(weight)[0], b.result_dtype
    inner = compute_dtype(out)

    def group(ends: te.Tensor, rows: Any) -> te.Tensor:
        g = te.reduce_axis((0, groups), "g")
        is_after = lambda s: tirx.Cast("int64", tirx.Cast("int64", ends(g)) <= tirx.Cast("int64", s))
        return te.compute(list(rows), lambda s: te.sum(is_after(s), axis=[g]), name="group")

    def product(rows: te.Tensor, matrices: te.Tensor, which: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, rows.shape[1]), "k")

        def term(s: Any, n: Any) -> Any:
            matrix = tirx.min(which(s), tirx.const(groups - 1, "int64"))
            factors = [convert(loaded(v), inner) for v in (rows(s, k), matrices(matrix, k, n))]
            return tirx.Select(which(s) < groups, factors[0] * factors[1], tirx.const(0, inner))

        sums = te.compute((rows.shape[0], matrices.shape[2]), lambda *i: te.sum(term(*i), axis=[k]), name="sum")
        return te.compute(sums.shape, lambda *i: convert(sums(*i), out), name="grouped")

    which = b.te(group, offs, relax.ShapeExpr([x.ty.shape.values[0]]), name="group")
    return b.te(product, x, weight, which, name="grouped_mm")


def grouped_mm(b: Builder, x: Tensor, mat2: Tensor, offs: Tensor | None, bias: None, out_dtype: Any) -> Expr:
    """aten::_grouped_mm(Tensor self, Tensor mat2, Tensor? offs=None, Tensor? bias=None, ScalarType? out_dtype=None)"""
    if offs is None:
        b.unsupported("groups without offsets")
    return grouped_mm_fallback(b, x, mat2, offs)


register("torch.aten._grouped_mm", grouped_mm, custom=True)
register("torch.transformers.grouped_mm_fallback", grouped_mm_fallback, custom=True)
