"""Products that the lazy device takes apart reach the canonical form of an export."""

from __future__ import annotations

import torch

from torch_tvm.dialect.structure import difference
from torch_tvm.importers.fx import import_fx
from torch_tvm.importers.lazy import import_lazy
from torch_tvm.passes.pipeline import canonicalize


class _Products(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Linear(6, 5, bias=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> list[torch.Tensor]:
        """``x`` is [2, 3, 4, 6], ``y`` [6, 7], ``z`` [2, 3, 6, 4]."""
        return [self.wide(x), x @ y, x @ z, x[0] @ z[0], x[0, 0] @ y, torch.softmax(x @ z, -1), x @ z[:1]]


def test_products_over_leading_dimensions() -> None:
    args = (torch.randn(2, 3, 4, 6), torch.randn(6, 7), torch.randn(2, 3, 6, 4))
    module = _Products().eval()
    captured = canonicalize(import_lazy(module, args))
    assert difference(canonicalize(import_fx(module, args)), captured) == []


def test_another_product_is_seen() -> None:
    args = (torch.randn(2, 3, 4, 6), torch.randn(6, 7), torch.randn(2, 3, 6, 4))
    first, second = _Products().eval(), _Products().eval()
    assert difference(canonicalize(import_fx(first, args)), canonicalize(import_lazy(second, args))) != []
