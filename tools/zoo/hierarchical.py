"""Vision models whose resolution falls stage by stage: ConvNeXt and Swin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class _ConvNextBlock(nn.Module):
    """Depthwise 7×7, layer norm over channels, two linear layers, a learned scale: ``[N, C, H, W]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of ``[N, C, H, W]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """ConvNeXt (Liu et al., 2022), tiny by default: ``[N, 3, H, W] -> [N, 1000]``."""

    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), widths: Sequence[int] = (96, 192, 384, 768)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), _ChannelNorm(widths[0])]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                layers += [_ChannelNorm(widths[stage - 1]), nn.Conv2d(widths[stage - 1], width, 2, 2)]
            layers += [_ConvNextBlock(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.features(x).mean([2, 3])))


class _SwinBlock(nn.Module):
    """Attention in windows of ``[N, H, W, C]``, shifted by a roll, then two linear layers."""

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.02)
        self.bias_index = nn.Buffer(_relative_positions(window))
        self.mask = nn.Buffer(_shift_mask(side, window, shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        s, rows, columns = self.window, h // self.window, w // self.window
        y = torch.roll(self.norm1(x), [-self.shift, -self.shift], [1, 2]) if self.shift else self.norm1(x)
        y = y.view(n, rows, s, columns, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        y = self._attend(y, n)
        y = y.view(n, rows, columns, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x + (torch.roll(y, [self.shift, self.shift], [1, 2]) if self.shift else y)
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))

    def _attend(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        """``[batch · windows, tokens, C]`` in and out."""
        groups, tokens, c = x.shape
        qkv = self.qkv(x).reshape(groups, tokens, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.bias_table[self.bias_index].permute(2, 0, 1)
        if self.shift:
            bias = (bias.unsqueeze(0) + self.mask.unsqueeze(1)).repeat(batch, 1, 1, 1)
        else:
            bias = bias.unsqueeze(0)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias)
        return self.project(y.transpose(1, 2).reshape(groups, tokens, c))


def _relative_positions(window: int) -> torch.Tensor:
    """Row of the bias table for each pair of tokens of a window: ``[window², window²]``."""
    grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    offset = (grid[:, :, None] - grid[:, None, :]) + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def _shift_mask(side: int, window: int, shift: int) -> torch.Tensor:
    """-100 between tokens that the roll brought together: ``[windows, window², window²]``."""
    region = torch.zeros(side)
    if shift:
        region[-window:-shift], region[-shift:] = 1, 2
    label = (region[:, None] * 3 + region[None, :]).view(side // window, window, side // window, window)
    label = label.permute(0, 2, 1, 3).reshape(-1, window * window)
    return torch.where(label[:, :, None] == label[:, None, :], 0.0, -100.0)


class _Merge(nn.Module):
    """Four neighbours become one token of twice the width: ``[N, H, W, C] -> [N, H/2, W/2, 2C]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Swin transformer (Liu et al., 2021), tiny by default: ``[N, 3, image, image] -> [N, 1000]``."""

    def __init__(
        self,
        image: int = 224,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: int = 3,
        window: int = 7,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.norm = nn.LayerNorm(width)
        side, layers = image // 4, []
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(_Merge(width))
                side, width, heads = side // 2, width * 2, heads * 2
            for index in range(depth):
                shift = window // 2 if index % 2 and side > window else 0
                layers.append(_SwinBlock(width, heads, side, window, shift))
        self.stages = nn.Sequential(*layers)
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.last_norm(self.stages(x)).mean([1, 2]))
