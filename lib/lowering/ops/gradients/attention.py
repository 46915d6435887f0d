"""The gradient of scaled dot-product attention."""

from __future__ import annotations

from typing import TypeAlias

from tvm import relax, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.networks.attention import scale_of, scores_of
from torch_tvm.lowering.ops.networks.matmul import product_of
from torch_tvm.lowering.ops.reductions.folds import total
from torch_tvm.lowering.ops.shapes.views import permute, unsqueeze_at
from torch_tvm.lowering.pointwise import pointwise, scaled
from torch_tvm.lowering.registry import Tensor, register

Expr: TypeAlias = relax.Expr


def flash_attention_for_cpu_backward(
    b: Builder,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> list[Expr]:
    """aten::_scaled_dot_product_flash_attention_for_cpu_backward(Tensor grad_out, Tensor query, Tensor key,
    Tensor value, Tensor out, Tensor logsumexp, float dropout_p, bool is_causal, *, Tensor? attn_mask=None,
    float? scale=None) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value)"""
    if dropout_p:
        b.unsupported("attention with dropout is random")
    dtype = b.dtype(query)
    scores, _ = scores_of(b, query, key, attn_mask, is_causal, scale)
    wide = b.dtype(scores)
    grad, q, k, v, out = (b.cast(x, wide) for x in (grad, query, key, value, out))
    transposed = lambda x: permute(b, x, [0, 1, 3, 2])
    # FlashAttention-2 (Dao, 2023), algorithm 2: the softmax again from its saved normaliser, row sums of out * grad.
    shares = pointwise(
        b, lambda s, n: tirx.exp(s - n), scores, unsqueeze_at(b, b.cast(logsumexp, wide), 3), result=wide
    )
    products = pointwise(b, lambda o, g: o * g, out, grad, result=wide)
    sums = total(b, products, [3], True, accumulate=wide, result=wide)
    slopes = pointwise(b, lambda p, d, s: p * (d - s), shares, product_of(b, grad, transposed(v)), sums, result=wide)
    slopes = scaled(b, slopes, scale_of(b, query, scale))
    results = product_of(b, slopes, k), product_of(b, transposed(slopes), q), product_of(b, transposed(shares), grad)
    return [b.cast(result, dtype) for result in results]


register(
    "torch.aten._scaled_dot_product_flash_attention_for_cpu_backward",
    flash_attention_for_cpu_backward,
    custom=True,
)
