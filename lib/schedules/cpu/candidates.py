"""Neighbours of a tiling that a rule chose, for choice by measurement: the rule's own first, a few in all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_tvm.schedules.cpu.conv_tiling import Tiling as ConvTiling
    from torch_tvm.schedules.cpu.matmul import Tiling as MatmulTiling

FEWEST_ROWS = 4
"""Tiles of fewer rows than the rule chose are tried down to this many: below, they differ by chains."""


def matmul_tilings(tiling: MatmulTiling) -> dict[str, MatmulTiling]:
    """One or two rows less in a tile, half or twice as many tiles in a task."""
    first, count = tiling.shapes[0], tiling.block_tiles
    tries = [(first.rows, count), (first.rows, 2 * count), (first.rows, max(1, count // 2))]
    if len(tiling.shapes) == 1:
        tries += [(rows, count) for rows in (first.rows - 1, first.rows - 2) if rows >= FEWEST_ROWS]
    return {
        f"{rows} rows x {first.vectors} vectors, {tiles} tiles": replace(
            tiling, shapes=(replace(first, rows=rows), *tiling.shapes[1:]), block_tiles=tiles
        )
        for rows, tiles in tries
    }


def conv_tilings(tiling: ConvTiling, out_blocks: int, registers: int) -> dict[str, ConvTiling]:
    """Two columns more or less, one block of output channels more or less, as far as registers allow."""
    width, vectors = tiling.width, tiling.vectors
    tries = [(width, vectors), (width + 2, vectors), (width - 2, vectors)]
    tries += [(width * vectors // other, other) for other in (vectors - 1, vectors + 1) if other > 0]
    return {
        f"{columns} columns x {blocks} vectors": replace(tiling, width=columns, vectors=blocks)
        for columns, blocks in tries
        if (columns > 0 and blocks <= out_blocks and columns * blocks + blocks + 2 <= registers)
        or (columns, blocks) == (width, vectors)
    }
