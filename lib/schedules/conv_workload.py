"""What a blocked convolution computes, as written on its TIR block for the schedule rules to read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch_tvm.tir import ceil_div

ANNOTATION = "torch_tvm.conv"


@dataclass(frozen=True)
class ConvWorkload:
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

    algorithm: str
    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    lanes: int
    data_lanes: int
    out_lanes: int
    transposed: bool = False
    tile: int = 0
    word: int = 1

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def group_inputs(self) -> int:
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        return self.out_channels // self.groups

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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ConvWorkload:
        fields: dict[str, Any] = json.loads(text)
        for key, value in fields.items():
            fields[key] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)
