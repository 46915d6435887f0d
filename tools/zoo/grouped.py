"""Convolutional networks with grouped convolutions, and older ones with wide kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


def _normed(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _GroupedBlock(nn.Module):
    """Pointwise, grouped 3x3, pointwise, and a shortcut."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _normed(inputs, width, 1), nn.ReLU(), _normed(width, width, 3, stride, groups), nn.ReLU(),
            _normed(width, outputs, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else _normed(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class GroupedNet(nn.Module):
    """ResNeXt (Xie et al., 2016) and RegNet (Radosavovic et al., 2020): ``[N, 3, H, W] -> [N, 1000]``.

    ``stages`` has (blocks, width, outputs, groups) of each.
    """

    def __init__(self, stem: int, stages: Sequence[tuple[int, int, int, int]], *, pool: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [_normed(3, stem, 7 if pool else 3, 2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2, 1)] if pool else []
        inputs = stem
        for stage, (blocks, width, outputs, groups) in enumerate(stages):
            for block in range(blocks):
                stride = 2 if block == 0 and (stage or not pool) else 1
                layers.append(_GroupedBlock(inputs, width, outputs, stride, groups))
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


def resnext(blocks: Sequence[int] = (3, 4, 6, 3)) -> nn.Module:
    """ResNeXt-50 with 32 groups of 4 channels in its first stage."""
    return GroupedNet(64, [(n, 128 << i, 256 << i, 32) for i, n in enumerate(blocks)], pool=True)


def regnet() -> nn.Module:
    """RegNetX of 400 million multiplications: groups of 16 channels."""
    widths = ((1, 32), (2, 64), (7, 160), (12, 400))
    return GroupedNet(32, [(count, width, width, width // 16) for count, width in widths], pool=False)


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.pointwise = nn.Conv2d(squeezed, expanded, 1)
        self.spatial = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.pointwise(x)), F.relu(self.spatial(x))], 1)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al., 2016): ``[N, 3, H, W] -> [N, 1000]``."""
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), _Fire(64, 16, 64), _Fire(128, 16, 64), pool(),
        _Fire(128, 32, 128), _Fire(256, 32, 128), pool(), _Fire(256, 48, 192), _Fire(384, 48, 192),
        _Fire(384, 64, 256), _Fire(512, 64, 256), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def alexnet() -> nn.Module:
    """AlexNet (Krizhevsky, 2014): ``[N, 3, 224, 224] -> [N, 1000]``."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
    )  # fmt: skip
