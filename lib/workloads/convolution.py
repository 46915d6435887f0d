"""What a blocked convolution computes, as written on its TIR blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, ClassVar

from torch_tvm.tir import ceil_div
from torch_tvm.workloads.rearrangement import Rearrangement
from torch_tvm.workloads.winograd import winograd_matrices
from torch_tvm.workloads.workload import Workload


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """Channels, and for each spatial axis the window of a convolution and how it moves, whatever the layout."""

    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False

    def of_shape(self) -> dict[str, Any]:
        """The fields of this class alone, by name."""
        return {field.name: getattr(self, field.name) for field in fields(ConvShape)}

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def group_inputs(self) -> int:
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        return self.out_channels // self.groups


@dataclass(frozen=True, kw_only=True)
class ConvWorkload(ConvShape, Workload):
    """A convolution of any spatial rank on blocked or planar tensors.

    Channels are blocked by ``lanes`` (``[N, C / lanes, *spatial, lanes]``, the last block padded); ``data_lanes``
    and ``out_lanes`` say whether data and output are so (``lanes``) or planar ``[N, C, *spatial]`` (1). Lanes
    beyond the last channel hold anything and are never read. ``algorithm`` fixes the layout of the weights:

    * ``direct``: ``[groups * out_blocks, in_blocks, *kernel, in_lanes, lanes]`` with the blocks of one group; where
      the target multiplies ``word`` channels at once, ``[…, in_lanes / word, lanes * word]`` with those of a word side
      by side (two bfloat16, the bits of which are kept as uint16, or four bytes);
    * ``depthwise``: ``[blocks, *kernel, lanes]``, one filter per channel;
    * ``winograd``: ``[(tile + 2) ** 2, out_blocks, in_channels, lanes]``, already transformed; in three dimensions
      those of :meth:`over_planes`.
    """

    ATTRIBUTE: ClassVar[str] = "torch_tvm.conv"

    algorithm: str
    lanes: int
    data_lanes: int
    out_lanes: int
    tile: int = 0
    word: int = 1

    @property
    def in_lanes(self) -> int:
        """Input channels of one weight block."""
        return min(self.lanes, self.group_inputs)

    @property
    def in_blocks(self) -> int:
        return ceil_div(self.group_inputs, self.in_lanes)

    @property
    def out_blocks(self) -> int:
        """Blocks of output channels of one group."""
        return ceil_div(self.group_outputs, self.lanes)

    def over_planes(self) -> ConvWorkload:
        """A convolution in three dimensions as one in two, over the channels of all planes that an output reads.

        Its input channels are those of the first tap in depth, of the second, and so on; any other stays as it is.
        """
        if self.rank != 3:
            return self
        axes = {name: getattr(self, name)[1:] for name in ("kernel", "strides", "padding", "dilation")}
        return replace(self, in_channels=self.in_channels * self.kernel[0], **axes)

    def weight_packing(self) -> Rearrangement:
        """From the weights as PyTorch has them, ``[OC, IC / groups, *kernel]`` or where ``transposed``
        ``[IC, OC / groups, *kernel]``, to the layout of the algorithm; zeros where there is no channel."""
        return _PACKINGS[self.algorithm](self)


def _depthwise(conv: ConvWorkload) -> Rearrangement:
    blocks, last = ceil_div(conv.out_channels, conv.lanes), 2 + conv.rank
    split = Rearrangement().pad(0, blocks * conv.lanes).reshape(blocks, conv.lanes, *conv.kernel)
    return split.permute(0, *range(2, last), 1)


def _winograd(conv: ConvWorkload) -> Rearrangement:
    points = (conv.tile + 2) ** 2
    transformed = (
        Rearrangement().pad(0, conv.out_blocks * conv.lanes).then("winograd", winograd_matrices(conv.tile).weight)
    )
    return transformed.reshape(points, conv.out_blocks, conv.lanes, conv.in_channels).permute(0, 1, 3, 2)


def _direct(conv: ConvWorkload) -> Rearrangement:
    taps = tuple(range(6, 6 + conv.rank))
    channels: tuple[int, ...] = (conv.group_outputs, conv.group_inputs)
    outs, ins = (conv.out_blocks, conv.lanes), (conv.in_blocks, conv.in_lanes // conv.word, conv.word)
    parts: tuple[tuple[int, ...], ...] = (outs, ins)
    order = (0, 1, 3, *taps, 4, 2, 5)
    if conv.transposed:
        channels, parts, order = channels[::-1], parts[::-1], (0, 4, 1, *taps, 2, 5, 3)
    whole = Rearrangement().reshape(conv.groups, *channels, *conv.kernel)
    padded = whole.pad(1, prod(parts[0])).pad(2, prod(parts[1]))
    split = padded.reshape(conv.groups, *parts[0], *parts[1], *conv.kernel).permute(*order)
    words = conv.in_lanes // conv.word, conv.lanes * conv.word
    return split.reshape(conv.groups * conv.out_blocks, conv.in_blocks, *conv.kernel, *words)


_PACKINGS = {"depthwise": _depthwise, "winograd": _winograd, "direct": _direct}


def blocked_channels(shape: Sequence[int], lanes: int) -> Rearrangement:
    """``[N, C, *spatial]`` to ``[N, blocks, *spatial, lanes]``."""
    n, channels, *spatial = shape
    blocks = ceil_div(channels, lanes)
    split = Rearrangement().pad(1, blocks * lanes).reshape(n, blocks, lanes, *spatial)
    return split.permute(0, 1, *range(3, 3 + len(spatial)), 2)
