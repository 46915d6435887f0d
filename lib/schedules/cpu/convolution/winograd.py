"""Winograd convolution, 3x3 with stride 1: data transform, one matrix product a point, output transform.

In three dimensions the last two axes are transformed. An output plane is one in two dimensions over the channels of
all the planes that it reads.

With weights that stay in the second-level cache all three run for one group of tiles after the other (``fused``),
so the transformed data never leaves the cache. Otherwise each of the three runs on all cores for many tiles: a
product then has the data and the weights of one point alone, and reads both once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr

from torch_tvm import tir
from torch_tvm.schedules.cpu import emit
from torch_tvm.schedules.cpu.convolution.geometry import cover_columns
from torch_tvm.schedules.cpu.convolution.tiling import choose_tiling
from torch_tvm.schedules.cpu.convolution.winograd_transform import VectorCode
from torch_tvm.schedules.cpu.loops.fused import Epilogue, FusedKernel, read_fused
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import bytes_of, const, static
from torch_tvm.workloads.convolution import ConvWorkload
from torch_tvm.workloads.winograd import winograd_matrices

LONGEST_SUM = 64
"""Input channels that are summed in registers at once; their sums are added in turn.

Two levels keep the rounding error from growing with the number of channels.
"""


class WinogradConv:
    """``data transform; products; output transform; epilogue`` on groups of tiles."""

    name = "winograd-convolution"

    def apply(self, func: tvm.tirx.PrimFunc, cpu: CpuModel) -> tvm.tirx.PrimFunc:
        kernel = read_fused(func, ConvWorkload)
        conv = kernel.workload
        if conv.algorithm != "winograd":
            raise Refusal(f"the algorithm is {conv.algorithm}")
        return kernel.rebuilt(_WinogradKernel(kernel, conv, cpu).body())


@dataclass(frozen=True)
class Grouping:
    """``groups`` groups of ``tiles`` tiles (the last may be smaller), ``width`` tiles by ``vectors`` in registers.

    ``is_fused`` does all three steps for a group before the next, ``asks_ahead`` prefetches weights.
    """

    tiles: int
    groups: int
    width: int
    vectors: int
    is_fused: bool
    asks_ahead: bool


def choose_grouping(cpu: CpuModel, conv: ConvWorkload, tiles: int, itemsize: int) -> Grouping:
    """How ``tiles`` tiles are worked off: what is transformed of a group stays in a cache."""
    points, blocks = (conv.tile + 2) ** 2, tir.ceil_div(conv.in_channels, conv.lanes)
    tiling = choose_tiling(cpu, [tiles], conv.out_blocks, conv.in_channels, overlaps=True)
    vector_bytes = conv.lanes * itemsize
    weight_bytes = points * conv.in_channels * conv.out_blocks * vector_bytes
    is_fused = weight_bytes <= cpu.l2 * 5 // 8 and tiles >= 8 * cpu.cores
    if is_fused:
        limit = max(4, cpu.l2 * 3 // 8 // (points * (tiling.vectors + blocks) * vector_bytes))
        groups = tir.round_up(tir.ceil_div(tiles, limit), cpu.cores)
    else:
        # Every group reads the weights again, so they weigh against what its tiles take.
        limit = max(cpu.l3 // 4, weight_bytes) // (points * (conv.out_blocks + blocks) * vector_bytes)
        groups = tir.ceil_div(tiles, max(limit, tiling.width))
    size = tir.ceil_div(tiles, groups)
    if groups > 1:
        size = tir.round_up(size, tiling.width)
    return Grouping(
        size, tir.ceil_div(tiles, size), tiling.width, tiling.vectors, is_fused, weight_bytes > cpu.l2
    )


class _WinogradKernel:
    def __init__(self, kernel: FusedKernel, conv: ConvWorkload, cpu: CpuModel) -> None:
        self.kernel, self.whole, self.cpu = kernel, conv, cpu
        self.conv = conv = conv.over_planes()
        self.data = kernel.anchors[0].reads[0].source
        self.weight = kernel.anchors[1].reads[1].source
        shape = kernel.anchor_buffer.ty.shape
        self.dtype = str(kernel.anchor_buffer.ty.dtype)
        self.planes = int(shape[2]) if self.whole.rank == 3 else 1
        self.height, self.width = int(shape[-3]), int(shape[-2])
        self.size = conv.tile + 2
        self.points = self.size**2
        self.blocks = tir.ceil_div(conv.in_channels, conv.lanes)
        self.rows, self.columns = tir.ceil_div(self.height, conv.tile), tir.ceil_div(self.width, conv.tile)
        batch = static(shape[0])
        self.images = const(1) if batch is not None else shape[0]
        self.tiles = self.rows * self.columns * self.planes * (batch or 1)
        itemsize = bytes_of(self.dtype)
        self.grouping = choose_grouping(cpu, conv, self.tiles, itemsize)
        self.matrices = winograd_matrices(conv.tile)

    def body(self) -> tirx.Stmt:
        return self._fused() if self.grouping.is_fused else self._split()

    def _kind(self) -> str:
        return "parallel" if self.cpu.cores > 1 else "serial"

    def _workspace(self, name: str, slots: int) -> tirx.Buffer:
        """A vector for each point and slot; the points lie an odd number of lines apart, in sets of their own."""
        in_line = emit.vectors_in_line(self.conv.lanes, self.dtype)
        lines = tir.ceil_div(slots, in_line) | 1
        shape = (self.points, lines * in_line, self.conv.lanes)
        return tirx.decl_buffer([const(s) for s in shape], self.dtype, name)

    # --- the two orders ------------------------------------------------------------------------------

    def _fused(self) -> tirx.Stmt:
        grouping = self.grouping

        def task(index: Expr) -> tirx.Stmt:
            image, bound_image = tir.bind_index("image", index // const(grouping.groups))
            group, bound_group = tir.bind_index("group", index % const(grouping.groups))
            work = lambda first, count: self._group_in_turn(image, first, count)
            return tir.sequence(bound_image, bound_group, self._per_group(group, work))

        return tir.loop("task", self.images * const(grouping.groups), task, kind=self._kind())

    def _group_in_turn(self, image: Expr, first: Expr, count: int) -> tirx.Stmt:
        """All three steps for one group of tiles."""
        spectrum = self._workspace("spectrum", self.blocks * count)

        def transform(t: Expr) -> tirx.Stmt:
            over_blocks = lambda body: tir.loop("block", self.blocks, body)
            slot = lambda block: block * const(count) + t
            return self._tile_transform(spectrum, image, first + t, slot, over_blocks)

        def chunk(block: Expr, vectors: int) -> tirx.Stmt:
            products = self._workspace("products", vectors * count)
            gemm = tir.loop(
                "point",
                self.points,
                lambda xi: self._point(spectrum, products, xi, count, block, const(0), vectors),
            )

            def output(t: Expr) -> tirx.Stmt:
                vector = lambda v: self._output(products, image, first + t, v * const(count) + t, block + v)
                return tir.loop("v", vectors, vector)

            return tir.sequence(tirx.AllocBuffer(products), gemm, tir.loop("tile", count, output))

        transforms = tir.loop("tile", count, transform)
        return tir.sequence(tirx.AllocBuffer(spectrum), transforms, self._chunks(chunk))

    def _split(self) -> tirx.Stmt:
        grouping = self.grouping

        def task(index: Expr) -> tirx.Stmt:
            image, bound_image = tir.bind_index("image", index // const(grouping.groups))
            group, bound_group = tir.bind_index("group", index % const(grouping.groups))
            work = lambda first, count: self._group_in_steps(image, first, count)
            return tir.sequence(bound_image, bound_group, self._per_group(group, work))

        return tir.loop("group", self.images * const(grouping.groups), task)

    def _group_in_steps(self, image: Expr, first: Expr, count: int) -> tirx.Stmt:
        """Each of the three steps on all cores, for one group of tiles."""
        spectrum = self._workspace("spectrum", self.blocks * count)
        products = self._workspace("products", self.conv.out_blocks * count)
        chunks = tir.ceil_div(self.conv.out_blocks, self.grouping.vectors)

        def transform(slot: Expr) -> tirx.Stmt:
            block, bound = tir.bind_index("block", slot // const(count))
            step = self._tile_transform(
                spectrum, image, first + slot % const(count), lambda _: slot, lambda body: body(block)
            )
            return tir.sequence(bound, step)

        def product(task: Expr) -> tirx.Stmt:
            xi, bound_point = tir.bind_index("point", task // const(chunks))
            chunk, bound_chunk = tir.bind_index("chunk", task % const(chunks))
            work = lambda block, vectors: self._point(spectrum, products, xi, count, block, block, vectors)
            return tir.sequence(bound_point, bound_chunk, self._one_chunk(chunk, work))

        def output(slot: Expr) -> tirx.Stmt:
            block, bound = tir.bind_index("block", slot // const(count))
            step = self._output(products, image, first + slot % const(count), slot, block)
            return tir.sequence(bound, step)

        on_all = lambda extent, body: tir.loop("task", extent, body, kind=self._kind())
        return tir.sequence(
            tirx.AllocBuffer(spectrum),
            tirx.AllocBuffer(products),
            on_all(self.blocks * count, transform),
            on_all(self.points * chunks, product),
            on_all(self.conv.out_blocks * count, output),
        )

    def _per_group(self, group: Expr, work: Callable[[Expr, int], tirx.Stmt]) -> tirx.Stmt:
        """``work(first tile, count)``; a last group of another size gets code of its own."""
        size, groups = self.grouping.tiles, self.grouping.groups
        tail = self.tiles - size * (groups - 1)
        first = group * const(size)
        if tail == size:
            return work(first, size)
        if groups == 1:
            return work(const(0), tail)
        return tir.when(group < const(groups - 1), work(first, size), work(const(size * (groups - 1)), tail))

    def _chunks(self, work: Callable[[Expr, int], tirx.Stmt]) -> tirx.Stmt:
        vectors = self.grouping.vectors
        full, tail = divmod(self.conv.out_blocks, vectors)
        whole = tir.loop("chunk", full, lambda chunk: work(chunk * const(vectors), vectors)) if full else None
        return tir.sequence(whole, work(const(full * vectors), tail) if tail else None)

    def _one_chunk(self, chunk: Expr, work: Callable[[Expr, int], tirx.Stmt]) -> tirx.Stmt:
        vectors = self.grouping.vectors
        full, tail = divmod(self.conv.out_blocks, vectors)
        if not tail:
            return work(chunk * const(vectors), vectors)
        if not full:
            return work(const(0), tail)
        return tir.when(
            chunk < const(full), work(chunk * const(vectors), vectors), work(const(full * vectors), tail)
        )

    # --- the three steps -----------------------------------------------------------------------------

    def _place(self, image: Expr, tile: Expr) -> tuple[Expr, list[Expr], Expr, Expr, tirx.Stmt]:
        """Batch index, plane (if there are any), tile row and tile column of ``tile``."""
        per_plane = self.rows * self.columns
        per_image = per_plane * self.planes
        bind = tir.Names()
        tile = bind("tile_index", tile)
        batch = image if self.tiles == per_image else tile // const(per_image)
        within = tile if self.tiles == per_image else tile % const(per_image)
        batch = bind("batch", batch)
        plane: list[Expr] = []
        if self.whole.rank == 3:
            plane, within = [bind("plane", within // const(per_plane))], within % const(per_plane)
        row = bind("tile_row", within // const(self.columns))
        column = bind("tile_column", within % const(self.columns))
        return batch, plane, row, column, tir.sequence(*bind.bound)

    def _source(self, plane: list[Expr], block: Expr) -> tuple[list[Expr], Expr | None]:
        """The block of the data, and the plane, that ``block`` of all taps reads, and when there is such a plane."""
        if not plane:
            return [block], None
        taps, blocks = self.whole, const(self.blocks // self.whole.kernel[0])
        depth = plane[0] * const(taps.strides[0]) + block // blocks * const(taps.dilation[0])
        depth = depth - const(taps.padding[0])
        return [block % blocks, depth], tir.inside(depth, self.data.ty.shape[2])

    def _tile_transform(
        self,
        spectrum: tirx.Buffer,
        image: Expr,
        tile: Expr,
        slot: Callable[[Expr], Expr],
        over_blocks: Callable[[Callable[[Expr], tirx.Stmt]], tirx.Stmt],
    ) -> tirx.Stmt:
        """``B^T d B`` of ``tile`` into ``spectrum[:, slot(block)]``."""
        conv, size, lanes = self.conv, self.size, self.conv.lanes
        batch, plane, row, column, bound = self._place(image, tile)
        top, bound_top = tir.bind_index("top", row * const(conv.tile) - const(conv.padding[0]))
        left, bound_left = tir.bind_index("left", column * const(conv.tile) - const(conv.padding[1]))
        height, width = self.data.ty.shape[-3:-1]
        zero = tir.broadcast(tirx.const(0, self.dtype), lanes)

        def block_transform(block: Expr, is_inside: bool) -> tirx.Stmt:
            half = tirx.decl_buffer([const(self.points * lanes)], self.dtype, "half", scope="local")
            source, has_data = self._source(plane, block)

            def down(j: Expr) -> tirx.Stmt:
                code = VectorCode(lanes, self.dtype)
                values = []
                for i in range(size):
                    value = tir.load(self.data, [batch, *source, top + const(i), left + j, 0], lanes)
                    if not is_inside:
                        valid = tirx.all(tir.inside(top + const(i), height), tir.inside(left + j, width))
                        value = tirx.if_then_else(valid, value, zero)
                    values.append(code.bind(f"d{i}", value))
                results = code.transform(self.matrices.data, values)
                stores = [
                    tir.store(half, value, [(const(r * size) + j) * const(lanes)], lanes)
                    for r, value in enumerate(results)
                ]
                return tir.sequence(*code.stmts, *stores)

            def across(r: Expr) -> tirx.Stmt:
                code = VectorCode(lanes, self.dtype)
                values = [
                    code.bind(f"h{j}", tir.load(half, [(r * const(size) + const(j)) * const(lanes)], lanes))
                    for j in range(size)
                ]
                results = code.transform(self.matrices.data, values)
                stores = [
                    tir.store(spectrum, value, [r * const(size) + const(s), slot(block), 0], lanes)
                    for s, value in enumerate(results)
                ]
                return tir.sequence(*code.stmts, *stores)

            transform = tir.sequence(
                tirx.AllocBuffer(half), tir.loop("j", size, down), tir.loop("r", size, across)
            )
            nothing = lambda point: tir.store(spectrum, zero, [point, slot(block), 0], lanes)
            return tir.when(has_data, transform, tir.loop("point", self.points, nothing))

        is_inside = tirx.all(
            top >= const(0), left >= const(0), top + const(size) <= height, left + const(size) <= width
        )
        inner = over_blocks(lambda block: block_transform(block, True))
        border = over_blocks(lambda block: block_transform(block, False))
        return tir.sequence(bound, bound_top, bound_left, tir.when(is_inside, inner, border))

    def _point(
        self,
        spectrum: tirx.Buffer,
        products: tirx.Buffer,
        xi: Expr,
        count: int,
        block: Expr,
        slot: Expr,
        vectors: int,
    ) -> tirx.Stmt:
        """The product of ``count`` tiles with ``vectors`` blocks of channels at one point, to ``slot`` on."""
        run = cover_columns(count, self.grouping.width, 1)

        def tile(t: Expr) -> tirx.Stmt:
            start = run.start(t)
            ask = lambda in_block: self._ask(xi, block, vectors, t, run.count, in_block)
            return self._product_tile(
                spectrum, products, xi, start, count, run.width, block, slot, vectors, ask
            )

        return tir.loop("run", run.count, tile)

    def _ask(
        self, xi: Expr, block: Expr, vectors: int, tile: Expr, tiles: int, in_block: Expr
    ) -> tirx.Stmt | None:
        """Ask for a part of the weights of the next chunk while this one is worked on."""
        if not self.grouping.asks_ahead:
            return None
        size = vectors * self.conv.in_channels * self.conv.lanes
        turn = tile * const(self.blocks) + in_block
        turns = tiles * self.blocks
        _, part_of = emit.prefetch_parts(self.weight, [xi, block + const(vectors), 0, 0], size, turns, turns)
        return part_of(turn)

    def _product_tile(
        self,
        spectrum: tirx.Buffer,
        products: tirx.Buffer,
        xi: Expr,
        start: Expr,
        count: int,
        width: int,
        block: Expr,
        slot: Expr,
        vectors: int,
        ask: Callable[[Expr], tirx.Stmt | None],
    ) -> tirx.Stmt:
        """``width`` tiles by ``vectors`` blocks of output channels at one point, in registers."""
        conv, lanes = self.conv, self.conv.lanes
        acc = tir.Accumulators(width * vectors, lanes, self.dtype)
        start, bound = tir.bind_index("start", start)

        def in_block(b: Expr) -> tirx.Stmt:
            extent: int | Expr = lanes
            if conv.in_channels % lanes:
                extent = tirx.min(const(lanes), const(conv.in_channels) - b * const(lanes))
            return tir.sequence(ask(b), tir.loop("ic", extent, lambda ic: channel(b, ic)))

        def channel(b: Expr, ic: Expr) -> tirx.Stmt:
            def column(m: Expr) -> tirx.Stmt:
                value = tir.broadcast(tir.load(spectrum, [xi, b * const(count) + start + m, ic]), lanes)

                def vector(v: Expr) -> tirx.Stmt:
                    weight = tir.load(self.weight, [xi, block + v, b * const(lanes) + ic, 0], lanes)
                    which = m * const(vectors) + v
                    return acc.set(which, acc.get(which) + value * weight)

                return tir.loop("v", vectors, vector, kind="unrolled")

            return tir.loop("m", width, column, kind="unrolled")

        def keep(is_first: bool) -> tirx.Stmt:
            def one(m: Expr, v: Expr) -> tirx.Stmt:
                place = [xi, (slot + v) * const(count) + start + m, 0]
                value = acc.get(m * const(vectors) + v)
                if not is_first:
                    value = value + tir.load(products, place, lanes)
                return tir.store(products, value, place, lanes)

            inner = lambda m: tir.loop("v", vectors, lambda v: one(m, v), kind="unrolled")
            return tir.loop("m", width, inner, kind="unrolled")

        sum_blocks = max(1, LONGEST_SUM // lanes)

        def part(index: Expr) -> tirx.Stmt:
            extent: int | Expr = sum_blocks
            if self.blocks % sum_blocks:
                extent = tirx.min(const(sum_blocks), const(self.blocks) - index * const(sum_blocks))
            blocks = tir.loop("in_block", extent, lambda b: in_block(index * const(sum_blocks) + b))
            return tir.sequence(acc.clear(), blocks, tir.when(index < const(1), keep(True), keep(False)))

        if self.blocks <= sum_blocks:
            body = tir.sequence(acc.clear(), tir.loop("in_block", self.blocks, in_block), keep(True))
        else:
            body = tir.loop("part", tir.ceil_div(self.blocks, sum_blocks), part)
        return tir.sequence(bound, acc.allocate(), body)

    def _output(self, products: tirx.Buffer, image: Expr, tile: Expr, slot: Expr, block: Expr) -> tirx.Stmt:
        """``A^T m A`` of one tile and one block of channels, then the epilogue."""
        conv, size, lanes = self.conv, self.size, self.conv.lanes
        epilogue = Epilogue(self.kernel, lanes)
        batch, plane, row, column, bound = self._place(image, tile)
        half = tirx.decl_buffer([const(conv.tile * size * lanes)], self.dtype, "half", scope="local")

        def down(s: Expr) -> tirx.Stmt:
            code = VectorCode(lanes, self.dtype)
            values = [
                code.bind(f"m{r}", tir.load(products, [const(r * size) + s, slot, 0], lanes))
                for r in range(size)
            ]
            results = code.transform(self.matrices.output, values)
            stores = [
                tir.store(half, value, [(const(i * size) + s) * const(lanes)], lanes)
                for i, value in enumerate(results)
            ]
            return tir.sequence(*code.stmts, *stores)

        def across(i: Expr) -> tirx.Stmt:
            code = VectorCode(lanes, self.dtype)
            values = [
                code.bind(f"h{s}", tir.load(half, [(i * const(size) + const(s)) * const(lanes)], lanes))
                for s in range(size)
            ]
            results = [code.bind("y", y) for y in code.transform(self.matrices.output, values)]
            h, bound_h = tir.bind_index("h", row * const(conv.tile) + i)
            stores = []
            for k, value in enumerate(results):
                w = column * const(conv.tile) + const(k)
                write = epilogue.write(value, lambda lane, w=w: [batch, block, *plane, h, w, lane])
                stores.append(tir.when(w < const(self.width) if self.width % conv.tile else None, write))
            whole = tir.sequence(*code.stmts, *stores)
            return tir.sequence(
                bound_h, tir.when(h < const(self.height) if self.height % conv.tile else None, whole)
            )

        return tir.sequence(
            bound,
            tirx.AllocBuffer(half),
            tir.loop("s", size, down),
            epilogue.allocate(),
            tir.loop("i", conv.tile, across),
        )
