"""Convolutions and transposed convolutions of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from tvm import relax, te, tirx

from torch_tvm.lowering.builder import Builder
from torch_tvm.lowering.ops.networks.pooling import per_axis
from torch_tvm.lowering.ops.shapes.padding import constant_pad_nd
from torch_tvm.lowering.ops.shapes.views import same_size
from torch_tvm.lowering.registry import Tensor, lowers
from torch_tvm.tir import HALF, SizeLike, as_size, compute_dtype

R = relax.op
Expr: TypeAlias = relax.Expr

_CONVOLUTION: dict[int, Callable[..., Expr]] = {1: R.nn.conv1d, 2: R.nn.conv2d, 3: R.nn.conv3d}
_TRANSPOSED: dict[int, Callable[..., Expr]] = {
    1: R.nn.conv1d_transpose,
    2: R.nn.conv2d_transpose,
    3: R.nn.conv3d_transpose,
}


def convolve(
    b: Builder,
    x: Expr,
    weight: Expr,
    bias: Expr | None,
    stride: Sequence[int],
    padding: Sequence[tuple[SizeLike, SizeLike]],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int] | None = None,
) -> Expr:
    """Convolution of ``(N, C, …)``; transposed where ``output_padding`` is given.

    ``padding`` holds (before, after) per spatial dimension. A weight of unknown sizes is a kernel of plain loops.
    """
    spatial = b.rank(weight) - 2
    if spatial not in (1, 2, 3):
        b.unsupported(f"a convolution over {spatial} dimensions")
    if b.dtype(x) != b.dtype(weight):
        b.unsupported(f"an input of {b.dtype(x)} and a weight of {b.dtype(weight)}")
    if any(isinstance(edge, int) and edge < 0 for edges in padding for edge in edges):
        b.unsupported("negative padding")
    _check_channels(b, x, weight, spatial, groups, output_padding is not None)
    stride, dilation = per_axis(stride, spatial), per_axis(dilation, spatial)
    extra = None if output_padding is None else per_axis(output_padding, spatial)
    beyond = [0] * spatial
    sizes, windows = b.shape(x)[-spatial:], b.shape(weight)[-spatial:]
    if extra is not None:
        for size, k, step, (low, high), gap, more in zip(sizes, windows, stride, padding, dilation, extra, strict=True):
            last = (size - 1) * step + gap * (k - 1) + more
            b.expect(last >= low + high, "the padding cuts off all of the result")
    else:
        for size, k, (low, high), gap in zip(sizes, windows, padding, dilation, strict=True):
            b.expect(size + low + high > gap * (k - 1), "the kernel is larger than the padded input")
    if not all(isinstance(size, int) for size in b.shape(weight)):
        return _with_bias(b, _plain_convolution(b, x, weight, stride, padding, dilation, groups, extra), bias)
    edges = cast("Sequence[tuple[int, int]]", padding)  # of a known kernel they are
    if extra is not None:
        edges, extra, beyond = _output_padding(b, stride, edges, dilation, extra)
    value = _call(b, x, weight, stride, edges, dilation, groups, extra)
    if any(beyond):
        value = constant_pad_nd(b, value, [edge for after in reversed(beyond) for edge in (0, after)], 0)
    return _with_bias(b, value, bias)


def _output_padding(
    b: Builder,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    extra: Sequence[int],
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """The padding of the input, an output padding below the stride, and the zeros that are left to append.

    ATen has an output padding below the stride or the dilation; it takes back what the padding cuts off at the end,
    behind which there are zeros.
    """
    pads, inner, beyond = [], [], []
    for step, (low, high), gap, more in zip(stride, padding, dilation, extra, strict=True):
        if more < 0 or more >= max(step, gap):
            b.unsupported(
                f"an output padding of {more}, not below the stride of {step} or the dilation of {gap}, "
                "which ATen reports as an error"
            )
        regained = min(more, high) if more >= step else 0
        rest = more - regained
        pads.append((low, high - regained))
        inner.append(rest if rest < step else 0)
        beyond.append(0 if rest < step else rest)
    return pads, inner, beyond


def _check_channels(b: Builder, x: Expr, weight: Expr, spatial: int, groups: int, transposed: bool) -> None:
    if b.rank(x) != spatial + 2:
        b.unsupported(f"an input of rank {b.rank(x)} for {spatial} dimensions")
    channels, expected = b.shape(x)[-spatial - 1], b.shape(weight)[0 if transposed else 1]
    if not transposed:
        expected = expected * groups
    if isinstance(channels, int) and isinstance(expected, int):
        if channels != expected:
            b.unsupported(f"{channels} input channels where the weight has {expected}")
    else:
        same = tirx.EQ(as_size(channels), as_size(expected))
        b.expect(same, "the input has other channels than the weight")


def _call(
    b: Builder,
    x: Expr,
    weight: Expr,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int] | None,
) -> Expr:
    dtype = b.dtype(x)
    flat = [low for low, _ in padding] + [high for _, high in padding]
    attrs: dict[str, Any] = {
        "strides": list(stride),
        "padding": flat,
        "dilation": list(dilation),
        "groups": groups,
    }
    if dtype in HALF and output_padding is not None and max(dilation) > 1:
        # TVM's kernel for these puts zeros between the taps, which makes NaN of infinities beside them.
        x, weight = b.cast(x, "float32"), b.cast(weight, "float32")
    elif dtype in HALF:
        attrs["out_dtype"] = "float32"
    if output_padding is not None:
        attrs["output_padding"] = list(output_padding)
    function = (_CONVOLUTION if output_padding is None else _TRANSPOSED)[len(stride)]
    return b.cast(b.emit(function(x, weight, **attrs)), dtype)


def _plain_convolution(
    b: Builder,
    x: Expr,
    weight: Expr,
    stride: Sequence[int],
    padding: Sequence[tuple[SizeLike, SizeLike]],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int] | None,
) -> Expr:
    """Loops over a weight whose sizes are only known at run time: each result is a sum over channels and the window."""
    b.expect(tirx.EQ(as_size(b.shape(weight)[0]) % groups, as_size(0)), f"the weight has no {groups} groups")
    loops = _Loops(stride, padding, dilation, groups, output_padding or ())
    if output_padding is not None:
        return b.te(loops.transposed, x, weight, name="convolution")
    x = constant_pad_nd(b, x, [edge for edges in reversed(padding) for edge in edges], 0)
    return b.te(loops.plain, x, weight, name="convolution")


@dataclass(frozen=True)
class _Loops:
    stride: Sequence[int]
    padding: Sequence[tuple[SizeLike, SizeLike]]
    dilation: Sequence[int]
    groups: int
    output_padding: Sequence[int]

    def plain(self, data: te.Tensor, kernel: te.Tensor) -> te.Tensor:
        """A convolution of data that is padded already."""
        sizes, (channels, inputs, *window) = data.shape[2:], kernel.shape
        stride, dilation, spatial = self.stride, self.dilation, range(len(window))
        places = [(sizes[i] - dilation[i] * (window[i] - 1) - 1) // stride[i] + 1 for i in spatial]
        channel, *taps = axes = _summed_axes(inputs, window)

        def at(n: Any, f: Any, *place: Any) -> Any:
            group = f // (channels // self.groups) if self.groups > 1 else as_size(0)
            positions = [place[i] * stride[i] + taps[i] * dilation[i] for i in spatial]
            return _products(data(n, group * inputs + channel, *positions), kernel(f, channel, *taps), axes)

        return _convolved([data.shape[0], channels, *places], at, data.dtype)

    def transposed(self, data: te.Tensor, kernel: te.Tensor) -> te.Tensor:
        """A transposed convolution: an element of the data counts where the stride takes a tap to it."""
        sizes, (channels, per_group, *window) = data.shape[2:], kernel.shape
        inputs, stride, dilation = channels // self.groups, self.stride, self.dilation
        spatial, before = range(len(window)), [low for low, _ in self.padding]
        places = [
            (sizes[i] - 1) * stride[i]
            - sum(self.padding[i])
            + dilation[i] * (window[i] - 1)
            + self.output_padding[i]
            + 1
            for i in spatial
        ]
        channel, *taps = axes = _summed_axes(inputs, window)

        def at(n: Any, f: Any, *place: Any) -> Any:
            group = f // per_group if self.groups > 1 else as_size(0)
            source = group * inputs + channel
            steps = [place[i] + before[i] - taps[i] * dilation[i] for i in spatial]
            positions = [tirx.floordiv(steps[i], stride[i]) for i in spatial]
            inside = [tirx.EQ(positions[i] * stride[i], steps[i]) for i in spatial]
            inside += [tirx.all(0 <= positions[i], positions[i] < sizes[i]) for i in spatial]
            value = tirx.if_then_else(tirx.all(*inside), data(n, source, *positions), tirx.const(0, data.dtype))
            return _products(value, kernel(source, f - group * per_group, *taps), axes)

        return _convolved([data.shape[0], per_group * self.groups, *places], at, data.dtype)


def _summed_axes(inputs: Any, window: Sequence[Any]) -> list[Any]:
    """The axes of a sum: over channels, then over the window."""
    channel = te.reduce_axis((0, inputs), name="channel")
    return [channel, *(te.reduce_axis((0, size), name=f"tap{i}") for i, size in enumerate(window))]


def _products(value: Any, factor: Any, axes: list[Any]) -> Any:
    own = compute_dtype(str(value.ty.dtype))
    return te.sum(value.astype(own) * factor.astype(own), axis=axes)


def _convolved(shape: list[Any], at: Callable[..., Any], dtype: str) -> te.Tensor:
    """The sums ``at``, brought to ``dtype`` once they are complete."""
    sums = te.compute(shape, at, name="convolution")
    if sums.dtype == dtype:
        return sums
    return te.compute(shape, lambda *i: sums(*i).astype(dtype), name="narrowed")


def _with_bias(b: Builder, x: Expr, bias: Expr | None) -> Expr:
    if bias is None:
        return x
    b.expect_equal(b.shape(bias), [b.shape(x)[1]], "the bias has other channels than the result")
    if not same_size(b.shape(bias)[0], b.shape(x)[1]):
        add = lambda data, each: te.compute(data.shape, lambda *i: data(*i) + each(i[1]), name="biased")
        return b.te(add, x, bias, name="biased")
    shape: list[SizeLike] = [1] * b.rank(x)
    shape[1] = b.shape(bias)[0]
    return b.emit(R.add(x, b.reshape(bias, shape)))


@lowers("torch.aten.conv1d", "torch.aten.conv2d", "torch.aten.conv3d")
def conv(
    b: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Expr:
    """aten::conv2d(Tensor input, Tensor weight, Tensor? bias, int[2] stride, SymInt[2] padding,
    int[2] dilation, SymInt groups) -> Tensor"""
    pads = [(p, p) for p in per_axis(padding, b.rank(weight) - 2)]
    return convolve(b, x, weight, bias, stride, pads, dilation, groups)


@lowers("torch.aten.conv1d.padding", "torch.aten.conv2d.padding", "torch.aten.conv3d.padding")
def conv_padding(
    b: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: str,
    dilation: list[int],
    groups: int,
) -> Expr:
    """aten::conv2d.padding(Tensor input, Tensor weight, Tensor? bias, SymInt[2] stride, str padding,
    SymInt[2] dilation, SymInt groups) -> Tensor"""
    kernel = b.shape(weight)[2:]
    dilation = per_axis(dilation, len(kernel))
    if padding == "valid":
        pads = [(0, 0)] * len(kernel)
    elif padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        b.unsupported(f"padding '{padding}'")
    return convolve(b, x, weight, bias, stride, pads, dilation, groups)


@lowers("torch.aten.conv_transpose1d", "torch.aten.conv_transpose2d.input", "torch.aten.conv_transpose3d.input")
def conv_transpose(
    b: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    groups: int,
    dilation: list[int],
) -> Expr:
    """aten::conv_transpose2d.input(Tensor input, Tensor weight, Tensor? bias, SymInt[2] stride,
    SymInt[2] padding, SymInt[2] output_padding, SymInt groups, SymInt[2] dilation) -> Tensor"""
    pads = [(p, p) for p in per_axis(padding, b.rank(weight) - 2)]
    return convolve(b, x, weight, bias, stride, pads, dilation, groups, output_padding)
