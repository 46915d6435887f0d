"""Networks that join images of several sizes: a detector, and a segmenter with gates."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def _unit(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class _Stage(nn.Module):
    """Half of the channels go through 3x3 convolutions, and all that these gave is joined."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        self.split, self.join = _unit(inputs, outputs), _unit((2 + depth) * half, outputs)
        self.steps = nn.ModuleList(nn.Sequential(_unit(half, half, 3), _unit(half, half, 3)) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(torch.chunk(self.split(x), 2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        return self.join(torch.cat(parts, 1))


class _Pools(nn.Module):
    """The maxima around each pixel in three sizes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = _unit(channels, channels // 2), _unit(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        small = F.max_pool2d(x, 5, 1, 2)
        middle = F.max_pool2d(small, 5, 1, 2)
        return self.leave(torch.cat([x, small, middle, F.max_pool2d(middle, 5, 1, 2)], 1))


class Detector(nn.Module):
    """A detector in one pass, after YOLO (Redmon et al., 2016): ``[N, 3, H, W] -> [N, 84, places]``."""

    def __init__(self, width: int = 32, results: int = 84) -> None:
        super().__init__()
        a, b, c, d = (width * factor for factor in (2, 4, 8, 16))
        self.stem = _unit(3, width, 3, 2)
        self.fine = nn.Sequential(_unit(width, a, 3, 2), _Stage(a, a, 1), _unit(a, b, 3, 2), _Stage(b, b, 2))
        self.middle = nn.Sequential(_unit(b, c, 3, 2), _Stage(c, c, 2))
        self.coarse = nn.Sequential(_unit(c, d, 3, 2), _Stage(d, d, 1), _Pools(d))
        self.up1, self.up2 = _Stage(d + c, c, 1), _Stage(c + b, b, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(_unit(n, 2 * width, 3), nn.Conv2d(2 * width, results, 1)) for n in (b, c, d)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.fine(self.stem(image))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.up1(torch.cat([F.interpolate(coarse, scale_factor=2.0), middle], 1))
        fine = self.up2(torch.cat([F.interpolate(middle, scale_factor=2.0), fine], 1))
        parts = [head(x).flatten(2) for head, x in zip(self.heads, (fine, middle, coarse))]  # noqa: B905
        return torch.cat(parts, 2)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class AttentionUNet(nn.Module):
    """A U-Net whose long ways have gates (Oktay et al., 2018): ``[N, 3, H, W] -> [N, 2, H, W]``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(_double(i, o) for i, o in zip([3, *sizes], sizes))  # noqa: B905
        self.gates = nn.ModuleList(nn.Conv2d(size, 1, 1) for size in sizes[2::-1])
        self.up = nn.ModuleList(_double(3 * size, size) for size in sizes[2::-1])
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        for index, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if index else x)
            kept.append(x)
        position = len(kept) - 2
        for gate, up in zip(self.gates, self.up):  # noqa: B905
            skipped = kept[position]
            position -= 1
            grown = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = up(torch.cat([grown, skipped * torch.sigmoid(gate(skipped))], 1))
        return self.last(x)
