"""Conversions to bfloat16 round, also where the next op converts back; under "strict" every op rounds as eager's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import torch_tvm


class There(torch.nn.Module):
    """``float32(bfloat16(x))``: TVM by itself makes x of it."""

    def forward(self, x: torch.Tensor) -> Any:
        y = x.to(torch.bfloat16)
        z = x.double().to(torch.bfloat16).double()
        return y.float(), y % x, x.to(torch.float16).float(), z, (x * 1.37).to(torch.bfloat16).float() * 3


class Chain(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return (
            (x * y + x) * y,
            (x * y).exp() + y,
            torch.softmax(x * y, -1) * y,
            (x.sum(-1, keepdim=True) + y) * y,
            F.gelu(x) * y + x,
        )


def _special(x: torch.Tensor) -> torch.Tensor:
    x[0, :6] = torch.tensor([float("nan"), float("inf"), -float("inf"), 3.39e38, -0.0, 1e-40])
    x[1, :4] = torch.tensor([1.00390625, 1.01171875, -1.00390625, 255.5])  # half-way between two values
    return x


class Ends(torch.nn.Module):
    """A chain of bfloat16 that the program leaves, and a product that is rounded once after its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(72, 72, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x.to(torch.bfloat16)).float()


def test_products_round_once() -> None:
    module, x = Ends().requires_grad_(False), torch.randn(3, 72)
    exact = x.bfloat16().double() @ module.linear.weight.double().T + module.linear.bias.double()
    for accuracy in ("default", "strict"):
        ours = torch_tvm.compile(module, (x,), options={"accuracy": accuracy}, fallback=False)(x)
        assert torch.equal(ours, ours.bfloat16().float())
        assert (ours - exact).abs().max() <= exact.abs().max() * 2**-8


def test_conversions_round() -> None:
    for frontend in ("fx", "torchscript", "lazy"):
        example = _special(torch.randn(7, 37))
        compiled = torch_tvm.compile(There(), (example,), frontend=frontend, fallback=False)
        for x in (example, _special(torch.randn(7, 37) * 1e3)):
            for ours, eager in zip(compiled(x), There()(x), strict=True):
                torch.testing.assert_close(ours, eager, rtol=0, atol=0, equal_nan=True)


def test_every_op_rounds_under_strict() -> None:
    x, y = torch.randn(2, 5, 37).bfloat16()
    compiled = torch_tvm.compile(Chain(), (x, y), options={"accuracy": "strict"}, fallback=False)
    for ours, eager in zip(compiled(x, y), Chain()(x, y), strict=True):
        torch.testing.assert_close(ours, eager, rtol=2**-8, atol=0)
    assert torch.equal(compiled(x, y)[0], Chain()(x, y)[0])


class Numbers(torch.nn.Module):
    """Numbers, and tensors that are numbers, which a half type rounds to infinity, to zero or to another number."""

    def forward(self, x: torch.Tensor, large: torch.Tensor, small: torch.Tensor, n: torch.Tensor) -> Any:
        sums = (x + large, large - x, torch.sub(x, large, alpha=2), torch.rsub(x, 1e30), x.addcmul(x, large), n - x[0])
        rests = (x % 1e-9, torch.fmod(x, small), n % x[1])
        products = (x * 1e30, x * large, x / small, n * x[0], n / x[2], torch.ldexp(x, n[0] * 0 + 20))
        powers = (torch.pow(1e30, x), torch.pow(x, large), torch.xlogy(x, 1e30), torch.special.xlog1py(x, large))
        choices = (x == 0.1, torch.eq(large, x), x >= 1e30, F.hardshrink(x, 0.1), n == x[1], torch.ldexp(x, n * 0 + 20))
        gcd = torch.gcd(n.to(torch.int8), torch.tensor(300))
        return sums, rests, products, powers, choices, gcd


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_round(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 1e-4, 1.0, float("inf"), 0.1], dtype=dtype)
    args = (x, *(torch.tensor(v, dtype=torch.float64) for v in (1e30, 1e-9)), torch.tensor([70000, 3, -70000, 1, 0]))
    ours, wanted = torch_tvm.compile(Numbers(), args, fallback=False)(*args), Numbers()(*args)
    torch.testing.assert_close(ours, wanted, equal_nan=True)
