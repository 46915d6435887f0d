"""Which kernel a convolution gets: algorithm, layouts, and the reasons to leave it alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import relax, tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.convolution.tiling import row_cycles
from torch_tvm.schedules.instructions.dots import GROUP, PAIR
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import bytes_of, ceil_div, static_sizes
from torch_tvm.workloads.convolution import ConvShape, ConvWorkload

KERNEL_PATTERN = 4
"""FuseOps' pattern of a kernel that takes elementwise consumers into its epilogue."""

INTEGER = "int32"
"""The dtype of a convolution of bytes, as :mod:`torch_tvm.transforms.quantized.products` makes them."""

_DTYPES = {("float32",) * 3, ("float64",) * 3, ("uint8", "int8", INTEGER)}

WORTH_GATHERING = 0.95
"""Part of the time by rows that a convolution over gathered taps may take: it is one kernel more."""

LAYOUTS = {1: ("NCW", "OIW", "IOW"), 2: ("NCHW", "OIHW", "IOHW"), 3: ("NCDHW", "OIDHW", "IODHW")}


@dataclass(frozen=True, kw_only=True)
class Convolution(ConvShape):
    """A Relax convolution: what its kernel computes, whatever the layout."""

    dtype: str
    out_spatial: tuple[Expr, ...]

    def with_one_tap(self) -> Convolution:
        """A pointwise convolution of as many outputs."""
        one, none = (1,) * self.rank, (0,) * self.rank
        return replace(self, kernel=one, strides=one, padding=none, dilation=one)

    def without_gaps(self) -> Convolution:
        """A pointwise convolution that skips data, on the data that it does not skip; others as they are.

        The data is read once for each few output channels, so it is worth bringing together first.
        """
        is_pointwise = set(self.kernel) == {1} and not any(self.padding) and not self.transposed
        return replace(self, strides=(1,) * len(self.strides)) if is_pointwise else self


def read_convolution(call: relax.Call) -> Convolution:
    """The parameters of ``relax.nn.conv{1,2,3}d(_transpose)``. Raises :class:`Refusal`."""
    attrs, (data, weight) = call.attrs, call.args
    transposed = "transpose" in call.op.name
    shapes = [arg.ty.shape and list(arg.ty.shape) for arg in (data, weight)]
    if any(shape is None for shape in shapes) or call.ty.shape is None:
        raise Refusal("a shape is unknown")
    rank = len(shapes[0]) - 2
    data_layout, kernel_layout, transposed_layout = LAYOUTS[rank]
    expected = transposed_layout if transposed else kernel_layout
    if str(attrs.data_layout) != data_layout or str(attrs.kernel_layout) != expected:
        raise Refusal(f"layout {attrs.data_layout} with {attrs.kernel_layout}")
    dtypes = (str(data.ty.dtype), str(weight.ty.dtype), str(call.ty.dtype))
    if dtypes not in _DTYPES:
        raise Refusal(f"dtypes {', '.join(dtypes)} of data, weight and result")
    sizes = [*shapes[1], shapes[0][1]]
    if static_sizes(sizes) is None:
        raise Refusal("the weight's shape is not constant")
    groups = int(attrs.groups)
    if transposed:
        in_channels, out_channels = int(shapes[1][0]), int(shapes[1][1]) * groups
    else:
        in_channels, out_channels = int(shapes[1][1]) * groups, int(shapes[1][0])
    kernel = tuple(int(size) for size in shapes[1][2:])
    extents = [int(size) for size in [*shapes[0], *call.ty.shape] if isinstance(size, tirx.IntImm)]
    if min(in_channels, out_channels, *kernel, *extents) < 1:
        raise Refusal("an axis of size 0")
    return Convolution(
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        kernel=kernel,
        strides=tuple(int(s) for s in attrs.strides),
        padding=tuple(int(p) for p in list(attrs.padding)[:rank]),
        dilation=tuple(int(d) for d in attrs.dilation),
        transposed=transposed,
        dtype=dtypes[-1],
        out_spatial=tuple(list(call.ty.shape)[2:]),
    )


