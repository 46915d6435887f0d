"""Softmax and its logarithm."""

from __future__ import annotations

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.registry import DType, Tensor, lowers

R = relax.op
Expr = relax.Expr

_REDUCED = ("float16", "bfloat16")


def softmax_over(b: Builder, x: Expr, axis: int, *, log: bool = False) -> Expr:
    """Softmax in the dtype of ``x``; half precisions are computed in float32."""
    dtype = b.dtype(x)
    if b.rank(x) == 0:
        return b.reshape(softmax_over(b, b.reshape(x, [1]), 0, log=log), [])
    wide = b.cast(x, "float32") if dtype in _REDUCED else x
    function = R.nn.log_softmax if log else R.nn.softmax
    return b.cast(b.emit(function(wide, b.axis(axis, b.rank(x)))), dtype)


@lowers("torch.aten.softmax.int")
def softmax(b: Builder, x: Tensor, dim: int, dtype: DType | None) -> Expr:
    """aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    return softmax_over(b, b.cast(x, b.result_dtype), dim)


@lowers("torch.aten.log_softmax.int")
def log_softmax(b: Builder, x: Tensor, dim: int, dtype: DType | None) -> Expr:
    """aten::log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor"""
    return softmax_over(b, b.cast(x, b.result_dtype), dim, log=True)


@lowers("torch.aten._softmax")
def _softmax(b: Builder, x: Tensor, dim: int, half_to_float: bool) -> Expr:
    """aten::_softmax(Tensor self, int dim, bool half_to_float) -> Tensor"""
    return softmax_over(b, b.cast(x, b.result_dtype), dim)


@lowers("torch.aten._log_softmax")
def _log_softmax(b: Builder, x: Tensor, dim: int, half_to_float: bool) -> Expr:
    """aten::_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor"""
    return softmax_over(b, b.cast(x, b.result_dtype), dim, log=True)


@lowers("torch.aten._safe_softmax")
def _safe_softmax(b: Builder, x: Tensor, dim: int, dtype: DType | None) -> Expr:
    """aten::_safe_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor: rows of -inf give 0"""
    x = b.cast(x, b.result_dtype)
    return zero_where_masked(b, softmax_over(b, x, dim), x, b.axis(dim, b.rank(x)))


def zero_where_masked(b: Builder, probabilities: Expr, scores: Expr, axis: int) -> Expr:
    """``probabilities`` with 0 in the rows (along ``axis``) whose scores are all -inf."""
    if b.rank(scores) == 0:
        return b.unsupported("a 0-d tensor")
    dtype = b.dtype(scores)

    def masked(p: te.Tensor, s: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, s.shape[axis]), name="k")
        rows = [size for i, size in enumerate(s.shape) if i != axis]

        def alive(*i: tirx.Var) -> tirx.Expr:
            value = s(*i[:axis], k, *i[axis:])
            return te.max(tirx.Cast("int32", value != tirx.const(float("-inf"), dtype)), axis=k)

        seen = te.compute(rows, alive, name="seen")
        zero = tirx.const(0, dtype)
        return te.compute(
            p.shape, lambda *i: tirx.Select(seen(*i[:axis], *i[axis + 1 :]) > 0, p(*i), zero), name="safe"
        )

    return b.te(masked, probabilities, scores)
