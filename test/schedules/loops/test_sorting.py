"""Sorting and selection: lengths on both sides of each algorithm, ties, NaN, zeros, dtypes, axes, unknown sizes."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from ..programs import CompiledFunction

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Values with many ties; floats with NaN, infinities and zeros of both signs."""
    x = torch.randint(0 if dtype == torch.uint8 else -20, 20, shape).to(dtype)
    if dtype.is_floating_point:
        x = torch.where(torch.rand(shape) < 0.5, torch.randn(shape).to(dtype), x)
        special = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-40], dtype=torch.float64).to(dtype)
        x = torch.where(torch.rand(shape) < 0.1, special[torch.randint(0, 5, shape)], x)
    return x


def check_sort(x: torch.Tensor, axis: int, descending: bool, compiled: CompiledFunction | None = None) -> None:
    compiled = compiled or CompiledFunction(lambda x: x.sort(axis, descending=descending), (x,))
    values, indices = compiled(x)
    expected = x.sort(dim=axis, descending=descending, stable=True)
    assert torch.equal(indices, expected.indices)
    assert torch.equal(values.nan_to_num(7.5), expected.values.nan_to_num(7.5))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1,), 0), ((5, 1), 1), ((7, 13), 1), ((7, 128), 1), ((7, 129), 1), ((3, 1000), 1), ((70_001,), 0),
     ((300, 5), 0), ((2, 150, 3), 1), ((9, 17, 2), 1)],
)  # fmt: skip
def test_sort(shape: tuple[int, ...], axis: int, descending: bool) -> None:
    check_sort(draw(shape), axis, descending)


@pytest.mark.parametrize("length", [33, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sort_dtypes(dtype: torch.dtype, length: int) -> None:
    check_sort(draw((5, length), dtype), 1, False)


def test_sort_of_an_unknown_length() -> None:
    compiled = None
    for shape in ((4, 33), (2, 1000), (9, 2)):
        x = draw(shape)
        compiled = compiled or CompiledFunction(
            lambda x: x.sort(1), (x,), (({0: Dim("n", min=2), 1: Dim("m", min=2)},),)
        )
        check_sort(x, 1, False, compiled)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [((128, 8), 1, 2), ((5, 100), 1, 100), ((64, 1000), 1, 1), ((3, 1000), 1, 5), ((3, 1000), 1, 50),
     ((50_257,), 0, 50), ((2, 500, 3), 1, 7), ((3, 67), 1, 3), ((1, 1), 1, 1)],
)  # fmt: skip
def test_topk(shape: tuple[int, ...], axis: int, count: int, largest: bool) -> None:
    x = draw(shape)
    values, indices = CompiledFunction(lambda x: x.topk(count, axis, largest), (x,))(x)
    expected = x.sort(dim=axis, descending=largest, stable=True)
    assert torch.equal(indices, expected.indices.narrow(axis, 0, count))
    assert torch.equal(values.nan_to_num(7.5), expected.values.narrow(axis, 0, count).nan_to_num(7.5))


@pytest.mark.parametrize("order", ["ascending", "descending", "equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_topk_of_ordered_keys(order: str, dtype: torch.dtype) -> None:
    """The smallest integer is a key like any other, and each key may be better than all before it."""
    x = torch.arange(700).to(dtype) + (torch.iinfo(dtype).min if dtype == torch.int64 else 0)
    x = {"ascending": x, "descending": x.flip(0), "equal": torch.full_like(x, x[0])}[order].contiguous()
    _, indices = CompiledFunction(lambda x: x.topk(6), (x,))(x)
    assert torch.equal(indices, x.sort(dim=0, descending=True, stable=True).indices[:6])
