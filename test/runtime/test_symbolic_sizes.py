"""Symbolic sizes: equal and derived sizes and ranges are checked at the call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import torch_tvm
from torch_tvm.support.errors import InvalidInput


class Folded(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y.view(x.shape[0], 2, 4).sum(1) + x


@pytest.fixture(scope="module")
def folded() -> Any:
    batch = Dim("batch", min=3, max=10)
    return torch_tvm.compile(
        Folded(), (torch.randn(4, 4), torch.randn(8, 4)), dynamic_shapes=({0: batch}, {0: 2 * batch})
    )


@pytest.mark.parametrize("batch", [3, 4, 10])
def test_sizes_within_the_range(folded: Any, batch: int) -> None:
    x, y = torch.randn(batch, 4), torch.randn(2 * batch, 4)
    torch.testing.assert_close(folded(x, y), Folded()(x, y))


@pytest.mark.parametrize("size", [2, 11])
def test_a_size_outside_the_range_is_named(folded: Any, size: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        folded(torch.randn(size, 4), torch.randn(2 * size, 4))
    assert str(caught.value) == f"argument 'x', dimension 0: expected a size from 3 to 10, got {size}"


def test_a_derived_size_is_named(folded: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        folded(torch.randn(4, 4), torch.randn(9, 4))
    assert str(caught.value) == (
        "argument 'y', dimension 0: expected s0 * 2 = 8 with s0 = 4 (argument 'x', dimension 0), got 9"
    )


def test_equal_sizes() -> None:
    class Add(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    shapes = ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    compiled = torch_tvm.compile(Add(), (torch.randn(3, 4), torch.randn(3, 4)), dynamic_shapes=shapes)
    for batch in (0, 1, 2, 65):
        x, y = torch.randn(batch, 4), torch.randn(batch, 4)
        assert torch.equal(compiled(x, y), x + y)
    with pytest.raises(InvalidInput) as caught:
        compiled(torch.randn(3, 4), torch.randn(5, 4))
    assert str(caught.value) == "argument 'y', dimension 0: expected 3 (argument 'x', dimension 0), got 5"
    with pytest.raises(InvalidInput, match=r"argument 'x': expected float32\[s0, 4\], got float32\[3, 5\]"):
        compiled(torch.randn(3, 5), torch.randn(3, 5))


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + x.sum()


@pytest.mark.parametrize(
    ("derive", "rows", "fits", "misfits"),
    [
        (lambda h: 2 * h, 12, [0, 2, 8], [3]),
        (lambda h: h - 1, 11, [4, 8], [3]),
        (lambda h: 2 * h + 1, 13, [7, 9], [0, 4]),
    ],
    ids=["2h", "h-1", "2h+1"],
)
def test_a_derived_size_alone(derive: Any, rows: int, fits: list[int], misfits: list[int]) -> None:
    """No argument has the size ``h`` itself."""
    height = Dim("h", min=5) if rows == 11 else Dim("h")
    compiled = torch_tvm.compile(_doubled, (torch.randn(rows, 3),), dynamic_shapes=({0: derive(height)},))
    for size in fits:
        x = torch.randn(size, 3)
        torch.testing.assert_close(compiled(x), _doubled(x))
    for size in misfits:
        with pytest.raises(InvalidInput):
            compiled(torch.randn(size, 3))


def test_what_export_suggests_is_shown_whole() -> None:
    height = Dim("h")
    with pytest.raises(torch_tvm.ImportFailed) as caught:
        torch_tvm.compile(lambda x: x.view(-1, 2) + 1, (torch.randn(12),), dynamic_shapes=({0: height},))
    text = str(caught.value)
    assert "    Suggested fixes:\n    _h = Dim('_h'" in text
    assert "\n    h = 2*_h\n" in text
    assert "change dynamic_shapes as the message says" in text


_TEXT = """func.func @main(%x: !torch.vtensor<[?],f32>) -> {result} {{
  %s = torch.symbolic_int "s0" {{min_val = 0, max_val = 100}} : !torch.int
  torch.bind_symbolic_shape %x, [%s], affine_map<()[s0] -> (s0)> : !torch.vtensor<[?],f32>
  %zero = torch.constant.int 0
  %five = torch.constant.int 5
  %y = {op} -> {result}
  return %y : {result}
}}"""


@pytest.mark.parametrize(
    ("op", "result", "function", "sizes"),
    [
        (
            "torch.aten.select.int %x, %zero, %five : !torch.vtensor<[?],f32>, !torch.int, !torch.int",
            "!torch.vtensor<[],f32>",
            lambda x: x[5],
            (0, 5, 6, 8),
        ),
        (
            "torch.aten.unfold %x, %zero, %five, %five : !torch.vtensor<[?],f32>, !torch.int, !torch.int, !torch.int",
            "!torch.vtensor<[?,5],f32>",
            lambda x: x.unfold(0, 5, 5),
            (0, 4, 5, 11),
        ),
    ],
    ids=["select", "unfold"],
)
def test_text_with_an_unknown_size(op: str, result: str, function: Any, sizes: tuple[int, ...]) -> None:
    compiled = torch_tvm.compile(torch_tvm.parse(_TEXT.format(op=op, result=result)))
    for size in sizes:
        x = torch.arange(float(size))
        try:
            want = function(x)
        except (IndexError, RuntimeError):
            with pytest.raises(InvalidInput):
                compiled(x)
        else:
            torch.testing.assert_close(compiled(x), want)


class _Edges(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * 2 + x[:, -1:]


def test_a_size_that_is_less_than_a_tile() -> None:
    """Of ``min(1, n)`` elements no tile is whole, and TVM's simplifier refuses to divide by that 0."""
    compiled = torch_tvm.compile(torch.jit.script(_Edges()), (torch_tvm.TensorSpec((None, None), torch.float32),))
    assert not compiled.report.fallbacks
    for size in ((4, 7), (1, 1), (3, 0), (0, 3), (5000, 30)):
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x), _Edges()(x), rtol=0, atol=0)


class _Meet(torch.nn.Module):
    """What a U-Net does where an upsampled image meets one that was not halved evenly."""

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        high, wide = other.shape[2] - x.shape[2], other.shape[3] - x.shape[3]
        x = torch.nn.functional.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
        return torch.cat([other, x], 1).view(x.shape[0], other.shape[1] * 2, x.shape[2] * x.shape[3])


def test_a_trace_that_computes_with_sizes() -> None:
    """Traces subtract and divide sizes as 0-d tensors; they stay sizes, and a pad by them has a
    known rank and sizes.
    """
    args = torch.randn(1, 2, 4, 6), torch.randn(1, 2, 5, 7)
    unknown = torch_tvm.TensorSpec((None, 2, None, None), torch.float32)
    compiled = torch_tvm.compile(torch.jit.trace(_Meet(), args), (unknown, unknown))
    assert not compiled.report.fallbacks
    for ours, others in (((4, 6), (5, 7)), ((3, 3), (3, 8)), ((6, 5), (4, 4))):
        x, other = torch.randn(2, 2, *ours), torch.randn(2, 2, *others)
        torch.testing.assert_close(compiled(x, other), _Meet()(x, other), rtol=0, atol=0)
