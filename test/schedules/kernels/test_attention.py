"""Fused attention against eager PyTorch: both spellings, masks, grouped queries, odd and dynamic sizes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tvm import relax, tirx

from ..relax_models import Compiled, check, var

op = relax.op


def operator(shape, keys=None, value_depth=None, causal=None, bias=None, dtype="float32") -> Compiled:
    """``R.nn.attention`` on [batch, tokens, heads, depth]."""
    b, s, h, d = shape
    keys = s if keys is None else keys
    params = [
        var("q", shape, dtype),
        var("k", (b, keys, h, d), dtype),
        var("v", (b, keys, h, value_depth or d), dtype),
    ]
    if bias is not None:
        params.append(var("bias", bias, dtype))
    body = lambda emit, *args: emit(op.nn.attention(*args, causal_mask=causal))
    return Compiled(params, len(params), body)


def eager(q, k, v, mask=None):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)


def check_operator(model, shape, keys=None, value_depth=None, mask=None, extra=(), dtype=torch.float32) -> None:
    b, s, h, d = shape
    keys = s if keys is None else keys
    q, k = torch.randn(b, s, h, d, dtype=dtype), torch.randn(b, keys, h, d, dtype=dtype)
    v = torch.randn(b, keys, h, value_depth or d, dtype=dtype)
    exact = eager(q.double(), k.double(), v.double(), None if mask is None else mask.double())
    check(model(q, k, v, *extra), eager(q, k, v, mask), exact)


def causal_mask(rows: int, keys: int, offset: int) -> torch.Tensor:
    visible = torch.arange(keys)[None, :] <= torch.arange(rows)[:, None] + offset
    return torch.zeros(rows, keys).masked_fill(~visible, -math.inf)


@pytest.mark.parametrize(
    ("shape", "keys", "value_depth"),
    [
        ((1, 1, 1, 1), 1, 1),
        ((2, 7, 3, 5), 7, 5),
        ((1, 1, 2, 8), 33, 8),
        ((1, 64, 2, 64), 64, 64),
        ((2, 33, 2, 24), 70, 20),
        ((1, 20, 1, 16), 600, 48),
        ((1, 130, 1, 16), 1100, 16),
        ((2, 49, 3, 32), 49, 32),
        ((1, 50, 2, 12), 23, 16),
        ((1, 13, 1, 8), 18, 8),
        ((1, 8, 1, 8), 5, 8),
    ],
)
def test_operator(shape, keys, value_depth) -> None:
    model = operator(shape, keys, value_depth)
    assert model.rules() == ["attention"]
    check_operator(model, shape, keys, value_depth)


@pytest.mark.parametrize(("rows", "keys"), [(9, 9), (70, 70), (20, 30), (30, 20), (40, 700)])
@pytest.mark.parametrize("causal", ["TopLeft", "BottomRight"])
def test_causal(rows: int, keys: int, causal: str) -> None:
    """A row that sees no key at all (bottom right, more rows than keys) is zero."""
    mask = causal_mask(rows, keys, 0 if causal == "TopLeft" else keys - rows)
    check_operator(operator((1, rows, 2, 16), keys, causal=causal), (1, rows, 2, 16), keys, mask=mask)


@pytest.mark.parametrize("bias", [(2, 3, 17, 40), (1, 1, 17, 40), (2, 1, 1, 40)])
def test_additive_mask(bias: tuple[int, ...]) -> None:
    mask = torch.randn(bias)
    mask[..., 5] = -math.inf
    model = operator((2, 17, 3, 8), 40, bias=bias)
    check_operator(model, (2, 17, 3, 8), 40, mask=mask, extra=(mask,))


@pytest.mark.parametrize("keys", [9, 47, 49])
def test_a_mask_ends_with_the_last_key(keys: int) -> None:
    """Keys that fill no vector: what lies behind the mask is not read."""
    mask = torch.randn(1, 2, 49, keys)
    model = operator((1, 49, 2, 8), keys, bias=(1, 2, 49, keys))
    check_operator(model, (1, 49, 2, 8), keys, mask=mask, extra=(mask,))


@pytest.mark.parametrize("keys", [24, 520])
def test_row_without_keys_is_zero(keys: int) -> None:
    mask = torch.zeros(1, 1, 10, keys)
    mask[0, 0, 3] = -math.inf
    check_operator(operator((1, 10, 1, 8), keys, bias=(1, 1, 10, keys)), (1, 10, 1, 8), keys, mask=mask, extra=(mask,))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("operand", [0, 1, 2])
@pytest.mark.parametrize("tokens", [40, 600])
def test_nan_and_infinity_spread_as_in_eager(nonfinite, operand: int, value: float, tokens: int) -> None:
    model = nonfinite[tokens]
    q, k, v = args = [torch.randn(1, tokens, 1, 16) for _ in range(3)]
    args[operand][0, 4, 0, 0] = value
    check(model(q, k, v), eager(q, k, v), eager(q.double(), k.double(), v.double()))


@pytest.fixture(scope="module")
def nonfinite() -> dict[int, Compiled]:
    return {tokens: operator((1, tokens, 1, 16)) for tokens in (40, 600)}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    shape = (1, 20, 2, 16)
    check_operator(operator(shape, dtype=dtype), shape, dtype=getattr(torch, dtype))


def test_float64_is_left_to_other_rules() -> None:
    model = operator((1, 5, 2, 8), dtype="float64")
    assert "attention" not in model.rules()
    q, k, v = (torch.randn(1, 5, 2, 8, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(model(q, k, v), eager(q, k, v))


def test_all_sizes_dynamic() -> None:
    batch, rows, keys = (tirx.Var(name, "int64") for name in ("batch", "rows", "keys"))
    model = operator((batch, rows, 2, 16), keys)
    assert model.rules() == ["attention"]
    for b, s, n in ((1, 1, 1), (2, 3, 0), (2, 3, 5), (1, 8, 64), (1, 31, 33), (2, 70, 100), (1, 5, 1100)):
        check_operator(model, (b, s, 2, 16), n)


def test_dynamic_causal() -> None:
    rows = tirx.Var("rows", "int64")
    model = operator((1, rows, 2, 16), rows, causal="TopLeft")
    for s in (1, 7, 8, 65, 600):
        check_operator(model, (1, s, 2, 16), s, mask=causal_mask(s, s, 0))


def chain(shape, keys, masks=(), score=lambda emit, s, *masks: s, key_heads=None) -> Compiled:
    """Attention spelled out on [batch, tokens, heads * depth] projections, as tracing gives it."""
    b, s, h, d = shape
    key_heads = key_heads or h

    def heads(emit, x, tokens, count):
        x = emit(op.permute_dims(emit(op.reshape(x, (b, tokens, count, d))), [0, 2, 1, 3]))
        if count == h:
            return x
        x = emit(op.expand_dims(x, [2]))
        x = emit(op.broadcast_to(x, (b, count, h // count, tokens, d)))
        return emit(op.reshape(x, (b, h, tokens, d)))

    def body(emit, q, k, v, *masks):
        q, k, v = heads(emit, q, s, h), heads(emit, k, keys, key_heads), heads(emit, v, keys, key_heads)
        scores = emit(op.matmul(q, emit(op.permute_dims(k, [0, 1, 3, 2]))))
        scores = emit(op.divide(scores, relax.const(math.sqrt(d), "float32")))
        weights = emit(op.nn.softmax(score(emit, scores, *masks), -1))
        mixed = emit(op.permute_dims(emit(op.matmul(weights, v)), [0, 2, 1, 3]))
        return emit(op.reshape(mixed, (b, s, h * d)))

    params = [var("q", (b, s, h * d)), var("k", (b, keys, key_heads * d)), var("v", (b, keys, key_heads * d))]
    params += [var(f"mask{i}", size, dtype) for i, (size, dtype) in enumerate(masks)]
    return Compiled(params, len(params), body)


def check_chain(model, shape, keys, masks=(), score=lambda s, *masks: s, key_heads=None) -> None:
    b, s, h, d = shape
    key_heads = key_heads or h
    q, k, v = (
        torch.randn(b, s, h * d),
        torch.randn(b, keys, key_heads * d),
        torch.randn(b, keys, key_heads * d),
    )

    def reference(q, k, v, *masks):
        q = q.view(b, s, h, d).transpose(1, 2)
        k, v = (t.view(b, keys, key_heads, d).transpose(1, 2) for t in (k, v))
        k, v = (t.repeat_interleave(h // key_heads, 1) for t in (k, v))
        weights = torch.softmax(score(q @ k.transpose(2, 3) / math.sqrt(d), *masks), -1)
        return (weights @ v).transpose(1, 2).reshape(b, s, h * d)

    double = [m.double() if m.is_floating_point() else m for m in masks]
    check(
        model(q, k, v, *masks),
        reference(q, k, v, *masks),
        reference(q.double(), k.double(), v.double(), *double),
    )


def is_fused(model: Compiled) -> bool:
    """Whether attention is one kernel; beside it only a reshape is left."""
    return model.rules().count("attention") == 1 and len(model.rules()) <= 2


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_chain_is_one_kernel(key_heads: int) -> None:
    model = chain((2, 13, 4, 16), 19, key_heads=key_heads)
    assert is_fused(model)
    check_chain(model, (2, 13, 4, 16), 19, key_heads=key_heads)


def test_chain_with_additive_mask() -> None:
    shape = (2, 1, 1, 19)
    mask = torch.randn(shape)
    model = chain((2, 13, 4, 16), 19, [(shape, "float32")], lambda emit, s, m: emit(op.add(s, m)))
    assert is_fused(model)
    check_chain(model, (2, 13, 4, 16), 19, [mask], lambda s, m: s + m)


@pytest.mark.parametrize("fill", [-math.inf, -3.0e38])
def test_chain_with_boolean_mask(fill: float) -> None:
    """Rows that see no key at all are NaN where the mask fills with -inf, as in eager's softmax."""
    shape = (1, 1, 13, 19)
    mask = torch.rand(shape) > 0.5
    mask[0, 0, 2] = False
    score = lambda emit, s, m: emit(op.where(m, s, relax.const(fill, "float32")))
    model = chain((2, 13, 4, 16), 19, [(shape, "bool")], score)
    assert is_fused(model)
    check_chain(model, (2, 13, 4, 16), 19, [mask], lambda s, m: s.masked_fill(~m, fill))


