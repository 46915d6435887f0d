"""Ops that run in PyTorch: results, the one warning, errors with the user's line."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm.support.errors import UnsupportedOp


class Spectral(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.linalg.svdvals(x) + 1, torch.fft.fft(x).abs(), torch.linalg.det(x)


@pytest.fixture(scope="module")
def compiled() -> Any:
    with pytest.warns(torch_tvm.FallbackWarning):
        return torch_tvm.compile(Spectral(), (torch.randn(4, 4),))


def test_results_agree_with_eager(compiled: Any) -> None:
    given = torch.randn(4, 4)
    for ours, eager in zip(compiled(given), Spectral()(given), strict=True):
        torch.testing.assert_close(ours, eager)


def test_one_warning_names_op_line_and_reason() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = torch_tvm.compile(Spectral(), (torch.randn(4, 4),))
        module(torch.randn(4, 4))
    (warning,) = [w for w in caught if issubclass(w.category, torch_tvm.FallbackWarning)]
    text = str(warning.message)
    assert "run in PyTorch, not in compiled code" in text
    assert "test_fallback.py:18: torch.aten.linalg_svdvals: " in text
    assert "torch.aten.fft_fft: " in text
    assert [item.op for item in module.report.fallbacks].count("torch.aten.linalg_svdvals") == 1


def test_without_fallback_all_ops_are_in_one_error() -> None:
    with pytest.raises(UnsupportedOp, match=r"(?s)linalg_svdvals.*fft_fft.*fallback=True"):
        torch_tvm.compile(Spectral(), (torch.randn(4, 4),), fallback=False)


def test_an_error_in_pytorch_keeps_its_type_and_names_the_line() -> None:
    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x)

    with pytest.warns(torch_tvm.FallbackWarning):
        module = torch_tvm.compile(Inverse(), (torch.eye(3),))
    with pytest.raises(RuntimeError, match=r"test_fallback\.py:\d+: torch\.aten\.linalg_inv"):
        module(torch.zeros(3, 3))


def test_complex_arguments_and_results_travel_as_pairs() -> None:
    class Conjugate(nn.Module):
        def forward(self, z: torch.Tensor) -> Any:
            return torch.fft.ifft(z.conj() * 2), z.abs()

    given = torch.randn(5, dtype=torch.complex64)
    with pytest.warns(torch_tvm.FallbackWarning):
        module = torch_tvm.compile(Conjugate(), (given,))
    for argument in (given, torch.randn(5, dtype=torch.complex64).conj()):
        for ours, eager in zip(module(argument), Conjugate()(argument), strict=True):
            assert ours.dtype == eager.dtype
            torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_an_output_padding_that_pytorch_refuses(spatial: int) -> None:
    """It is PyTorch that says so when the program runs; without fallback the compiler does."""
    layer = getattr(nn, f"ConvTranspose{spatial}d")(3, 4, 3, stride=2, output_padding=2)
    x = torch.randn(1, 3, *[5] * spatial)
    reason = (
        f"conv_transpose{spatial}d.*: an output padding of 2, not below the stride of 2 or the dilation of 1"
    )
    with pytest.raises(UnsupportedOp, match=f"(?s){reason}.*fallback=True"):
        torch_tvm.compile(layer, (x,), fallback=False)
    with pytest.warns(torch_tvm.FallbackWarning, match=reason):
        compiled = torch_tvm.compile(layer, (x,))
    with pytest.raises(RuntimeError, match=r"(?s)conv_transpose.*output padding must be smaller"):
        compiled(x)
