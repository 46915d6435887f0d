"""Scaled dot-product attention, spelled as two products around a softmax."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from tvm import relax, te, tirx

from torch_tvm.aten.libraries import RANDOM_NUMBERS
from torch_tvm.lowering.builder import Builder, InLibrary
from torch_tvm.lowering.ops.networks.matmul import product_of
from torch_tvm.lowering.ops.reductions.softmax import softmax_over
from torch_tvm.lowering.ops.shapes.views import expand_to, permute, reshape, unsqueeze_at
from torch_tvm.lowering.pointwise import scaled
from torch_tvm.lowering.registry import Tensor, lowers, register
from torch_tvm.tir import SizeLike, as_size, compute_dtype, product

R = relax.op
Expr: TypeAlias = relax.Expr


def attend(b: Builder, q: Expr, k: Expr, v: Expr, mask: Expr | None, causal: bool, scale: float | None) -> Expr:
    """``softmax(scale·q @ kᵀ + bias) @ v`` over ``(…, L, E)``, ``(…, S, E)``, ``(…, S, D)``.

    A row whose mask hides every key gives 0, as in ATen.
    """
    scores, bias = scores_of(b, q, k, mask, causal, scale)
    result = product_of(b, softmax_over(b, scores, -1), b.cast(v, b.dtype(scores)))
    if mask is not None and bias is not None and not causal:
        result = _zero_hidden_rows(b, result, bias)
    return b.cast(result, b.dtype(q))


def scores_of(
    b: Builder, q: Expr, k: Expr, mask: Expr | None, causal: bool, scale: float | None
) -> tuple[Expr, Expr | None]:
    """``scale·q @ kᵀ + bias``, at least in single precision, and the bias."""
    dtype, rank = b.dtype(q), b.rank(k)
    wide = compute_dtype(dtype)
    q, k = b.cast(q, wide), b.cast(k, wide)
    keys = permute(b, k, [*range(rank - 2), rank - 1, rank - 2])
    scores = scaled(b, product_of(b, q, keys), scale_of(b, q, scale))
    bias = _bias(b, mask, wide)
    if causal:
        bias = _causal_bias(b, b.shape(q)[-2], b.shape(k)[-2], wide)
    return (scores if bias is None else b.emit(R.add(scores, bias))), bias


def scale_of(b: Builder, q: Expr, scale: float | None) -> float | Expr:
    if scale is not None:
        return scale
    width = b.shape(q)[-1]
    if isinstance(width, int):
        return 1.0 / math.sqrt(width) if width else 0.0
    return b.emit(R.rsqrt(b.tensor(width, b.dtype(q))))


def _bias(b: Builder, mask: Expr | None, dtype: str) -> Expr | None:
    """The mask as an additive term: -inf where a boolean mask hides a key."""
    if mask is None or b.dtype(mask) != "bool":
        return None if mask is None else b.cast(mask, dtype)
    hidden = b.const(float("-inf"), dtype)
    return b.emit(R.where(mask, b.const(0.0, dtype), hidden))


def _causal_bias(b: Builder, rows: SizeLike, columns: SizeLike, dtype: str) -> Expr:
    """(L, S): 0 on and below the diagonal from the top left corner, -inf above."""

    def bias(shape: list[Any]) -> te.Tensor:
        zero, hidden = tirx.const(0.0, dtype), tirx.const(float("-inf"), dtype)
        return te.compute(
            [as_size(s) for s in shape], lambda i, j: tirx.Select(j <= i, zero, hidden), name="causal_bias"
        )

    return b.te(bias, [rows, columns], name="causal_bias")


def _zero_hidden_rows(b: Builder, x: Expr, bias: Expr) -> Expr:
    """0 in the rows of ``x`` whose bias is -inf everywhere; ``bias`` is (…, L or 1, S or 1)."""
    if b.rank(bias) < 1:
        b.unsupported("a 0-d mask")
    dtype = b.dtype(bias)

    def visible(data: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, data.shape[-1]), name="k")

        def any_key(*i: Any) -> Any:
            seen = data(*i[:-1], k) != tirx.const(float("-inf"), dtype)
            return te.max(tirx.Cast("int32", seen), axis=k)

        return te.compute((*data.shape[:-1], 1), any_key, name="visible")

    alive = b.cast(b.te(visible, bias, name="visible_rows"), "bool")
    return b.emit(R.where(alive, x, b.const(0.0, b.dtype(x))))


def _repeat_heads(b: Builder, x: Expr, heads: SizeLike) -> Expr:
    """Each of the heads (dimension -3) as often as a group of query heads shares it."""
    shape = b.shape(x)
    own = shape[-3]
    if not isinstance(own, int) or not isinstance(heads, int) or heads % own:
        b.unsupported("the number of query heads is no known multiple of the key heads")
    if own == heads:
        return x
    axis = len(shape) - 2
    grouped = unsqueeze_at(b, x, axis)
    wide = expand_to(b, grouped, [*shape[:axis], heads // own, *shape[axis:]])
    return reshape(b, wide, [*shape[: axis - 1], product([own, heads // own]), *shape[axis:]])


@lowers("torch.aten.scaled_dot_product_attention")
def scaled_dot_product_attention(
    b: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Expr:
    """aten::scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None,
    float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor"""
    if dropout_p:
        raise InLibrary(RANDOM_NUMBERS)
    if is_causal and attn_mask is not None:
        b.unsupported("both a mask and is_causal")
    if min(b.rank(x) for x in (query, key, value)) < 2:
        b.unsupported("attention of tensors of rank below 2")
    if enable_gqa:
        heads = b.shape(query)[-3]
        key, value = _repeat_heads(b, key, heads), _repeat_heads(b, value, heads)
    return attend(b, query, key, value, attn_mask, is_causal, scale)


def flash_attention_for_cpu(
    b: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> list[Expr]:
    """aten::_scaled_dot_product_flash_attention_for_cpu(Tensor query, Tensor key, Tensor value,
    float dropout_p=0.0, bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None)
    -> (Tensor output, Tensor logsumexp)"""
    if dropout_p:
        raise InLibrary(RANDOM_NUMBERS)
    output = attend(b, query, key, value, attn_mask, is_causal, scale)
    scores, _ = scores_of(b, query, key, attn_mask, is_causal, scale)
    peak = b.emit(R.max(scores, axis=-1, keepdims=True))
    total = b.emit(R.sum(b.emit(R.exp(b.emit(R.subtract(scores, peak)))), axis=-1, keepdims=True))
    logsumexp = b.emit(R.add(b.emit(R.log(total)), peak))
    return [output, reshape(b, logsumexp, b.shape(scores)[:-1])]


register("torch.aten._scaled_dot_product_flash_attention_for_cpu", flash_attention_for_cpu, custom=True)