def test_chain_on_three_axes() -> None:
    def body(emit, q, k, v):
        scores = emit(op.matmul(q, emit(op.permute_dims(k, [0, 2, 1]))))
        return emit(op.matmul(emit(op.nn.softmax(scores, -1)), v))

    model = Compiled([var("q", (6, 11, 8)), var("k", (6, 9, 8)), var("v", (6, 9, 12))], 3, body)
    assert is_fused(model)
    q, k, v = torch.randn(6, 11, 8), torch.randn(6, 9, 8), torch.randn(6, 9, 12)
    reference = lambda q, k, v: torch.softmax(q @ k.transpose(1, 2), -1) @ v
    check(model(q, k, v), reference(q, k, v), reference(q.double(), k.double(), v.double()))


def test_weights_that_are_used_elsewhere_are_not_fused_away() -> None:
    def body(emit, q, k, v):
        weights = emit(op.nn.softmax(emit(op.matmul(q, emit(op.permute_dims(k, [0, 2, 1])))), -1))
        return emit(op.add(emit(op.matmul(weights, v)), emit(op.sum(weights, -1, keepdims=True))))

    model = Compiled([var("q", (2, 5, 8)), var("k", (2, 9, 8)), var("v", (2, 9, 8))], 3, body)
    assert "attention" not in model.rules()
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 9, 8), torch.randn(2, 9, 8)

    def reference(q, k, v):
        weights = torch.softmax(q @ k.transpose(1, 2), -1)
        return weights @ v + weights.sum(-1, keepdim=True)

    check(model(q, k, v), reference(q, k, v), reference(q.double(), k.double(), v.double()))


