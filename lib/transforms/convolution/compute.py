"""Convolutions on blocked tensors as tensor expressions, and the packing of their operands.

The expressions are the meaning of each kernel (correct under TVM's default lowering); the schedule rules
recognise them by the :class:`ConvWorkload` on their block.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence

from tvm import te, tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.matmul.bfloat16_bits import rounded_bits, widened
from torch_tvm.schedules.instructions.dots import PAIR
from torch_tvm.tir import SizeLike, ceil_div, exact
from torch_tvm.transforms.convolution.choice import Convolution
from torch_tvm.workloads.convolution import ConvShape, ConvWorkload
from torch_tvm.workloads.winograd import Matrix, winograd_matrices


def convolution(data: te.Tensor, weight: te.Tensor, conv: ConvWorkload, out_spatial: Sequence[Expr]) -> te.Tensor:
    """``[N, blocks, *spatial, lanes]`` (or planar) from data and packed weights, both as ``conv`` says."""
    if conv.algorithm == "depthwise":
        return _depthwise(data, weight, conv, out_spatial)
    if conv.algorithm == "winograd":
        return _winograd(data, weight, conv, out_spatial)
    kernel = [te.reduce_axis((0, k), name=f"k{axis}") for axis, k in enumerate(conv.kernel)]
    channel = te.reduce_axis((0, conv.group_inputs), name="ic")
    batch = data.shape[0]

    def at(n: Expr, group: Expr, block: Expr, lane: Expr, point: Sequence[Expr]) -> Expr:
        spatial, valid = _window(conv, data, point, kernel)
        c = group * conv.group_inputs + channel
        if conv.data_lanes > 1:
            value = data[(n, c // conv.lanes, *spatial, c % conv.lanes)]
        else:
            value = data[(n, c, *spatial)]
        word, within = conv.word, channel % conv.in_lanes
        place = (within // word, lane * word + within % word)
        factor = weight[(block, channel // conv.in_lanes, *kernel, *place)]
        value = _guard(valid, value, data.dtype)
        product = _number(value, data.dtype) * _number(factor, weight.dtype)
        return te.sum(product, axis=[channel, *kernel])

    def blocked(n: Expr, block: Expr, *rest: Expr) -> Expr:
        return at(n, block // conv.out_blocks, block, rest[-1], rest[:-1])

    def planar(n: Expr, c: Expr, *point: Expr) -> Expr:
        group, within = c // conv.group_outputs, c % conv.group_outputs
        block = group * conv.out_blocks + within // conv.lanes
        return at(n, group, block, within % conv.lanes, point)

    if conv.out_lanes > 1:
        shape = (batch, conv.groups * conv.out_blocks, *out_spatial, conv.lanes)
        return te.compute(shape, blocked, name="conv", attrs=conv.to_attr())
    return te.compute((batch, conv.out_channels, *out_spatial), planar, name="conv", attrs=conv.to_attr())


def _number(element: Expr, dtype: str) -> Expr:
    """What an element counts as: the bits of a bfloat16 as a float32, bytes as an int32."""
    if dtype == "uint16":
        return widened(element)
    return element.astype("int32") if dtype in ("int8", "uint8") else element


def round_to_bfloat16(data: te.Tensor) -> te.Tensor:
    """The bits of the nearest bfloat16 of every element, as uint16."""
    return te.compute(data.shape, lambda *i: rounded_bits(data[i]), name="rounded")


def gather_taps(data: te.Tensor, conv: Convolution, out_spatial: Sequence[Expr]) -> te.Tensor:
    """What each tap of a convolution reads for each output: ``[N, blocks, *kernel, *out_spatial, lanes]``."""

    def at(n: Expr, block: Expr, *rest: Expr) -> Expr:
        kernel, point, lane = rest[: conv.rank], rest[conv.rank : -1], rest[-1]
        spatial, valid = _window(conv, data, point, kernel)
        return _guard(valid, data[(n, block, *spatial, lane)], data.dtype)

    shape = (*data.shape[:2], *conv.kernel, *out_spatial, data.shape[-1])
    return te.compute(shape, at, name="gather_taps")


def meeting_taps(products: te.Tensor, conv: Convolution, out_spatial: Sequence[Expr]) -> te.Tensor:
    """A transposed convolution from the products of its data with every tap: their sums where they meet.

    ``[N, blocks * taps, *spatial, lanes]`` to ``[N, blocks, *out_spatial, lanes]``.
    """
    taps, zero = math.prod(conv.kernel), tirx.const(0, products.dtype)
    turns = [range(ceil_div(k, stride)) for k, stride in zip(conv.kernel, conv.strides, strict=True)]

    def at(n: Expr, block: Expr, *rest: Expr) -> Expr:
        *point, lane = rest
        parts: list[Expr] = []
        for turn in itertools.product(*turns):
            tap, spatial, valid = tirx.const(0, "int64"), [], []
            for axis, back in enumerate(turn):
                stride, shifted = conv.strides[axis], point[axis] + conv.padding[axis]
                this = shifted % stride + stride * back
                tap = tap * conv.kernel[axis] + this
                spatial.append(shifted // stride - back)
                valid += [spatial[-1] >= 0, spatial[-1] < products.shape[2 + axis]]
                valid += [this < conv.kernel[axis]] if stride * (back + 1) > conv.kernel[axis] else []
            value = products[(n, block * taps + tap, *spatial, lane)]
            parts.append(tirx.if_then_else(tirx.all(*valid), value, zero))
        return functools.reduce(operator.add, parts)

    shape = (products.shape[0], products.shape[1] // taps, *out_spatial, products.shape[-1])
    return te.compute(shape, at, name="meeting_taps")


def _depthwise(data: te.Tensor, weight: te.Tensor, conv: ConvWorkload, out_spatial: Sequence[Expr]) -> te.Tensor:
    kernel = [te.reduce_axis((0, k), name=f"k{axis}") for axis, k in enumerate(conv.kernel)]

    def at(n: Expr, block: Expr, *rest: Expr) -> Expr:
        point, lane = rest[:-1], rest[-1]
        spatial, valid = _window(conv, data, point, kernel)
        return te.sum(
            _guard(valid, data[(n, block, *spatial, lane)], data.dtype) * weight[(block, *kernel, lane)],
            axis=kernel,
        )

    shape = (data.shape[0], data.shape[1], *out_spatial, conv.lanes)
    return te.compute(shape, at, name="conv", attrs=conv.to_attr())


def _winograd(data: te.Tensor, weight: te.Tensor, conv: ConvWorkload, out_spatial: Sequence[Expr]) -> te.Tensor:
    """Input transform, one matrix product for each of the ``(tile + 2) ** 2`` points, output transform.

    In three dimensions, ``plane`` is the one output plane of an element, and its sums go over all taps in depth.
    """
    size, lanes, attrs = conv.tile + 2, conv.lanes, conv.to_attr()
    in_channels = conv.over_planes().in_channels
    spectrum = _spectrum(data, conv, out_spatial, ceil_div(in_channels, lanes))
    channel = te.reduce_axis((0, in_channels), name="ic")
    points, batch, _, *spatial, _ = spectrum.shape
    products = te.compute(
        (points, batch, weight.shape[1], *spatial, lanes),
        lambda point, n, block, *place: te.sum(
            spectrum[(point, n, channel // lanes, *place[:-1], channel % lanes)]
            * weight[point, block, channel, place[-1]],
            axis=channel,
        ),
        name="products",
        attrs=attrs,
    )
    matrix = winograd_matrices(conv.tile).output
    r, s = (te.reduce_axis((0, size), name=name) for name in "rs")

    def inverse(n: Expr, block: Expr, *place: Expr) -> Expr:
        *plane, h, w, lane = place
        value = products[(r * size + s, n, block, *plane, h // conv.tile, w // conv.tile, lane)]
        row = _entry(matrix, h % conv.tile, r, data.dtype)
        return te.sum(value * row * _entry(matrix, w % conv.tile, s, data.dtype), axis=[r, s])

    shape = (batch, weight.shape[1], *out_spatial, lanes)
    return te.compute(shape, inverse, name="output_transform", attrs=attrs)


def _spectrum(data: te.Tensor, conv: ConvWorkload, out_spatial: Sequence[Expr], in_blocks: SizeLike) -> te.Tensor:
    """The transform of every tile of the input: ``[points, batch, in_blocks, …tiles, lanes]``."""
    matrix, dtype = winograd_matrices(conv.tile).data, data.dtype
    tile, size = conv.tile, conv.tile + 2
    batch, blocks, *depth, rows, columns, lanes = data.shape
    i, j = (te.reduce_axis((0, size), name=name) for name in "ij")

    def transformed(point: Expr, n: Expr, block: Expr, *place: Expr) -> Expr:
        *plane, th, tw, lane = place
        h, w = th * tile + i - conv.padding[-2], tw * tile + j - conv.padding[-1]
        valid, source = [h >= 0, h < rows, w >= 0, w < columns], [block]
        if plane:
            d = plane[0] * conv.strides[0] + block // blocks * conv.dilation[0] - conv.padding[0]
            valid, source = [*valid, d >= 0, d < depth[0]], [block % blocks, d]
        value = _guard(valid, data[(n, *source, h, w, lane)], dtype)
        row = _entry(matrix, point // size, i, dtype)
        return te.sum(value * row * _entry(matrix, point % size, j, dtype), axis=[i, j])

    tiles = (ceil_div(exact(extent), tile) for extent in out_spatial[-2:])
    shape = (size * size, batch, in_blocks, *out_spatial[:-2], *tiles, lanes)
    return te.compute(shape, transformed, name="data_transform", attrs=conv.to_attr())


def _entry(matrix: Matrix, row: Expr, column: Expr, dtype: str) -> Expr:
    """``matrix[row][column]``: every number of the matrix times whether it is there, one bit for each place.

    TVM takes six times as long over a kernel with as many selections as there are places.
    """
    width = len(matrix[0])
    places: dict[float, int] = {}
    for place, value in enumerate(value for values in matrix for value in values):
        places[value] = places.get(value, 0) | 1 << place
    which = row.astype("int64") * width + column.astype("int64")
    result: Expr = tirx.const(0.0, dtype)
    for value, bits in places.items():
        if value:
            is_there = tirx.bitwise_and(tirx.shift_right(tirx.const(bits, "int64"), which), 1)
            result = result + is_there.astype(dtype) * tirx.const(value, dtype)
    return result


def _window(
    conv: ConvShape, data: te.Tensor, point: Sequence[Expr], kernel: Sequence[Expr]
) -> tuple[list[Expr], list[Expr]]:
    """Where tap ``kernel`` of output ``point`` reads, and the conditions that there is data."""
    extents = data.shape[2 : 2 + conv.rank]
    spatial, valid = [], []
    for axis, (out, tap, extent) in enumerate(zip(point, kernel, extents, strict=True)):
        stride, pad, dilation = conv.strides[axis], conv.padding[axis], conv.dilation[axis]
        if conv.transposed:
            shifted = out + pad - tap * dilation
            position = tirx.floordiv(shifted, stride)
            if stride > 1:
                valid.append(tirx.floormod(shifted, stride) == 0)
        else:
            position = out * stride + tap * dilation - pad
        spatial.append(position)
        valid += [position >= 0, position < extent]
    return spatial, valid


def _guard(valid: Sequence[Expr], value: Expr, dtype: str) -> Expr:
    zero = tirx.const(0, dtype)
    return tirx.if_then_else(tirx.all(*valid), value, zero) if valid else value


def pack_weight(weight: te.Tensor, conv: ConvWorkload) -> te.Tensor:
    """Weights as PyTorch has them in the layout of ``conv.algorithm``."""
    if conv.algorithm == "winograd":
        return _winograd_weight(weight, conv)
    value = rounded_bits if conv.word == PAIR else lambda element: element
    return conv.weight_packing().compute(weight, value)


def _winograd_weight(weight: te.Tensor, conv: ConvWorkload) -> te.Tensor:
    """``G g G^T`` of every filter, ``[points, out_blocks, in_channels, lanes]``."""
    matrix, size, dtype = winograd_matrices(conv.tile).weight, conv.tile + 2, weight.dtype
    kh, kw = (te.reduce_axis((0, 3), name=name) for name in ("kh", "kw"))

    def at(point: Expr, block: Expr, channel: Expr, lane: Expr) -> Expr:
        out = block * conv.lanes + lane
        value = _guard([out < conv.out_channels], weight[out, channel, kh, kw], dtype)
        row = _entry(matrix, point // size, kh, dtype)
        return te.sum(value * row * _entry(matrix, point % size, kw, dtype), axis=[kh, kw])

    return te.compute((size * size, conv.out_blocks, conv.in_channels, conv.lanes), at, name="packed")


def pack_channels(data: te.Tensor, lanes: int) -> te.Tensor:
    """``[N, C, *spatial]`` to ``[N, blocks, *spatial, lanes]``, zeros where there is no channel."""
    channels = data.shape[1]
    blocks = ceil_div(channels, lanes)
    shape = (data.shape[0], blocks, *data.shape[2:], lanes)

    def at(n: Expr, block: Expr, *rest: Expr) -> Expr:
        c = block * lanes + rest[-1]
        value = data[(n, c, *rest[:-1])]
        is_whole = isinstance(channels, tirx.IntImm) and int(channels) % lanes == 0
        return value if is_whole else tirx.if_then_else(c < channels, value, tirx.const(0, data.dtype))

    return te.compute(shape, at, name="pack_channels")


def unpack_channels(data: te.Tensor, channels: int) -> te.Tensor:
    """``[N, blocks, *spatial, lanes]`` to ``[N, channels, *spatial]``."""
    lanes = int(data.shape[-1])
    shape = (data.shape[0], channels, *data.shape[2:-1])
    return te.compute(
        shape,
        lambda n, c, *point: data[(n, c // lanes, *point, c % lanes)],
        name="unpack_channels",
    )
