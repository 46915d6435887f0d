"""The loop nest of convolutions: tasks, rows, tiles of columns by vectors of channels, and the epilogue.

The data needs no padding: rows without data are skipped by a scalar condition, columns without data are
left out of the tiles at the border when the width is known, and tested one by one when it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.ir import Expr

from torch_tvm import tir
from torch_tvm.schedules.cpu import emit
from torch_tvm.schedules.cpu.convolution.geometry import (
    Phase,
    Run,
    SpatialAxis,
    TapGroup,
    axes_of,
    column_phases,
    cover_columns,
    group_taps,
    split_columns,
)
from torch_tvm.schedules.cpu.convolution.tiling import ConvTiling, choose_tiling
from torch_tvm.schedules.cpu.loops.producers.fused import Epilogue, FusedKernel
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import SizeLike, as_size, bytes_of, const, static
from torch_tvm.workloads.convolution import ConvWorkload

PARALLEL_FLOPS = 1 << 18
"""Operations below which a kernel stays on one thread: starting the others takes about 5 microseconds."""

MOST_TILES = 8
"""Tiles of a single row in a task, at most: finding a task's place costs as much as five steps of a tile."""

FEWEST_TASKS = 64
"""Tasks for each core, at least, where they hold several tiles."""

DYNAMIC_COLUMNS = 56
"""The row length that a tile is chosen for when the width is unknown."""


