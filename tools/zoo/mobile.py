"""Convolutional networks for small devices: depthwise convolutions, squeeze-excite, channel shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F


def _conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, activation (``None``: no activation)."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Channel gates from the global mean (Hu et al., 2017): ``[N, C, H, W]`` in and out."""

    def __init__(self, channels: int, squeezed: int, act: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.expand(self.act(self.reduce(scale))))


class _MobileBlock(nn.Module):
    """Expand, depthwise, optional squeeze-excite, project."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, act: Callable[[], nn.Module],
        excite: nn.Module | None,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = [_conv(inputs, hidden, 1, act=act)] if hidden != inputs else []
        layers.append(_conv(hidden, hidden, kernel, stride, hidden, act))
        layers += [excite] if excite else []
        layers.append(_conv(hidden, outputs, 1, act=None))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class _Classifier(nn.Module):
    """Features, global mean and a head: ``[N, 3, H, W] -> [N, classes]``."""

    def __init__(self, features: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


_V3_LARGE = [
    # kernel, hidden, outputs, squeeze-excite, hard-swish, stride
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
]  # fmt: skip


def mobilenet_v3(blocks: int = len(_V3_LARGE)) -> nn.Module:
    """MobileNetV3-Large (Howard et al., 2019), or its first ``blocks`` blocks."""
    layers: list[nn.Module] = [_conv(3, 16, 3, 2, act=nn.Hardswish)]
    inputs = 16
    for kernel, hidden, outputs, excites, swish, stride in _V3_LARGE[:blocks]:
        gate = SqueezeExcite(hidden, max(8, hidden // 4), nn.ReLU(), nn.Hardsigmoid()) if excites else None
        act = nn.Hardswish if swish else nn.ReLU
        layers.append(_MobileBlock(inputs, hidden, outputs, kernel, stride, act, gate))
        inputs = outputs
    layers.append(_conv(inputs, inputs * 6, 1, act=nn.Hardswish))
    return _Classifier(layers, nn.Sequential(nn.Linear(inputs * 6, 1280), nn.Hardswish(), nn.Linear(1280, 1000)))


def efficientnet(stages: int = 7) -> nn.Module:
    """EfficientNet-B0 (Tan and Le, 2019), or its first ``stages`` stages."""
    layers: list[nn.Module] = [_conv(3, 32, 3, 2, act=nn.SiLU)]
    inputs = 32
    for expand, outputs, count, stride, kernel in [
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    ][:stages]:  # fmt: skip
        for index in range(count):
            hidden = inputs * expand
            gate = SqueezeExcite(hidden, max(1, inputs // 4), nn.SiLU(), nn.Sigmoid())
            layers.append(_MobileBlock(inputs, hidden, outputs, kernel, 1 if index else stride, nn.SiLU, gate))
            inputs = outputs
    layers.append(_conv(inputs, inputs * 4, 1, act=nn.SiLU))
    return _Classifier(layers, nn.Linear(inputs * 4, 1000))


class _ShuffleBlock(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, the halves are interleaved."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.splits = stride == 1
        taken = inputs // 2 if self.splits else inputs
        self.main = nn.Sequential(_conv(taken, half, 1), _conv(half, half, 3, stride, half, None), _conv(half, half, 1))
        self.side: nn.Module = nn.Identity()
        if not self.splits:
            self.side = nn.Sequential(_conv(inputs, inputs, 3, stride, inputs, None), _conv(inputs, half, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.splits:
            side, main = x.chunk(2, 1)
        else:
            side, main = x, x
        x = torch.cat([self.side(side), self.main(main)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet(counts: Sequence[int] = (4, 8, 4)) -> nn.Module:
    """ShuffleNetV2 x1.0 (Ma et al., 2018)."""
    layers: list[nn.Module] = [_conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 24
    for stage, count in enumerate(counts):
        outputs = 116 * 2**stage
        for index in range(count):
            layers.append(_ShuffleBlock(inputs, outputs, 1 if index else 2))
            inputs = outputs
    layers.append(_conv(inputs, 1024, 1))
    return _Classifier(layers, nn.Linear(1024, 1000))
