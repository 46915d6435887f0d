"""Long chains of operations on tensors whose sizes vary, cut into several kernels."""

from __future__ import annotations

from typing import Any

import torch

import torch_tvm


def test_sizes_that_vary() -> None:
    """Some kernels of a complex sum of exponentials read the tensor with the size, others do not."""
    function = lambda x, y: torch.logaddexp(x, y)
    x, y = torch.randn(5, 1, dtype=torch.complex64), torch.randn(6, dtype=torch.complex64)
    shapes: tuple[dict[int, Any], ...] = ({}, {0: torch.export.Dim("n")})
    compiled = torch_tvm.compile(function, (x, y), dynamic_shapes=shapes, fallback=False)
    for size in (6, 9):
        y = torch.randn(size, dtype=torch.complex64)
        torch.testing.assert_close(compiled(x, y), function(x, y), rtol=1e-4, atol=1e-4)
