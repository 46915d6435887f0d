"""Networks on sound, video, points and tables."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F


class WaveNet(nn.Module):
    """Dilated causal convolutions with gates (van den Oord et al., 2016): ``[N, 1, T] -> [N, 256, T]``."""

    def __init__(self, width: int = 64, layers: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=1 << i) for i in range(layers))
        self.mixes = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.last = nn.Conv1d(width, 256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        total = torch.zeros_like(x)
        for gate, mix in zip(self.gates, self.mixes, strict=True):
            wave, open_ = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            y = mix(torch.tanh(wave) * torch.sigmoid(open_))
            x, total = x + y, total + y
        return self.last(F.relu(total))


class _ConformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)) for _ in range(2)
        )
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.project = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        x = x + 0.5 * self.feed[0](self.norms[0](x))
        qkv = self.qkv(self.norms[1](x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        y = F.glu(self.expand(self.norms[2](x).transpose(1, 2)), 1)
        y = self.project(F.silu(self.batch_norm(self.depthwise(y))))
        x = x + y.transpose(1, 2)
        return self.norms[4](x + 0.5 * self.feed[1](self.norms[3](x)))


def conformer(width: int = 256, layers: int = 4) -> nn.Module:
    """Attention and depthwise convolution for speech (Gulati et al., 2020): ``[N, T, width]`` to the same."""
    return nn.Sequential(*(_ConformerBlock(width, 4, 31) for _ in range(layers)))


class _VideoBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs)
        self.conv2, self.norm2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm3d(outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class VideoResNet(nn.Module):
    """ResNet-18 in three dimensions (Tran et al., 2017): ``[N, 3, T, H, W] -> [N, 400]``."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(width), nn.ReLU()
        ]  # fmt: skip
        inputs = width
        for stage in range(4):
            for stride in (2 if stage else 1, 1):
                layers.append(_VideoBlock(inputs, width << stage, stride))
                inputs = width << stage
        self.features, self.head = nn.Sequential(*layers), nn.Linear(inputs, 400)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3, 4)))


class PointNet(nn.Module):
    """A point cloud (Qi et al., 2017): ``[N, 3, points] -> [N, 40]``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 64), (64, 128), (128, 1024)):
            layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(1024, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Linear(256, 40),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).amax(2))


class Recommender(nn.Module):
    """DLRM (Naumov et al., 2019): features ``[N, 13]`` and 26 categories ``[N, 26]`` to ``[N, 1]``."""

    def __init__(self, rows: int = 10000, width: int = 64) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in range(26))
        self.bottom = nn.Sequential(
            nn.Linear(13, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, width), nn.ReLU()
        )
        self.top = nn.Sequential(
            nn.Linear(width + 27 * 26 // 2, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 1)
        )
        self.register_buffer("pairs", torch.tril_indices(27, 27, -1), persistent=False)

    def forward(self, features: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        dense = self.bottom(features)
        vectors = torch.stack([dense, *(table(categories[:, i]) for i, table in enumerate(self.tables))], 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return torch.sigmoid(self.top(torch.cat([dense, products[:, self.pairs[0], self.pairs[1]]], 1)))


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        mlp = lambda size, hidden: nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.norm1, self.tokens = nn.LayerNorm(width), mlp(tokens, width // 2)
        self.norm2, self.channels = nn.LayerNorm(width), mlp(width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


def mixer(width: int = 512, layers: int = 8) -> nn.Module:
    """MLP-Mixer (Tolstikhin et al., 2021) on patches ``[N, 196, width]``, to the same."""
    return nn.Sequential(*(_MixerBlock(196, width) for _ in range(layers)))


class RadianceField(nn.Module):
    """Positions of rays to colour and density (Mildenhall et al., 2020): ``[N, 3] -> [N, 4]``."""

    def __init__(self, width: int = 256, octaves: int = 10) -> None:
        super().__init__()
        self.register_buffer("scales", 2.0 ** torch.arange(octaves), persistent=False)
        sizes = [6 * octaves, *[width] * 6]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = (x[:, :, None] * self.scales).flatten(1)
        x = torch.cat([torch.sin(angles), torch.cos(angles)], 1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)
