"""Numbers that a dtype cannot hold: an error where eager raises one, eager's numbers elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_tvm

RAISING: dict[str, tuple[torch.dtype, Callable[[Tensor], Any]]] = {
    "full_like": (torch.float16, lambda x: torch.full_like(x, 1e30)),
    "full": (torch.float32, lambda x: x + torch.full((3,), 1e300)),
    "fill_": (torch.int8, lambda x: x.fill_(300)),
    "fill_ of infinity": (torch.int64, lambda x: x.fill_(float("inf"))),
    "clamp": (torch.float16, lambda x: x.clamp(max=1e30)),
    "add": (torch.float16, lambda x: torch.add(x, x, alpha=1e30)),
    "scatter": (torch.uint8, lambda x: x.scatter(0, torch.tensor([0]), 300)),
    "new_full": (torch.int32, lambda x: x.new_full((2,), 2**40)),
    "hardtanh": (torch.float16, lambda x: torch.nn.functional.hardtanh(x, -1e30, 1e30)),
}


@pytest.mark.parametrize("name", RAISING)
def test_beyond_a_dtype(name: str) -> None:
    dtype, function = RAISING[name]
    x = torch.tensor([1, 2, 3]).to(dtype)
    with pytest.raises(RuntimeError, match="without overflow"):
        function(x.clone())
    for way in (torch_tvm.import_fx, torch_tvm.import_lazy):
        with pytest.raises(torch_tvm.ImportFailed, match=r"without overflow\n.*\n  give a number that the dtype"):
            way(function, (x,))


class Wrapping(torch.nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> Any:
        halves = (h + 1e300, h * 1e30, torch.where(h > 0, h, 1e30))
        return x + 300, x > 300, x & 300, x // 300, torch.full_like(x, 1.7), halves


def test_within_a_kernel() -> None:
    args = (torch.tensor([1, -2, 3], dtype=torch.int8), torch.tensor([1.0, 0.0, -3.0], dtype=torch.float16))
    ours = torch_tvm.compile(Wrapping(), args, fallback=False)(*args)
    torch.testing.assert_close(ours, Wrapping()(*args), equal_nan=True)


@pytest.mark.parametrize("frontend", ["fx", "torchscript"])
def test_beyond_64_bits(frontend: str) -> None:
    def program(x: Tensor) -> Tensor:
        return x + x.shape[0] * 4611686018427387904

    x = torch.tensor([1, 2, 3])
    if frontend == "fx":
        with pytest.raises(torch_tvm.ImportFailed, match="the number 13835058055282163712 is beyond 64 bits"):
            torch_tvm.import_fx(program, (x,))
    else:  # TorchScript's numbers wrap
        script = torch.jit.script(program)
        assert torch.equal(torch_tvm.compile(script, (x,), fallback=False)(x), script(x))
