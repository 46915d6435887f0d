"""Which kernels work on each channel by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm import relax, te, tirx

from torch_tvm.support.errors import Refusal
from torch_tvm.transforms.channelwise import read_channelwise

Element = Callable[..., tvm.ir.Expr]


def kernel(shape: tuple[int, ...], element: Callable[[te.Tensor], Element]) -> tirx.PrimFunc:
    """A kernel of one image ``[2, 16, 5, 5]``."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([2, 16, 5, 5], "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit_te(lambda data: te.compute(shape, element(data)), x))
    return next(f for _, f in builder.get().functions_items() if isinstance(f, tirx.PrimFunc))


def window(data: te.Tensor) -> Element:
    tap = te.reduce_axis((0, 3), "tap")
    return lambda n, c, h, w: te.sum(data(n, c, h + tap, w), axis=tap)


@pytest.mark.parametrize(
    ("shape", "element"),
    [
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, c, 4 - h, w) * 2.0),
        ((2, 16, 3, 5), window),
        ((2, 16, 9, 2), lambda d: lambda n, c, h, w: d(n, c, h // 2, w * 2) + d(n, c, 0, 0)),
    ],
    ids=["flip", "window", "resize"],
)
def test_channels_by_themselves(shape: tuple[int, ...], element: Callable[[te.Tensor], Element]) -> None:
    found = read_channelwise(kernel(shape, element), "kernel", [True])
    result = found.compute(te.placeholder((2, 2, 5, 5, 8), name="blocks"))
    assert [int(size) for size in result.shape] == [2, 2, *shape[2:], 8]


@pytest.mark.parametrize(
    ("shape", "element", "why"),
    [
        ((2, 8, 5, 5), lambda d: lambda n, c, h, w: d(n, c, h, w), "leaves out"),
        ((1, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, c, h, w), "leaves out"),
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, 15 - c, h, w), "mixes"),
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(1 - n, c, h, w), "mixes"),
        ((2, 16, 5, 5), lambda d: lambda n, c, h, w: d(n, c, h, w) * c.astype("float32"), "which channel"),
        ((2, 16), lambda d: lambda n, c: d(n, c, 0, 0), "own axes"),
    ],
    ids=["half-of-them", "one-image", "reversed", "other-images", "numbered", "no-space"],
)
def test_other_kernels(shape: tuple[int, ...], element: Callable[[te.Tensor], Element], why: str) -> None:
    with pytest.raises(Refusal, match=why):
        read_channelwise(kernel(shape, element), "kernel", [True])