class DirectKernel:
    """The loop nest of a direct convolution; other convolutions override the reduction of a tile."""

    def __init__(
        self, kernel: FusedKernel, conv: ConvWorkload, cpu: CpuModel, tiling: ConvTiling | None = None
    ) -> None:
        self.kernel, self.conv, self.cpu = kernel, conv, cpu
        self.dot = cpu.required_dot(conv.word) if conv.word > 1 else None
        self.data, self.weight = (region.source for region in kernel.anchors[0].reads[:2])
        self.output = kernel.anchor_buffer
        self.dtype = str(self.output.ty.dtype)
        self.batch = self.data.ty.shape[0]
        self.axes = axes_of(conv, self.data.ty.shape[2 : 2 + conv.rank], self.output.ty.shape[2 : 2 + conv.rank])
        self.views: dict[tirx.Buffer, tirx.Buffer] = {}
        self.is_flat = self._flatten()
        self.phases = column_phases(self.axes[2])
        self.groups, self.out_blocks, self.in_blocks = conv.groups, conv.out_blocks, conv.in_blocks
        self.steps = conv.group_inputs // conv.word * math.prod(conv.kernel)
        self.itemsize = bytes_of(self.dtype)
        columns = [static(phase.count) or DYNAMIC_COLUMNS for phase in self.phases]
        self.tiling = tiling or self._choose_tiling(columns)

    def _choose_tiling(self, columns: Sequence[int]) -> ConvTiling:
        overlaps = self.axes[2].is_covered
        return choose_tiling(self.cpu, columns, self.out_blocks, self.steps, overlaps=overlaps)

    def _flatten(self) -> bool:
        """A 1x1 convolution without stride or padding sees all spatial axes as one row of columns."""
        conv = self.conv
        is_pointwise = math.prod(conv.kernel) == 1 and math.prod(conv.strides) == 1 and not any(conv.padding)
        if not is_pointwise or conv.rank == 1:
            return False
        extent: int | Expr = 1
        for axis in self.axes:
            extent = axis.extent * extent if static(extent) != 1 else axis.extent
        flat = SpatialAxis(extent, extent, 1, 1, 1, 0, False)
        self.axes = [SpatialAxis(1, 1, 1, 1, 1, 0, False)] * 2 + [flat]
        return True

    # --- the loop nest -------------------------------------------------------------------------------

    def body(self) -> tirx.Stmt:
        rows = self._product_of_rows()
        is_row_parallel = static(rows) != 1
        chunks = self.groups * tir.ceil_div(self.out_blocks, self.tiling.vectors)
        tiles = self._column_tasks()
        inner = 1 if is_row_parallel or tiles is None else tiles
        order = self._order(self._times(rows, inner), inner, chunks)
        kind = "parallel" if self._is_worth_threads() else "serial"
        extent = self._times(self.batch * const(chunks * order.groups), order.size)
        body = tir.loop("task", extent, lambda task: self._task(task, chunks, rows, inner, order), kind=kind)
        views = [tirx.DeclBuffer(view, data=buffer.data) for buffer, view in self.views.items()]
        body = emit.with_hidden(tir.sequence(*views, body))
        return self.dot.defined_in(body) if self.dot is not None else body

    def _order(self, positions: int | Expr, inner: int, chunks: int) -> Order:
        """Tasks for all ``positions`` (rows, or ``inner`` tiles of a single row) and ``chunks`` of output channels."""
        count = static(positions)
        fits = self._weight_bytes() <= self.cpu.l2 // 2
        if count is None:
            return Order(1, 1, positions, None, fits)
        run = 1
        while inner > 1 and run < MOST_TILES and tir.ceil_div(count, 2 * run) * chunks >= FEWEST_TASKS * self.cpu.cores:
            run *= 2
        iterations = tir.ceil_div(count, run)
        if not fits:
            return Order(run, 1, iterations, count, fits)
        points = math.prod([static(axis.extent) or 1 for axis in self.axes])
        data = points * self.conv.in_channels * self.itemsize // (self.conv.word * iterations * self._chunks_apart())
        most = max(1, min(self.cpu.l2 // 4 // max(1, data), iterations // (2 * self.cpu.cores)))
        groups = tir.ceil_div(iterations, most)
        return Order(run, groups, tir.ceil_div(iterations, groups), count, fits)

    def _is_worth_threads(self) -> bool:
        sizes = tir.static_sizes((self.batch, *(axis.out_extent for axis in self.axes)))
        if self.cpu.cores == 1:
            return False
        if sizes is None:
            return True
        return 2 * self.steps * self.conv.out_channels * math.prod(sizes) >= PARALLEL_FLOPS

    def _product_of_rows(self) -> int | Expr:
        return self._times(self.axes[0].out_extent, self.axes[1].out_extent)

    @staticmethod
    def _times(a: int | Expr, b: int | Expr) -> int | Expr:
        sizes = tir.static_sizes((a, b))
        if sizes is not None:
            return sizes[0] * sizes[1]
        if static(a) == 1:
            return b
        return a if static(b) == 1 else as_size(a) * as_size(b)

    def _column_tasks(self) -> int | None:
        """The number of column tiles, when rows are too few to share out and columns are known."""
        if len(self.phases) != 1 or static(self.phases[0].count) is None:
            return None
        return sum(run.count for run in self._runs(self.phases[0]))

    def _runs(self, phase: Phase) -> list[Run]:
        columns = self.axes[2]
        if columns.is_covered and (total := static(phase.count)):
            return [cover_columns(total, self.tiling.width, len(phase.taps))]
        return split_columns(phase, tir.exact(columns.extent), self.tiling.width)

    def _task(self, task: Expr, chunks: int, rows: int | Expr, inner: int, order: Order) -> tirx.Stmt:
        """Some rows of tiles (or tiles of a single row) of one chunk of output channels."""
        per_group = tir.ceil_div(self.out_blocks, self.tiling.vectors)
        bind = tir.Names()
        number, task = task % as_size(order.size), bind("task_chunks", task // as_size(order.size))
        if order.fits:
            number_of, task = bind("chunk", task % const(chunks)), task // const(chunks)
            number = task % const(order.groups) * as_size(order.size) + number
            batch = bind("batch", task // const(order.groups))
        else:
            number_of, batch = bind("chunk", task // self.batch), bind("batch", task % self.batch)
        first = bind("first", number * const(order.run))
        group = bind("group", number_of // const(per_group)) if self.groups > 1 else const(0)
        within = bind("within", number_of % const(per_group)) if self.groups > 1 else number_of
        block = bind("block", group * const(self.out_blocks) + within * const(self.tiling.vectors))
        chunk = Chunk(batch, group, within, block)
        here: int | Expr = order.run
        if not order.is_even:
            here = tirx.max(tirx.min(const(order.run), const(tir.exact(order.count)) - first), const(0))
        at = lambda iteration: self._position(chunk, first + iteration, rows, inner, order)
        return tir.sequence(*bind.bound, tir.loop("iteration", here, at))

    def _position(self, chunk: Chunk, position: Expr, rows: int | Expr, inner: int, order: Order) -> tirx.Stmt:
        """One row, or one tile of a single row."""
        bind = tir.Names()
        position = bind("position", position)
        iteration = None if order.fits or order.count is None else Iteration(position, order.count)
        tile = bind("tile", position % const(inner)) if inner > 1 else None
        row = bind("row", position // const(inner)) if static(rows) != 1 else const(0)
        depth: Expr = const(0)
        if static(self.axes[0].out_extent) != 1:
            height = as_size(self.axes[1].out_extent)
            depth, row = bind("depth", row // height), bind("line", row % height)

        def with_vectors(vectors: int) -> tirx.Stmt:
            place = Place(chunk.batch, chunk.group, chunk.block, depth, row, vectors, iteration)
            return self._row(place) if tile is None else self._one_tile(place, tile)

        return tir.sequence(*bind.bound, self._each_width(chunk, with_vectors))

    def _each_width(self, chunk: Chunk, body: Callable[[int], tirx.Stmt]) -> tirx.Stmt:
        """``body`` for as many vectors as the chunk has: the last one of a group may have fewer."""
        vectors = self.tiling.vectors
        full, tail = divmod(self.out_blocks, vectors)
        if not tail:
            return body(vectors)
        return body(tail) if not full else tir.when(chunk.within < const(full), body(vectors), body(tail))

    def _chunks_apart(self) -> int:
        """How many parts of the data the chunks of output channels read, each its own."""
        return self.groups

    def _weight_bytes(self) -> int:
        return self.steps * self.conv.out_channels * self.itemsize

    def _row(self, place: Place) -> tirx.Stmt:
        parts = []
        for phase in self.phases:
            if static(phase.count) is None or static(self.axes[2].extent) is None:
                parts.append(self._dynamic_row(place, phase))
                continue
            for run in self._runs(phase):
                parts.append(
                    tir.loop(
                        "tile",
                        run.count,
                        lambda t, run=run, phase=phase: self._tile(place, phase, run.start(t), run.width, run.valid),
                    )
                )
        return tir.sequence(*parts)

    def _one_tile(self, place: Place, tile: Expr) -> tirx.Stmt:
        phase = self.phases[0]
        runs = self._runs(phase)
        bounds = [0]
        for run in runs:
            bounds.append(bounds[-1] + run.count)
        cases = [lambda t, run=run: self._tile(place, phase, run.start(t), run.width, run.valid) for run in runs]
        return tir.select_case(tile, bounds[:-1], cases)

    def _dynamic_row(self, place: Place, phase: Phase) -> tirx.Stmt:
        """Columns of unknown number: whole tiles where every tap has data, the rest column by column."""
        width, count, extent = self.tiling.width, as_size(phase.count), as_size(self.axes[2].extent)
        offsets = [offset for _, offset in phase.taps] or [0]
        lead = max(0, -(min(offsets) // phase.in_step))
        whole = tuple(tuple(range(width)) for _ in phase.taps)
        inner_end = tirx.min(count, (extent - const(max(offsets) + 1)) // const(phase.in_step) + const(1))
        tiles = tirx.max(inner_end - const(lead), const(0)) // const(width)
        border = tirx.min(const(lead), count)
        rest = const(lead) + tiles * const(width)
        single = lambda j: self._tile(place, phase, j, 1, None)
        return tir.sequence(
            tir.loop("column", border, single) if lead else None,
            tir.loop(
                "tile",
                tiles,
                lambda t: self._tile(place, phase, t * const(width) + const(lead), width, whole),
            ),
            tir.loop("column", tirx.max(count - rest, const(0)), single, start=rest),
        )

    # --- one tile ------------------------------------------------------------------------------------

    def _tile(
        self, place: Place, phase: Phase, first: Expr, width: int, valid: Sequence[Sequence[int]] | None
    ) -> tirx.Stmt:
        """Columns ``first … first + width`` of ``phase``; ``valid`` None tests the columns at run time."""
        first, bound = tir.bind_index("column", first)
        acc = tir.Accumulators(width * place.vectors, self.conv.lanes, self.dtype)
        depth_axis, row_axis, _ = self.axes
        whole = [tuple(range(width))] * len(phase.taps)
        groups = group_taps(phase, whole if valid is None else valid)

        def blocks(in_block: Expr) -> tirx.Stmt:
            return tir.loop("kd", depth_axis.kernel, lambda kd: depth(in_block, kd))

        def depth(in_block: Expr, kd: Expr) -> tirx.Stmt:
            position, has_data = depth_axis.position(place.depth, kd)
            position, bound = tir.bind_index("data_depth", position)
            inner = tir.loop("kh", row_axis.kernel, lambda kh: row(in_block, kd, kh, position))
            return tir.when(has_data, tir.sequence(bound, inner))

        def row(in_block: Expr, kd: Expr, kh: Expr, depth_position: Expr) -> tirx.Stmt:
            position, has_data = row_axis.position(place.row, kh)
            position, bound = tir.bind_index("data_row", position)

            def tap(t: Expr, group: TapGroup) -> tirx.Stmt:
                kw = t * const(group.step) + const(group.first)
                offset = t * const(group.shift) + const(group.offset)
                column, bound = tir.bind_index("data_column", first * const(phase.in_step) + offset)
                taps, data = (kd, kh, kw), (depth_position, position, column)
                where = Tap(in_block, taps, data, phase.in_step, group.columns)
                step = tir.sequence(self._ask(place, in_block, taps), self._reduction(acc, place, where))
                if valid is None:
                    step = tir.when(tir.inside(column, self.axes[2].extent), step)
                return tir.sequence(bound, step)

            taps = [self._taps(group.count, partial(tap, group=group)) for group in groups]
            return tir.when(has_data, tir.sequence(bound, *taps))

        reduction = tir.loop("in_block", self.in_blocks, blocks)
        return tir.sequence(bound, acc.allocate(), acc.clear(), reduction, self._store(acc, place, phase, first, width))

    def _taps(self, count: int, tap: tir.Body) -> tirx.Stmt:
        """The taps stay a loop: LLVM would share their broadcasts, and spill what it shares."""
        return tir.loop("kw", emit.hidden(count) if count > 1 else count, tap)

    def _ask(self, place: Place, in_block: Expr, taps: tuple[Expr, Expr, Expr]) -> tirx.Stmt | None:
        """Ask for a part of the next weights, where they come from beyond the second-level cache."""
        if place.iteration is None:
            return None
        kernel = [axis.kernel for axis in self.axes]
        steps = self.in_blocks * math.prod(kernel)
        shape = [int(extent) for extent in self.weight.ty.shape]
        tap = (taps[0] * const(kernel[1]) + taps[1]) * const(kernel[2]) + taps[2]
        step = place.iteration.index * const(steps) + in_block * const(math.prod(kernel)) + tap
        following: list[SizeLike] = [place.block + const(place.vectors), *[0] * (len(shape) - 1)]
        size = place.vectors * math.prod(shape[1:])
        iterations = place.iteration.count * steps
        _, part_of = emit.prefetch_parts(self.weight, following, size, iterations, iterations)
        return part_of(step)

    def _reduction(self, acc: tir.Accumulators, place: Place, tap: Tap) -> tirx.Stmt:
        """The input channels of one block at one tap, word by word where there are words."""
        conv, lanes, word = self.conv, self.conv.lanes, self.conv.word
        extent: int | Expr = conv.in_lanes // word
        if conv.group_inputs % conv.in_lanes:
            rest = const(conv.group_inputs // word) - tap.in_block * const(conv.in_lanes // word)
            extent = tirx.min(const(conv.in_lanes // word), rest)
        kernel = tap.kernel[3 - conv.rank :]

        def channel(ic: Expr) -> tirx.Stmt:
            def column(m: Expr) -> tirx.Stmt:
                point = tap.at(m)
                value = self._load_data(place, tap.in_block, ic, point)
                if word > 1:
                    value = tirx.reinterpret("int32", value)
                value = tir.broadcast(value, lanes)

                def vector(v: Expr) -> tirx.Stmt:
                    weight = tir.load(self.weight, [place.block + v, tap.in_block, *kernel, ic, 0], lanes * word)
                    which = m * const(place.vectors) + v
                    if word > 1:
                        weight = tirx.reinterpret(f"int32x{lanes}", weight)
                        return acc.set(which, self.dot(acc.get(which), value, weight))
                    return acc.set(which, acc.get(which) + value * weight)

                return tir.loop("v", place.vectors, vector, kind="unrolled")

            return tir.loop("m", len(tap.columns), column, start=tap.columns[0], kind="unrolled")

        return tir.loop("ic", extent, channel)

    def _load_data(self, place: Place, in_block: Expr, ic: Expr, point: Sequence[Expr]) -> Expr:
        conv = self.conv
        spatial = [point[2]] if self.is_flat else list(point[3 - conv.rank :])
        data = self._view(self.data) if self.is_flat else self.data
        is_aligned = self.groups == 1 or conv.group_inputs % conv.lanes == 0
        if conv.data_lanes > 1 and is_aligned:
            block = place.group * const(self.in_blocks) + in_block if self.groups > 1 else in_block
            return tir.load(data, [place.batch, block, *spatial, ic * const(conv.word)], conv.word)
        channel = in_block * const(conv.in_lanes) + ic
        if self.groups > 1:
            channel = channel + place.group * const(conv.group_inputs)
        if conv.data_lanes > 1:
            lanes = const(conv.lanes)
            return tir.load(data, [place.batch, channel // lanes, *spatial, channel % lanes])
        return tir.load(data, [place.batch, channel, *spatial])

    # --- the epilogue --------------------------------------------------------------------------------

    def _store(self, acc: tir.Accumulators, place: Place, phase: Phase, first: Expr, width: int) -> tirx.Stmt:
        epilogue = Epilogue(self.kernel, self.conv.lanes)

        def column(m: Expr) -> tirx.Stmt:
            position = (first + m) * const(phase.step) + const(phase.start)

            def vector(v: Expr) -> tirx.Stmt:
                return self._store_vector(epilogue, acc.get(m * const(place.vectors) + v), place, v, position)

            return tir.loop("v", place.vectors, vector, kind="unrolled")

        return tir.sequence(epilogue.allocate(), tir.loop("m", width, column, kind="unrolled"))

    def _store_vector(self, epilogue: Epilogue, value: Expr, place: Place, v: Expr, column: Expr) -> tirx.Stmt:
        conv = self.conv
        spatial = self._unflatten(column) if self.is_flat else [place.depth, place.row, column][3 - conv.rank :]
        block = place.block + v
        remap, store = self._flat_access(spatial, column) if self.is_flat else (None, None)
        if conv.out_lanes > 1:
            return epilogue.write(
                value,
                lambda lane: [place.batch, block, *spatial, lane],
                remap=remap,
                store=store and store(place, block),
            )
        within = (block - place.group * const(self.out_blocks)) * const(conv.lanes)
        start = place.group * const(conv.group_outputs) + within
        count = tirx.min(const(conv.lanes), const(conv.group_outputs) - within)
        return epilogue.write(
            value,
            lambda lane: [place.batch, start + lane, *spatial],
            count=count,
            remap=remap,
            store=store and store(place, start),
        )

    def _unflatten(self, column: Expr) -> list[Expr]:
        extents = list(self.output.ty.shape[2 : 2 + self.conv.rank])
        point: list[Expr] = []
        for extent in reversed(extents[1:]):
            point.insert(0, column % extent)
            column = column // extent
        return [column, *point]

    def _flat_access(self, spatial: Sequence[Expr], column: Expr) -> tuple[Callable, Callable]:
        """Loads and stores at ``spatial`` go to views whose spatial axes are one, at ``column``."""
        rank, trailing = self.conv.rank, 1 if self.conv.out_lanes > 1 else 0

        def remap(buffer: tirx.Buffer, indices: Sequence[Expr]) -> Expr | None:
            if len(indices) != rank + 2 + trailing:
                return None
            if not all(i.same_as(s) for i, s in zip(indices[2 : 2 + rank], spatial, strict=True)):
                return None
            view = self._view(buffer)
            return tirx.BufferLoad(view, [*indices[:2], column, *indices[2 + rank :]])

        def store(place: Place, channel: Expr) -> Callable[[Expr, Expr], tirx.Stmt]:
            view = self._view(self.kernel.output)
            if trailing:
                return lambda lane, result: tirx.BufferStore(view, result, [place.batch, channel, column, lane])
            return lambda lane, result: tirx.BufferStore(view, result, [place.batch, channel + lane, column])

        return remap, store

    def _view(self, buffer: tirx.Buffer) -> tirx.Buffer:
        """``buffer`` with its spatial axes as one."""
        if buffer not in self.views:
            shape = buffer.ty.shape
            rank = self.conv.rank
            flat = shape[2]
            for extent in shape[3 : 2 + rank]:
                flat = flat * extent
            trailing = list(shape[2 + rank :])
            self.views[buffer] = tirx.decl_buffer(
                [shape[0], shape[1], flat, *trailing], buffer.ty.dtype, f"{buffer.name}_flat"
            )
        return self.views[buffer]


@dataclass(frozen=True)
class Order:
    """How tasks follow each other: ``run`` of the ``count`` positions make a task, ``size`` tasks a group.

    All output channels are computed for a group before the next, if their weights ``fit`` the second-level cache beside
    its data; each core then keeps to a part of the image, and finds there what it computed in the layer before.
    Otherwise there is one group, and the weights are read once.
    """

    run: int
    groups: int
    size: int | Expr
    count: int | None
    fits: bool

    @property
    def is_even(self) -> bool:
        """Whether no task has less to do than others."""
        return self.count is None or self.run * self.groups * tir.exact(self.size) == self.count


@dataclass(frozen=True)
class Tap:
    """One tap at one block of input channels: ``columns`` of a tile read the data ``step`` apart,
    from ``position`` on.
    """

    in_block: Expr
    kernel: tuple[Expr, Expr, Expr]
    position: tuple[Expr, Expr, Expr]
    step: int
    columns: Sequence[int]

    def at(self, column: Expr) -> tuple[Expr, Expr, Expr]:
        """Where a column of the tile reads."""
        depth, row, first = self.position
        return depth, row, first + column * const(self.step)


@dataclass(frozen=True)
class Chunk:
    """Blocks of output channels from ``block`` on: chunk ``within`` of a ``group``, for one image."""

    batch: Expr
    group: Expr
    within: Expr
    block: Expr


@dataclass(frozen=True)
class Iteration:
    """Which of the ``count`` positions one is that read the same weights one after the other."""

    index: Expr
    count: int


@dataclass(frozen=True)
class Place:
    """Where a task works: ``vectors`` blocks of output channels from ``block`` on.

    With a ``iteration``, it asks for its part of the weights that follow.
    """

    batch: Expr
    group: Expr
    block: Expr
    depth: Expr
    row: Expr
    vectors: int
    iteration: Iteration | None
