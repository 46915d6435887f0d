"""Kernels that are loops already get threads on a GPU: their CUDA code is generated, none stays on the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import torch_tvm

TARGET = {"kind": "cuda", "arch": "sm_80"}


class Program(nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.LSTM(8, 16)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return self.function(self, x, index)


PROGRAMS = {
    "scan": lambda m, x, i: torch.cumsum(x, 1),
    "sort": lambda m, x, i: torch.sort(x, 1)[0],
    "scatter": lambda m, x, i: x.scatter_add(1, i, x),
    "recurrent": lambda m, x, i: m.layer(x.view(5, 2, 8))[0],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_loops_get_threads(name: str) -> None:
    args = (torch.randn(10, 8), torch.randint(0, 8, (10, 8)))
    compiled = torch_tvm.compile(Program(PROGRAMS[name]).eval(), args, target=TARGET, fallback=False)
    rules = [kernel.rule for kernel in compiled.report.kernels]
    assert "none" not in rules and "plain loops" in rules
