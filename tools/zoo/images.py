"""Networks that map images to images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torch_tvm.tools.zoo.convnets import ResNet, resnet


class DeepLab(nn.Module):
    """Dilated convolutions side by side and a resize (Chen et al., 2017): ``[N, 3, H, W] -> [N, 21, H, W]``."""

    def __init__(self, width: int = 256, rates: tuple[int, ...] = (6, 12, 18)) -> None:
        super().__init__()
        self.body: ResNet = resnet(18)
        self.branches = nn.ModuleList([nn.Conv2d(256, width, 1)])
        self.branches.extend(nn.Conv2d(256, width, 3, padding=rate, dilation=rate) for rate in rates)
        self.context = nn.Conv2d(256, width, 1)
        self.merge = nn.Conv2d(width * (len(rates) + 2), width, 1)
        self.head = nn.Conv2d(width, 21, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(image))))
        x = body.stages[:6](x)
        context = F.relu(self.context(F.adaptive_avg_pool2d(x, 1)))
        parts = [F.relu(branch(x)) for branch in self.branches]
        parts.append(F.interpolate(context, size=x.shape[2:], mode="bilinear", align_corners=False))
        x = self.head(F.relu(self.merge(torch.cat(parts, 1))))
        return F.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=False)


class _DiffusionBlock(nn.Module):
    """Group norm, SiLU and convolution, twice, with the time step between them."""

    def __init__(self, inputs: int, outputs: int, step: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.step = nn.Linear(step, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(32, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut: nn.Module = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.step(F.silu(step))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class _PixelAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(batch, channels, height, width)
        return x + self.out(y)


class DiffusionUNet(nn.Module):
    """The denoiser of a diffusion model (Ho et al., 2020): ``[N, 4, H, W]`` and step ``[N, 64]`` to
    ``[N, 4, H, W]``.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        step = 4 * width
        self.step = nn.Sequential(nn.Linear(64, step), nn.SiLU(), nn.Linear(step, step))
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.down1, self.shrink = _DiffusionBlock(width, width, step), nn.Conv2d(width, width, 3, 2, 1)
        self.down2, self.attend = _DiffusionBlock(width, 2 * width, step), _PixelAttention(2 * width, 4)
        self.middle = _DiffusionBlock(2 * width, 2 * width, step)
        self.up2 = _DiffusionBlock(4 * width, 2 * width, step)
        self.grow = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up1 = _DiffusionBlock(2 * width, width, step)
        self.norm, self.last = nn.GroupNorm(32, width), nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        step = self.step(step)
        first = self.down1(self.first(x), step)
        second = self.attend(self.down2(self.shrink(first), step))
        y = self.up2(torch.cat([self.middle(second, step), second], 1), step)
        y = self.grow(F.interpolate(y, scale_factor=2.0, mode="nearest"))
        y = self.up1(torch.cat([y, first], 1), step)
        return self.last(F.silu(self.norm(y)))


def style_transfer(width: int = 32) -> nn.Module:
    """Instance norm and reflected borders (Johnson et al., 2016): ``[N, 3, H, W]`` to the same."""

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel, stride)
        return [nn.ReflectionPad2d(kernel // 2), layer, nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]

    grow = lambda: nn.Upsample(scale_factor=2.0, mode="nearest")
    return nn.Sequential(
        *conv(3, width, 9), *conv(width, 2 * width, 3, 2), *conv(2 * width, 4 * width, 3, 2),
        *conv(4 * width, 4 * width, 3), *conv(4 * width, 4 * width, 3), grow(), *conv(4 * width, 2 * width, 3),
        grow(), *conv(2 * width, width, 3), nn.ReflectionPad2d(4), nn.Conv2d(width, 3, 9),
    )  # fmt: skip


def super_resolution(factor: int = 3) -> nn.Module:
    """Sub-pixel convolution (Shi et al., 2016): ``[N, 1, H, W] -> [N, 1, factor * H, factor * W]``."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, factor**2, 3, padding=1),
        nn.PixelShuffle(factor),
    )  # fmt: skip


def generator(width: int = 64) -> nn.Module:
    """DCGAN's generator (Radford et al., 2015) of transposed convolutions: ``[N, 100, 1, 1] -> [N, 3, 64, 64]``."""
    layers: list[nn.Module] = []
    inputs = 100
    for outputs, stride, padding in ((8 * width, 1, 0), (4 * width, 2, 1), (2 * width, 2, 1), (width, 2, 1)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1), nn.Tanh())
