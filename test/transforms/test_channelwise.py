"""Which kernels work on each channel by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import tvm
from tvm import relax, te, tirx

from torch_tvm.support.errors import Refusal
from torch_tvm.transforms.convolution.channelwise import on_blocks

Element = Callable[..., tvm.ir.Expr]


def kernel(shape: tuple[int, ...], element: Callable[[te.Tensor], Element]) -> tirx.PrimFunc:
    """A kernel of one image ``[2, 16, 5, 5]``."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([2, 16, 5, 5], "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit_te(lambda data: te.compute(shape, element(data)), x))
    return next(f for _, f in builder.get().functions_items() if isinstance(f, tirx.PrimFunc))


def compiled(func: tirx.PrimFunc) -> Callable[..., None]:
    return tvm.compile(func.with_attr("global_symbol", "main"), "llvm")["main"]


def window(data: te.Tensor) -> Element:
    tap = te.reduce_axis((0, 3), "tap")
    return lambda n, c, h, w: te.sum(data(n, c, h + tap, w), axis=tap)


def total(data: te.Tensor) -> Element:
    row, column = te.reduce_axis((0, 5), "row"), te.reduce_axis((0, 5), "column")
    wide = te.compute((2, 16), lambda n, c: te.sum(data(n, c, row, column).astype("float64"), axis=[row, column]))
    return lambda n, c: wide(n, c).astype("float32") * (c.astype("float32") + 1.0)


@pytest.mark.parametrize(
    ("shape", "element"),
    [
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, c, 4 - h, w) * 2.0),
        ((2, 16, 3, 5), window),
        ((2, 16, 9, 2), lambda d: lambda n, c, h, w: d(n, c, h // 2, w * 2) + d(n, c, 0, 0)),
        ((1, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, c, h, w)),
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(1 - n, c, h, w)),
        ((2, 16), total),
    ],
    ids=["flip", "window", "resize", "one-image", "other-images", "numbered-sums"],
)
@pytest.mark.parametrize("lanes", [4, 8])
def test_channels_by_themselves(shape: tuple[int, ...], element: Callable[[te.Tensor], Element], lanes: int) -> None:
    plain = kernel(shape, element)
    blocked = on_blocks(plain, [True], lanes)
    x, result = torch.randn(2, 16, 5, 5), torch.empty(shape)
    blocks = x.unflatten(1, (-1, lanes)).movedim(2, -1).contiguous()
    found = torch.empty(shape[0], 16 // lanes, *shape[2:], lanes)
    assert [int(size) for size in blocked.params[-1].ty.shape] == list(found.shape)
    compiled(plain)(*map(tvm.runtime.from_dlpack, (x, result)))
    compiled(blocked)(*map(tvm.runtime.from_dlpack, (blocks, found)))
    torch.testing.assert_close(found.movedim(-1, 2).flatten(1, 2), result)


@pytest.mark.parametrize(
    ("shape", "element", "lanes", "why"),
    [
        ((2, 8, 5, 5), lambda d: lambda n, c, h, w: d(n, c, h, w), 8, "leaves out"),
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, 15 - c, h, w), 8, "mixes"),
        (
            (2, 16, 5, 5),
            lambda d: lambda n, c, h, w: d(n, c, h, w) * c.astype("float32"),
            12,
            "which channel",
        ),
    ],
    ids=["half-of-them", "reversed", "numbered"],
)
def test_other_kernels(shape: tuple[int, ...], element: Callable[[te.Tensor], Element], lanes: int, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        on_blocks(kernel(shape, element), [True], lanes)
