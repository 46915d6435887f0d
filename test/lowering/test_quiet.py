"""Compiling prints nothing on stderr."""

from __future__ import annotations

import pytest
import torch

import torch_tvm


class Powers(torch.nn.Module):
    """TVM prints a line wherever it meets a constant exponent of 3 or more."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x**5, x**3.5, torch.linalg.vector_norm(x, 3, dim=1), x.double() ** 4, x.bfloat16() ** 7


def test_powers(capfd: pytest.CaptureFixture[str]) -> None:
    module, x = Powers(), torch.rand(3, 4)
    found = torch_tvm.compile(module, (x,), fallback=False, options={"cache": False})(x)
    torch.testing.assert_close(found, module(x))
    assert capfd.readouterr().err == ""
