"""Attention models: plain torch, and random configurations from the ``transformers`` package."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def encoder_layer(width: int, heads: int) -> nn.Module:
    """``nn.TransformerEncoderLayer``: ``[N, T, width] -> [N, T, width]``."""
    return nn.TransformerEncoderLayer(width, heads, width * 4, activation="gelu", batch_first=True)


class _Logits(nn.Module):
    """The first tensor that a ``transformers`` model returns."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.body(tokens, return_dict=False)[0]


def bert(layers: int, *, full: bool = False) -> nn.Module:
    """A BERT encoder with random weights: tokens ``[N, T] -> [N, T, width]``; ``full`` is BERT-base's width."""
    from transformers import BertConfig, BertModel

    width, heads = (768, 12) if full else (64, 4)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=width * 4,
        max_position_embeddings=512,
    )
    return _Logits(BertModel(config, add_pooling_layer=False))


def gpt2(layers: int, *, full: bool = False) -> nn.Module:
    """GPT-2 prefill with random weights: tokens ``[N, T] -> logits [N, T, vocabulary]``."""
    from transformers import GPT2Config, GPT2LMHeadModel

    width, heads = (768, 12) if full else (64, 4)
    config = GPT2Config(
        vocab_size=1000,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=512,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
        loss_type="ForCausalLM",
    )
    return _Logits(GPT2LMHeadModel(config))


class _Seq2Seq(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.body(input_ids=source, decoder_input_ids=target, return_dict=False)[0]


def t5(layers: int = 4) -> nn.Module:
    """A T5 encoder and decoder with random weights: source and target tokens ``[N, T] -> [N, T, vocabulary]``."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=1000, num_layers=layers, use_cache=False)
    return _Seq2Seq(T5ForConditionalGeneration(config))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, c))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al., 2020): ``[N, 3, image, image] -> [N, 1000]``."""

    def __init__(self, image: int, patch: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])