@pytest.mark.parametrize("shape", [(0, 4, 2, 8), (1, 0, 2, 8)])
def test_empty(shape: tuple[int, ...]) -> None:
    model = operator(shape)
    q, k, v = (torch.randn(shape) for _ in range(3))
    assert model(q, k, v).shape == shape


def test_keys_that_are_transposed_in_memory() -> None:
    def body(emit, q, kt, v):
        return emit(op.matmul(emit(op.nn.softmax(emit(op.matmul(q, kt)), -1)), v))

    model = Compiled([var("q", (2, 3, 21, 16)), var("kt", (2, 3, 16, 50)), var("v", (2, 3, 50, 16))], 3, body)
    assert is_fused(model)
    q, kt, v = torch.randn(2, 3, 21, 16), torch.randn(2, 3, 16, 50), torch.randn(2, 3, 50, 16)
    reference = lambda q, kt, v: torch.softmax(q @ kt, -1) @ v
    check(model(q, kt, v), reference(q, kt, v), reference(q.double(), kt.double(), v.double()))


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_parts_of_a_split_are_read_in_place(is_dynamic: bool) -> None:
    """GPT-2's joint projection: one product, and attention on its three parts."""
    heads, depth = 2, 16
    width = heads * depth
    tokens = tirx.Var("tokens", "int64") if is_dynamic else 23

    def body(emit, x, w, b):
        joint = emit(op.add(emit(op.matmul(x, w)), b))
        parts = emit(op.split(joint, 3, axis=-1))
        views = [emit(op.reshape(emit(relax.TupleGetItem(parts, i)), (1, tokens, heads, depth))) for i in range(3)]
        return emit(op.nn.attention(*views, causal_mask="TopLeft"))

    model = Compiled([var("x", (1, tokens, width)), var("w", (width, 3 * width)), var("b", (3 * width,))], 1, body)
    assert sorted(r for r, d in zip(model.rules(), model.decisions, strict=True) if "pack" not in d.kernel) == [
        "attention",
        "matmul",
    ]

    def reference(x, w, b):
        q, k, v = (t.view(1, -1, heads, depth).transpose(1, 2) for t in (x @ w + b).split(width, -1))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    for size in (1, 23, 40) if is_dynamic else (23,):
        x, w, b = torch.randn(1, size, width), torch.randn(width, 3 * width), torch.randn(3 * width)
        check(model(x, w, b), reference(x, w, b), reference(x.double(), w.double(), b.double()))