def products_of_taps(conv: Convolution, spatial: Sequence[Expr], cpu: CpuModel) -> Convolution | None:
    """The pointwise convolution that computes all taps of a transposed one, if that and their sum are faster.

    Its products are summed where they meet. It reads every weight once and works on all of a small image at a time;
    a transposed convolution goes through it row by row and reads the weights for each. The products have to stay in
    the cache. Channels of the result: blocks of them, the taps of a block, the channels of a block.
    """
    sizes, lanes = static_sizes(spatial), cpu.lanes(conv.dtype)
    meets = any(k > stride for k, stride in zip(conv.kernel, conv.strides, strict=True))
    if not conv.transposed or not meets or conv.groups > 1 or set(conv.dilation) != {1} or sizes is None:
        return None
    channels = math.prod(conv.kernel) * conv.out_channels
    size = math.prod(sizes) * channels * bytes_of(conv.dtype)
    if conv.out_channels % lanes or size > cpu.l3 // 8:
        return None
    pointwise = conv.with_one_tap()
    return replace(pointwise, out_channels=channels, transposed=False, out_spatial=tuple(spatial))


def over_gathered_taps(conv: Convolution, cpu: CpuModel, accuracy: str) -> Convolution | None:
    """The pointwise convolution over what all taps read, side by side, if that and the gathering are faster.

    Where rows are shorter than a tile is wide, registers stay empty; a pointwise convolution sees one long row.
    Channels of its data: blocks of them, the taps of a block, the channels of a block.
    """
    sizes, lanes = static_sizes(conv.out_spatial), cpu.lanes(conv.dtype)
    taps = math.prod(conv.kernel)
    if taps == 1 or conv.transposed or conv.groups > 1 or sizes is None or conv.in_channels % lanes:
        return None
    otherwise = choose_convolution(conv, cpu, True, accuracy)
    if otherwise.algorithm != "direct" or otherwise.word > 1:
        return None
    blocks, steps, positions = ceil_div(conv.out_channels, lanes), conv.in_channels * taps, math.prod(sizes)
    read = math.prod(_taps_with_data(conv, axis, size) for axis, size in enumerate(sizes[:-1]))
    by_rows = row_cycles(cpu, sizes[-1:], blocks, steps) * math.prod(sizes[:-1]) * read
    gathered = row_cycles(cpu, [positions], blocks, steps, overlaps=True)
    moved = 2 * positions * steps * bytes_of(conv.dtype)
    if gathered / cpu.cores + moved / CACHE_BYTES_PER_CYCLE > WORTH_GATHERING * by_rows / cpu.cores:
        return None
    return replace(conv.with_one_tap(), in_channels=steps)


def choose_convolution(conv: Convolution, cpu: CpuModel, is_blocked: bool, accuracy: str) -> ConvWorkload:
    """The kernel for ``conv``; ``is_blocked`` says whether its data is in blocked layout already."""
    lanes = cpu.lanes(conv.dtype)
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1 and not conv.transposed
    outputs = conv.group_outputs
    out_lanes = lanes if conv.groups == 1 or outputs % lanes == 0 or is_depthwise else 1
    needs_blocks = is_depthwise or is_blocked or conv.in_channels > 2 * lanes or conv.dtype == INTEGER
    word = word_of(conv, cpu, accuracy) if needs_blocks else 1
    tile = 0 if accuracy == "strict" else winograd_tile(conv, cpu, word)
    if tile:
        needs_blocks, word = True, 1
    return ConvWorkload(
        algorithm="depthwise" if is_depthwise else "winograd" if tile else "direct",
        **conv.of_shape(),
        lanes=lanes,
        data_lanes=lanes if needs_blocks else 1,
        out_lanes=out_lanes,
        tile=tile,
        word=word,
    )


def word_of(conv: Convolution, cpu: CpuModel, accuracy: str) -> int:
    """How many channels a direct convolution on blocked data multiplies at once, where the target can: see ``words``.

    Bytes always, what is float32 as bfloat16 under ``accuracy="fast"``.
    """
    if conv.dtype == INTEGER:
        return GROUP
    if accuracy != "fast" or cpu.dot(PAIR) is None or conv.dtype != "float32":
        return 1
    return PAIR if fills_words(conv, PAIR, cpu) else 1


def fills_words(conv: Convolution, size: int, cpu: CpuModel) -> bool:
    """Whether the channels of ``conv`` fill words of ``size`` and there are outputs enough to make words for."""
    inputs, outputs = conv.group_inputs, conv.group_outputs
    lanes = cpu.lanes("float32")
    is_aligned = conv.groups == 1 or inputs % lanes == 0
    return inputs % size == 0 and is_aligned and outputs >= lanes


