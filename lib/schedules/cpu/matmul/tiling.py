"""The tiles of a matrix product, from its sizes and the CPU's registers, caches and cores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tvm.ir import TensorLoad

from torch_tvm.schedules.cpu.matmul.contraction import Contraction
from torch_tvm.schedules.cpu.matmul.register_tile import TileShape, tile_shape
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import (
    Axis,
    bytes_of,
    ceil_div,
    exact,
    is_one,
    loads,
    round_up,
    static,
    static_sizes,
    variables,
)

LONGEST_SUM = 768
"""Products that are summed one after the other before the sum is put aside."""

SHORTEST_SUM = 256
"""Products in a piece of a longer sum, at least: what it costs to put a sum aside is little beside them."""

PADDING = 0.02
"""Part of the columns that padding may add before a panel of fewer vectors is worth its smaller tiles."""

ONE_VECTOR = 0.4
"""The same for a panel of one vector: every multiply-add then loads a number of its own."""

PREFETCH_TURNS = 32
"""How far ahead the weights are asked for when one tile has all rows, and memory is the limit."""

MOST_STREAMS = 6
"""Panels that one row reads side by side, at most."""

SERIAL_WORK = 1 << 18
"""Multiply-adds (about 5 µs of one core) below which a kernel stays on one thread."""

FEWEST_ROWS = 4
"""Tiles of fewer rows than the rule chose are tried down to this many: below, they differ by chains."""


@dataclass(frozen=True)
class MatmulTiling:
    """How one product is computed.

    ``shapes`` are tried in order: the first with at least as many rows as its tile runs, with ``block_tiles``
    row tiles in a task. ``reduce_block`` splits the reduction (0: not), ``pack`` copies each panel of the
    right operand, ``scratch`` finishes sums in a second pass over memory, ``parallel`` uses all cores,
    ``shares`` lets the row tiles ask for the next weights, each for a part.
    """

    shapes: tuple[TileShape, ...]
    block_tiles: int
    reduce_block: int
    pack: bool
    scratch: bool
    parallel: bool
    shares: bool


def widest_panel(cpu: CpuModel) -> int:
    """The most vectors in a panel."""
    return 4 if cpu.vector_registers >= 32 else 2


def panel_vectors(columns: int | None, cpu: CpuModel, dtype: str) -> int:
    """Vectors in a panel: wide, unless a narrower one leaves clearly fewer padded columns."""
    widest = widest_panel(cpu)
    lanes = cpu.lanes(dtype)
    if columns is None:
        return min(widest, 2)
    if columns <= lanes:
        return 1
    order = (3, 4, 2) if widest == 4 else (2, 1)
    padded = {vectors: round_up(columns, vectors * lanes) for vectors in order}
    fewest = min(size * (1 + (ONE_VECTOR if vectors == 1 else PADDING)) for vectors, size in padded.items())
    return next(vectors for vectors in order if padded[vectors] <= fewest)


def tile_rows(rows: int | None, vectors: int, cpu: CpuModel) -> int:
    """Rows of a tile: as many sums as registers allow, at most 8, and little overlap for a known ``rows``."""
    most = min(8 if vectors <= 3 else 6, (cpu.vector_registers - vectors - 1) // vectors)
    if rows is None:
        return most
    if rows <= most:
        return rows
    tiles = lambda size: ceil_div(rows, size)
    return min(range(max(1, most // 2), most + 1), key=lambda size: (tiles(size) * (size + 1.0), -size))


@dataclass(frozen=True)
class Panel:
    """``vectors`` vectors of columns that a tile reads, of ``streams`` panels side by side where they came packed."""

    vectors: int
    lanes: int
    is_packed: bool
    streams: int = 1

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    @property
    def is_one_stream(self) -> bool:
        return self.is_packed and self.streams == 1


def choose_tiling(c: Contraction, cpu: CpuModel) -> MatmulTiling:
    """Tile sizes from the registers, caches and cores of ``cpu``; nothing is measured."""
    rows, columns, depth, batch = _size(c.rows), c.column.size, c.reduce.size, _size(c.batch)
    panel = _choose_panel(c, cpu)
    shapes = _choose_shapes(rows, panel, cpu)
    most = shapes[0].rows
    tiles = None if rows is None else ceil_div(rows, most)
    panels = None if columns is None or batch is None else batch * ceil_div(columns, panel.width)
    row_bytes = panel.width * bytes_of(c.acc_dtype)
    reduce_block = _reduce_block(depth, shapes[0].chains, cpu.l1 // 2 // row_bytes)
    known = static_sizes((rows, columns, depth, batch))
    parallel = cpu.cores > 1 and (known is None or prod(known) >= SERIAL_WORK)
    is_whole = columns is not None and columns % panel.width == 0
    is_cheap = (depth is not None and depth * row_bytes <= cpu.l1) or (tiles is not None and tiles <= 2)
    # Each block reads all weights again: it is as large as its part of the left operand fits the cache.
    block_rows = cpu.l2 * 5 // 8 // (max(1, reduce_block or depth or 0) * bytes_of(c.acc_dtype))
    return MatmulTiling(
        shapes=shapes,
        block_tiles=_block_tiles(tiles, most, block_rows, panels, cpu.cores if parallel else 1),
        reduce_block=reduce_block,
        pack=not panel.is_packed and not (is_whole and _is_contiguous(c) and is_cheap),
        scratch=not is_whole or not c.store.is_plain,
        parallel=parallel,
        shares=panel.is_one_stream and tiles != 1,
    )


def _choose_panel(c: Contraction, cpu: CpuModel) -> Panel:
    lanes, columns = cpu.lanes(c.acc_dtype), c.column.size
    packed_width = _packed_width(c, cpu)
    if packed_width % lanes:
        raise Refusal(f"weights are packed for vectors that are not of {lanes} lanes")
    if packed_width:
        streams = _streams(c, packed_width, cpu)
        return Panel(packed_width // lanes * streams, lanes, True, streams)
    vectors = panel_vectors(columns, cpu, c.acc_dtype)
    while vectors > 2 and columns is not None and columns < vectors * lanes:
        vectors -= 1
    return Panel(vectors, lanes, False)


def _choose_shapes(rows: int | None, panel: Panel, cpu: CpuModel) -> tuple[TileShape, ...]:
    """Tiles by falling rows: one where the number of rows is known."""
    most = exact(rows) if panel.streams > 1 else tile_rows(rows, panel.vectors, cpu)
    sizes = [most] if rows is not None else [most, *(s for s in (4, 2, 1) if s < most)]
    asks_ahead = panel.is_one_stream and rows is not None and 1 < most and rows <= most
    prefetch = PREFETCH_TURNS if asks_ahead else 0
    return tuple(replace(tile_shape(size, panel.vectors, panel.lanes, cpu), prefetch=prefetch) for size in sizes)


def _streams(c: Contraction, packed_width: int, cpu: CpuModel) -> int:
    """How many panels a tile reads side by side.

    With few rows the weights come from memory once and nothing else matters: a core waits less for several
    streams than for one. The panels have to come out even, with tasks for all cores.
    """
    rows, columns = _size(c.rows), c.column.size
    if rows is None or columns is None or _size(c.batch) is None:
        return 1
    panels, vectors = ceil_div(columns, packed_width), packed_width // cpu.lanes(c.acc_dtype)
    fits = lambda n: n * vectors * rows + rows + 2 <= cpu.vector_registers
    even = [n for n in range(1, MOST_STREAMS + 1) if panels % n == 0 and fits(n)]
    busy = [n for n in even if panels // n * _size(c.batch) >= 4 * cpu.cores]
    return max(busy, default=1)


def _reduce_block(depth: int | None, chains: int, cached: int) -> int:
    """Length of the pieces that the reduction is split into, 0 if it stays whole.

    A sum of n products in order has an error that grows with n; pieces keep it at that of BLAS. With ``cached``
    products a piece of the panel stays in the level 1 cache while all row tiles pass over it.
    """
    longest = LONGEST_SUM * chains
    if depth is not None and depth <= longest * 5 // 4:
        return 0
    longest = min(longest, max(SHORTEST_SUM * chains, cached))
    if depth is None:
        return longest
    pieces = ceil_div(depth, longest)
    return round_up(ceil_div(depth, pieces), 8)


def _block_tiles(tiles: int | None, tile: int, rows: int, panels: int | None, cores: int) -> int:
    """Row tiles in a task: a block fits the cache, and there are enough tasks to keep all cores busy."""
    most = max(1, rows // tile)
    if tiles is None:
        return most
    most = min(most, tiles)
    if panels is None or cores == 1:
        return most

    def idle(size: int) -> float:
        tasks = panels * ceil_div(tiles, size)
        return round_up(tasks, cores) / tasks * max(1.0, round_up(tiles, size) / tiles)

    return next((size for size in range(most, 0, -1) if idle(size) <= 1.07), min(range(1, most + 1), key=idle))


def _size(axes: tuple[Axis, ...]) -> int | None:
    sizes = static_sizes(axis.size for axis in axes)
    return None if sizes is None else prod(sizes)


def _packed_width(c: Contraction, cpu: CpuModel) -> int:
    """NR if the right operand came packed in panels of NR columns, otherwise 0.

    A matrix ``[1, k, n]`` is one panel too, where ``n`` is a width that panels have.
    """
    if c.packed is not None and c.packed.word == 1:
        return c.packed.width
    found = loads(c.rhs)
    if len(found) != 1 or len(found[0].indices) != 3 or not found[0].indices[-1].same_as(c.column.var):
        return 0
    source = found[0].source
    width = static(source.shape[-1])
    if c.column.size is None or not is_one(source.shape[0]) or not width or width < c.column.size:
        return 0
    vectors, rest = divmod(width, cpu.lanes(c.acc_dtype))
    return width if rest == 0 and vectors <= widest_panel(cpu) else 0


def _is_contiguous(c: Contraction) -> bool:
    """Whether neighbouring columns of the right operand lie side by side in memory."""
    if not isinstance(c.rhs, TensorLoad):
        return False
    *outer, last = c.rhs.indices
    return last.same_as(c.column.var) and not any(c.column.var in variables(i) for i in outer)


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
