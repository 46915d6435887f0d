"""Convolutional networks whose branches meet in concatenations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class _DenseLayer(nn.Module):
    """Batch norm, ReLU and convolution, twice; the result is appended to the input's channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """Densely connected network (Huang et al., 2016): ``[N, 3, H, W] -> [N, 1000]``."""

    def __init__(self, counts: Sequence[int] = (6, 12, 24, 16), growth: int = 32) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        for stage, count in enumerate(counts):
            if stage:
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                ]
                layers.append(nn.AvgPool2d(2, 2))
                channels //= 2
            for _ in range(count):
                layers.append(_DenseLayer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Sequential:
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False),
        nn.BatchNorm2d(outputs, eps=0.001),
        nn.ReLU(inplace=True),
    )


class _Branches(nn.Module):
    """The branches' results, concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = []
        for branch in self.branches:
            results.append(branch(x))
        return torch.cat(results, 1)


def _wide(inputs: int, pooled: int) -> _Branches:
    """1×1, 5×5, two 3×3, and average pooling."""
    return _Branches(
        _conv(inputs, 64, 1),
        nn.Sequential(_conv(inputs, 48, 1), _conv(48, 64, 5)),
        nn.Sequential(_conv(inputs, 64, 1), _conv(64, 96, 3), _conv(96, 96, 3)),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _conv(inputs, pooled, 1)),
    )


def _factored(inputs: int, width: int) -> _Branches:
    """7×7 convolutions as 1×7 and 7×1."""
    row, column = (1, 7), (7, 1)
    return _Branches(
        _conv(inputs, 192, 1),
        nn.Sequential(_conv(inputs, width, 1), _conv(width, width, row), _conv(width, 192, column)),
        nn.Sequential(
            _conv(inputs, width, 1),
            _conv(width, width, column),
            _conv(width, width, row),
            _conv(width, 192, column),
        ),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _conv(inputs, 192, 1)),
    )


class Inception(nn.Module):
    """Inception blocks as in Inception-v3 (Szegedy et al., 2015): ``[N, 3, H, W] -> [N, 1000]``."""

    def __init__(self, factored: int = 4) -> None:
        super().__init__()
        shrink = _Branches(
            _conv(288, 384, 3, 2),
            nn.Sequential(_conv(288, 64, 1), _conv(64, 96, 3), _conv(96, 96, 3, 2)),
            nn.MaxPool2d(3, 2, 1),
        )
        self.features = nn.Sequential(
            _conv(3, 32, 3, 2), _conv(32, 32, 3), _conv(32, 64, 3), nn.MaxPool2d(3, 2, 1), _conv(64, 80, 1),
            _conv(80, 192, 3), nn.MaxPool2d(3, 2, 1), _wide(192, 32), _wide(256, 64), _wide(288, 64), shrink,
            *(_factored(768, 128 + 32 * (index // 2)) for index in range(factored)),
        )  # fmt: skip
        self.head = nn.Linear(768, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))