def winograd_tile(conv: Convolution, cpu: CpuModel, word: int = 1) -> int:
    """The tile size of the Winograd algorithm that is estimated to be fastest, 0 for direct convolution.

    A direct convolution multiplies ``word`` channels at once.

    Tiles of 4 have 1.8 times the rounding error of a direct sum, tiles of 2 less than it (see
    :mod:`torch_tvm.workloads.winograd`); an infinity in the data becomes NaN in its whole tile.
    """
    sizes = static_sizes(conv.out_spatial)
    is_square = conv.kernel[-2:] == (3, 3) and conv.strides[-2:] == conv.dilation[-2:] == (1, 1)
    lanes = cpu.lanes(conv.dtype)
    if not is_square or conv.groups > 1 or conv.transposed or sizes is None or conv.dtype != "float32":
        return 0
    if min(conv.in_channels, conv.out_channels) < lanes or max(conv.padding[-2:]) > 2:
        return 0
    if len(sizes) == 3 and conv.in_channels % lanes:
        return 0
    costs = {
        0: _direct_cycles(conv, cpu, sizes) / word,
        **{m: _winograd_cycles(conv, cpu, sizes, m) for m in (2, 4)},
    }
    return min(costs, key=lambda tile: costs[tile])


CACHE_BYTES_PER_CYCLE = 8.0
"""What all cores together read per cycle from beyond their second-level caches."""

NOT_OVERLAPPED = 0.25
"""Part of the shorter of computing and reading weights that does not happen during the longer."""

DATA_TRANSFORM_CYCLES = {2: 130, 4: 350}
OUTPUT_TRANSFORM_CYCLES = {2: 110, 4: 320}
"""Cycles for one tile of one block of channels, measured on Cascade Lake."""


def _direct_cycles(conv: Convolution, cpu: CpuModel, sizes: Sequence[int]) -> float:
    blocks = ceil_div(conv.out_channels, cpu.lanes(conv.dtype))
    read = _taps_with_data(conv, 0, sizes[0]) if len(sizes) == 3 else 1.0
    taps = math.prod(conv.kernel) * conv.in_channels * read
    return _cycles(math.prod(sizes) * taps * blocks, taps * blocks, cpu)


def _taps_with_data(conv: Convolution, axis: int, size: int) -> float:
    """The part of the taps along an axis of ``size`` outputs that do not read padding: a direct convolution leaves
    those out, except along rows."""
    kernel, stride = conv.kernel[axis], conv.strides[axis]
    dilation, padding = conv.dilation[axis], conv.padding[axis]
    last = (size - 1) * stride + (kernel - 1) * dilation - 2 * padding
    inside = [0 <= o * stride + k * dilation - padding <= last for o in range(size) for k in range(kernel)]
    return sum(inside) / len(inside)


def _winograd_cycles(conv: Convolution, cpu: CpuModel, sizes: Sequence[int], tile: int) -> float:
    lanes, points = cpu.lanes(conv.dtype), (tile + 2) ** 2
    channels = math.prod(conv.kernel[:-2]) * conv.in_channels
    blocks_in, blocks_out = ceil_div(channels, lanes), ceil_div(conv.out_channels, lanes)
    tiles = math.prod(sizes[:-2]) * ceil_div(sizes[-2], tile) * ceil_div(sizes[-1], tile)
    weights = points * channels * blocks_out
    transforms = tiles * (blocks_in * DATA_TRANSFORM_CYCLES[tile] + blocks_out * OUTPUT_TRANSFORM_CYCLES[tile])
    return _cycles(tiles * weights, weights, cpu) + transforms / cpu.cores


def _cycles(products: float, weights: float, cpu: CpuModel) -> float:
    """Cycles for so many multiply-adds of vectors with so many vectors of weights.

    Weights count if they do not stay in the second-level cache; the next are asked for while the last are used.
    """
    compute = products / cpu.fma_per_cycle / cpu.cores
    size = weights * cpu.vector_bits // 8
    reading = size / CACHE_BYTES_PER_CYCLE if size > cpu.l2 // 2 else 0.0
    return max(compute, reading) + NOT_OVERLAPPED * min(compute, reading)
