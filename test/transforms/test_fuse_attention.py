"""Attention reads its operands where they lie, however a program takes them out of one projection."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_tvm

HEADS, DEPTH = 3, 8
WIDTH = HEADS * DEPTH

Parts = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (HEADS, DEPTH)).transpose(1, 2)


def _stacked(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0], -1, 3, HEADS, DEPTH).permute(2, 0, 3, 1, 4)


WAYS: dict[str, Parts] = {
    "select": lambda x: tuple(_stacked(x)[i] for i in (0, 1, -1)),
    "unbind": lambda x: _stacked(x).unbind(0),
    "chunk": lambda x: tuple(map(_heads, x.chunk(3, -1))),
    "split": lambda x: tuple(map(_heads, x.split(WIDTH, -1))),
    "slice": lambda x: (
        _heads(x[..., :WIDTH]),
        _heads(x[..., WIDTH : 2 * WIDTH]),
        _heads(x[..., 2 * WIDTH :]),
    ),
}


class Block(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts, self.qkv = parts, nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.scaled_dot_product_attention(*self.parts(self.qkv(x)))
        return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 2])
def test_parts_of_a_projection_are_not_copied(way: str, batch: int) -> None:
    model, x = Block(WAYS[way]).eval(), torch.randn(batch, 11, WIDTH)
    compiled = torch_tvm.compile(model, (x,), fallback=False)
    assert sorted(kernel.rule for kernel in compiled.report.kernels) == ["attention", "matmul"]
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_part_with_gaps_is_copied_and_right() -> None:
    class Strided(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(x[:, :, ::2], x[:, :, 1::2], x[:, :, ::2])

    model, x = Strided().eval(), torch.randn(2, 3, 12, 8)
    torch.testing.assert_close(torch_tvm.compile(model, (x,), fallback=False)(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_hidden_rows_and_a_transpose_are_part_of_the_kernel(dtype: torch.dtype) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask = nn.Buffer(torch.rand(2, 1, 11, 11) > 0.4)
            self.mask[:, :, 3] = False

        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            y = F.scaled_dot_product_attention(*map(_heads, (q, k, v)), attn_mask=self.mask)
            return y.transpose(1, 2).flatten(2)

    model, args = Masked().eval(), [torch.randn(2, 11, WIDTH).to(dtype) for _ in range(3)]
    compiled = torch_tvm.compile(model, args, fallback=False)
    names = [kernel.name for kernel in compiled.report.kernels]
    assert "attention" in names and not any("where_transpose" in name for name in names), names
    assert dtype == torch.float16 or not any("transpose" in name for name in names), names
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    result = compiled(*args)
    torch.testing.assert_close(result, model(*args), rtol=tolerance, atol=tolerance)
    assert not result[:, 3].any()
