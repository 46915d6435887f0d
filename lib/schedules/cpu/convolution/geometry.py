"""The geometry of a convolution kernel: extents, taps along the columns, and how columns split into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.tir import as_size, ceil_div, const, static
from torch_tvm.workloads.convolution import ConvWorkload

Size = int | Expr


@dataclass(frozen=True)
class SpatialAxis:
    """One spatial axis: input and output extent, taps, stride, dilation, padding before."""

    extent: Size
    out_extent: Size
    kernel: int
    stride: int
    dilation: int
    padding: int
    transposed: bool

    @property
    def is_covered(self) -> bool:
        """Whether no tap of any output falls outside of the data (proved from constants)."""
        extent, out = static(self.extent), static(self.out_extent)
        if self.kernel == 1 and self.stride == 1 and self.padding == 0:
            return True
        if self.transposed or self.padding > 0 or extent is None or out is None:
            return False
        return (out - 1) * self.stride + (self.kernel - 1) * self.dilation < extent

    def position(self, out: Expr, tap: Expr) -> tuple[Expr, Expr | None]:
        """The input position that ``tap`` of output ``out`` reads, and the condition that there is one."""
        if self.transposed:
            shifted = out + const(self.padding) - tap * const(self.dilation)
            position = tirx.floordiv(shifted, const(self.stride))
            valid = tirx.all(shifted >= const(0), position < as_size(self.extent))
            if self.stride > 1:
                valid = tirx.all(valid, tirx.floormod(shifted, const(self.stride)) == const(0))
            return position, valid
        position = out * const(self.stride) + tap * const(self.dilation) - const(self.padding)
        if self.is_covered:
            return position, None
        return position, tirx.all(position >= const(0), position < as_size(self.extent))


@dataclass(frozen=True)
class Phase:
    """Outputs ``start + step * j`` for ``j < count``: tap ``k`` of them reads ``in_step * j + offset``.

    An ordinary convolution has one phase, a transposed one ``stride`` of them.
    """

    start: int
    step: int
    count: Size
    in_step: int
    taps: tuple[tuple[int, int], ...]

    def valid(self, offset: int, first: int, width: int, extent: int) -> tuple[int, ...]:
        """Which of the columns ``first … first + width`` have data at a tap with ``offset``."""
        return tuple(m for m in range(width) if 0 <= (first + m) * self.in_step + offset < extent)


def column_phases(axis: SpatialAxis) -> list[Phase]:
    """The phases of the columns."""
    if not axis.transposed:
        taps = tuple((k, k * axis.dilation - axis.padding) for k in range(axis.kernel))
        return [Phase(0, 1, axis.out_extent, axis.stride, taps)]
    phases = []
    for start in range(axis.stride):
        taps = tuple(
            (k, (start + axis.padding - k * axis.dilation) // axis.stride)
            for k in range(axis.kernel)
            if (start + axis.padding - k * axis.dilation) % axis.stride == 0
        )
        out = axis.out_extent
        if (total := static(out)) is not None:
            count: Size = max(0, ceil_div(total - start, axis.stride))
        else:
            count = tirx.max(ceil_div(out - start, axis.stride), const(0))
        phases.append(Phase(start, axis.stride, count, 1, taps))
    return phases


@dataclass(frozen=True)
class Run:
    """``count`` tiles of ``width`` columns from column ``first`` on, all with the same valid columns per tap.

    ``valid`` holds, for every tap of the phase, the columns of a tile that have data there. No tile starts behind
    ``last``, where it is given: the last tile overlaps the one before it.
    """

    first: int
    width: int
    count: int
    valid: tuple[tuple[int, ...], ...]
    last: int | None = None

    def start(self, tile: Expr) -> Expr:
        """The first column of a tile."""
        start = tile * const(self.width) + const(self.first)
        return start if self.last is None else tirx.min(start, const(self.last))


@dataclass(frozen=True)
class TapGroup:
    """Taps ``first + step * t``, ``t < count``, that read at ``offset + shift * t`` for the same ``columns``."""

    first: int
    step: int
    count: int
    offset: int
    shift: int
    columns: tuple[int, ...]


def group_taps(phase: Phase, valid: Sequence[Sequence[int]]) -> list[TapGroup]:
    """Neighbouring taps with the same valid columns as one loop each; taps without any are left out."""
    groups: list[TapGroup] = []
    for (tap, offset), columns in zip(phase.taps, valid, strict=True):
        if not columns:
            continue
        last = groups[-1] if groups else None
        if last and last.columns == tuple(columns):
            step, shift = tap - last.first, offset - last.offset
            if last.count == 1:
                groups[-1] = TapGroup(last.first, step, 2, last.offset, shift, last.columns)
                continue
            if (step, shift) == (last.step * last.count, last.shift * last.count):
                groups[-1] = TapGroup(last.first, last.step, last.count + 1, last.offset, last.shift, last.columns)
                continue
        groups.append(TapGroup(tap, 0, 1, offset, 0, tuple(columns)))
    return groups


def split_columns(phase: Phase, extent: int, width: int) -> list[Run]:
    """Tiles of at most ``width`` columns, balanced to differ by one, merged into runs of the same form."""
    total = static(phase.count) or 0
    tiles = ceil_div(total, width) if total else 0
    runs: list[Run] = []
    first = 0
    for tile in range(tiles):
        size = total // tiles + (1 if tile < total % tiles else 0)
        valid = tuple(phase.valid(offset, first, size, extent) for _, offset in phase.taps)
        last = runs[-1] if runs else None
        if last and last.width == size and last.valid == valid:
            runs[-1] = Run(last.first, size, last.count + 1, valid)
        else:
            runs.append(Run(first, size, 1, valid))
        first += size
    return runs


def cover_columns(total: int, width: int, taps: int) -> Run:
    """Tiles of one width, where every tap has data for every column: the last moves back until it fits.

    Columns in the overlap are computed twice, with the same result; that costs less than code for another width.
    """
    width = min(width, total)
    valid = (tuple(range(width)),) * taps
    return Run(0, width, ceil_div(total, width), valid, total - width if total % width else None)


def axes_of(conv: ConvWorkload, extents: Sequence[Size], out_extents: Sequence[Size]) -> list[SpatialAxis]:
    """The spatial axes, padded with trivial ones in front to three (depth, rows, columns)."""
    axes = [
        SpatialAxis(
            _size(extents[a]),
            _size(out_extents[a]),
            conv.kernel[a],
            conv.strides[a],
            conv.dilation[a],
            conv.padding[a],
            conv.transposed,
        )
        for a in range(conv.rank)
    ]
    return [SpatialAxis(1, 1, 1, 1, 1, 0, False)] * (3 - conv.rank) + axes


def _size(value: Size) -> Size:
    constant = static(value)
    return value if constant is None else constant
