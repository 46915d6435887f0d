"""The register tile of a direct convolution, chosen by a small cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import ceil_div

FMA_LATENCY = 4.5
"""Cycles from one multiply-add to the next of the same sum: four, and what out-of-order execution does not hide."""

FMA_PORTS = 2
"""Also where 512-bit vectors are worked on in halves: the smaller tiles that one port gives were no faster there."""

LOAD_PORTS = 2
LOAD_PRESSURE = 0.1
LOAD_PRESSURE_UNFOLDED = 0.3
"""Part of a load's time that multiply-adds do not hide; more where every broadcast is a load of its own (Zen 3)."""

TILE_OVERHEAD = 40
"""Cycles to set up a tile and to leave it, measured on Cascade Lake."""


RAGGED_PENALTY = 1.05
"""Tiles of two widths need twice the code, which costs compile time and instruction cache."""


@dataclass(frozen=True)
class ConvTiling:
    """``width`` output columns by ``vectors`` blocks of output channels are computed in registers at once."""

    width: int
    vectors: int


def choose_tiling(
    cpu: CpuModel, columns: Sequence[int], out_blocks: int, steps: int, *, overlaps: bool = False
) -> ConvTiling:
    """The tile with the least estimated time.

    ``columns`` are the lengths of the rows of outputs that are split into tiles (one for each phase),
    ``out_blocks`` the blocks of output channels (of a group), ``steps`` the length of the reduction. Tiles of one width
    ``overlaps`` each other, or those of a row differ by one column.
    """
    return _best_tiling(cpu, columns, out_blocks, steps, overlaps)[1]


def row_cycles(cpu: CpuModel, columns: Sequence[int], out_blocks: int, steps: int, *, overlaps: bool = False) -> float:
    """The estimated time of one core for one row of every phase over all output channels, with the best tile."""
    return _best_tiling(cpu, columns, out_blocks, steps, overlaps)[0]


def _best_tiling(
    cpu: CpuModel, columns: Sequence[int], out_blocks: int, steps: int, overlaps: bool
) -> tuple[float, ConvTiling]:
    best, best_cost = ConvTiling(1, 1), float("inf")
    for vectors in range(1, min(4, out_blocks) + 1):
        for width in range(1, cpu.vector_registers):
            if not _fits(width, vectors, cpu):
                break
            cost = _cost(cpu, ConvTiling(width, vectors), columns, out_blocks, steps, overlaps)
            if cost < best_cost:
                best, best_cost = ConvTiling(width, vectors), cost
    return best_cost, best


def choose_width(columns: Sequence[int], limit: int) -> int:
    """The widest tile up to ``limit`` that splits all rows evenly, unless that doubles the number of tiles."""
    best, best_cost = 1, float("inf")
    for width in range(1, limit + 1):
        tiles = [(length, ceil_div(length, width)) for length in columns if length]
        cost = sum(count * (RAGGED_PENALTY if length % count else 1.0) for length, count in tiles)
        if cost < best_cost:
            best, best_cost = width, cost
    return best


def _fits(width: int, vectors: int, cpu: CpuModel) -> bool:
    """Accumulators, the weights of one step and one broadcast value, with one register to spare."""
    broadcast = 0 if vectors == 1 and cpu.folds_broadcast else 1
    return width * vectors + vectors + broadcast <= cpu.vector_registers - 1


def _cost(
    cpu: CpuModel, tiling: ConvTiling, columns: Sequence[int], out_blocks: int, steps: int, overlaps: bool
) -> float:
    """Cycles for one row of every phase over all output channels."""
    total = 0.0
    full, tail = divmod(out_blocks, tiling.vectors)
    for vectors, chunks in ((tiling.vectors, full), (tail, 1 if tail else 0)):
        if not chunks:
            continue
        for length in columns:
            tiles = ceil_div(length, tiling.width)
            if overlaps:
                total += chunks * tiles * _tile_cycles(cpu, min(tiling.width, length), vectors, steps)
                continue
            small, large = divmod(length, tiles) if tiles else (0, 0)
            for width, count in ((small + 1, large), (small, tiles - large)):
                total += chunks * count * _tile_cycles(cpu, width, vectors, steps)
            if large:
                total *= RAGGED_PENALTY
    return total


def _tile_cycles(cpu: CpuModel, width: int, vectors: int, steps: int) -> float:
    vector_bytes = cpu.vector_bits // 8
    weights = steps * vectors * vector_bytes
    if weights <= cpu.l1 // 2:
        bytes_per_cycle = 64.0
    elif weights <= cpu.l2 * 3 // 4:
        bytes_per_cycle = 28.0
    else:
        bytes_per_cycle = 6.0
    step = max(
        width * vectors / FMA_PORTS,
        (width + vectors) / LOAD_PORTS,
        FMA_LATENCY,
        vectors * vector_bytes / bytes_per_cycle,
    )
    pressure = LOAD_PRESSURE if cpu.folds_broadcast else LOAD_PRESSURE_UNFOLDED
    loads = pressure * (width + vectors) / LOAD_PORTS
    return steps * (step + loads) + TILE_OVERHEAD + 2.0 * width * vectors


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
