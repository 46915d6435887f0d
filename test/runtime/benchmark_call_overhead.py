"""What a call costs over the raw VM call: ``python test/runtime/benchmark_call_overhead.py``.

The raw call, the compiled module and eager take turns; the minimum of 40 rounds of 500 calls is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import torch_tvm


class AddRelu(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + y


def seconds(call: Callable[[], Any], count: int = 500) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


@torch.no_grad()
def main() -> None:
    module, x, y = AddRelu(), torch.randn(4, 4), torch.randn(4)
    compiled = torch_tvm.compile(module, (x, y))
    raw = compiled._local.main
    calls = {
        "raw VM call": lambda: raw(x, y),
        "compiled": lambda: compiled(x, y),
        "eager": lambda: module(x, y),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(40):
        for name, call in calls.items():
            best[name] = min(best[name], seconds(call))
    for name, value in best.items():
        print(f"{name:12s} {value * 1e6:6.2f} us")


if __name__ == "__main__":
    main()
