"""Memory-bound programs without weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ElementwiseChain(nn.Module):
    """Arithmetic and transcendentals on two tensors of one shape; the result has it too."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = F.gelu(x * 1.5 + 0.25) * torch.sigmoid(y)
        z = z + torch.tanh(x - y) * torch.exp(-y.abs())
        return torch.where(z > 0, z, z * 0.1).clamp(-4.0, 4.0)


class ReductionChain(nn.Module):
    """Softmax, entropy, normalisation and reductions along both axes: ``[N, R, C] -> [N, R], [N, R], [N, C]``."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p = torch.softmax(x, -1)
        entropy = -(p * torch.log(p + 1e-9)).sum(-1)
        centred = x - x.mean(-1, keepdim=True)
        normal = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return entropy, normal.amax(-1), F.relu(normal).sum(1)
