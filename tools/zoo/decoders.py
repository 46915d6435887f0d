"""Language models written out: one decoding step with a cache of keys and values, and LLaMA's block."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class _DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        key, value = qkv[1], qkv[2]
        y = F.scaled_dot_product_attention(qkv[0], torch.cat([keys, key], 2), torch.cat([values, value], 2))
        x = x + self.project(y.transpose(1, 2).reshape(n, t, c))
        x = x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))
        return x, key, value


class DecodeStep(nn.Module):
    """One token through a GPT-2-like decoder.

    Token ``[N, 1]`` and a cache of keys and of values, each ``[N, layers, heads, T, width / heads]``, give the logits
    ``[N, 1, vocabulary]`` and the token's own keys and values, each ``[N, layers, heads, 1, width / heads]``.
    """

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int = 1000) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(1024, width) * 0.02)
        self.blocks = nn.ModuleList(_DecoderBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(
        self, token: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.tokens(token) + self.positions[keys.shape[3]]
        new_keys, new_values = [], []
        for index, block in enumerate(self.blocks):
            x, key, value = block(x, keys[:, index], values[:, index])
            new_keys.append(key)
            new_values.append(value)
        return self.head(self.norm(x)), torch.stack(new_keys, 1), torch.stack(new_values, 1)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x²) + eps) * weight`` over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class LlamaBlock(nn.Module):
    """RMSNorm, rotary positions, grouped causal attention and SwiGLU (Touvron et al., 2023): ``[N, T, width]``."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int, longest: int = 2048) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, groups * self.size, bias=False)
        self.value = nn.Linear(width, groups * self.size, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        frequency = 10000.0 ** (-torch.arange(0, self.size, 2) / self.size)
        angle = torch.outer(torch.arange(longest).float(), frequency).repeat(1, 2)
        self.cos = nn.Buffer(angle.cos())
        self.sin = nn.Buffer(angle.sin())

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[2]
        half = self.size // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos[:length] + turned * self.sin[:length]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        y = self.norm1(x)
        query = self.query(y).view(n, t, self.heads, self.size).transpose(1, 2)
        key = self.key(y).view(n, t, self.groups, self.size).transpose(1, 2)
        value = self.value(y).view(n, t, self.groups, self.size).transpose(1, 2)
        times = self.heads // self.groups
        key = self._rotate(key).repeat_interleave(times, 1)
        value = value.repeat_interleave(times, 1)
        y = F.scaled_dot_product_attention(self._rotate(query), key, value, is_causal=True)
        x = x + self.project(y.transpose(1, 2).reshape(n, t, c))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))
