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
from functools import partial

import tvm
from tvm import tirx
from tvm.ir import Expr

from torch_tvm import tir
from torch_tvm.schedules.cpu import emit
from torch_tvm.schedules.cpu.convolution.geometry import cover_columns
from torch_tvm.schedules.cpu.convolution.tiling import choose_tiling
from torch_tvm.schedules.cpu.convolution.winograd_transform import VectorCode
from torch_tvm.schedules.cpu.loops.producers.fused import Epilogue, FusedKernel, read_fused
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import SizeLike, bytes_of, const, static
from torch_tvm.workloads.convolution import ConvWorkload
from torch_tvm.workloads.winograd import Matrix, winograd_matrices

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


@dataclass(frozen=True)
class Window:
    """The data that a tile reads, from row ``top`` and column ``left`` on; ``is_inside`` if all of it is there."""

    batch: Expr
    plane: list[Expr]
    top: Expr
    left: Expr
    is_inside: bool


@dataclass(frozen=True)
class Product:
    """``count`` tiles times ``vectors`` blocks of output channels from ``block`` on, at one point, to ``slot`` on."""

    spectrum: tirx.Buffer
    products: tirx.Buffer
    point: Expr
    count: int
    block: Expr
    slot: Expr
    vectors: int


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
    return Grouping(size, tir.ceil_div(tiles, size), tiling.width, tiling.vectors, is_fused, weight_bytes > cpu.l2)


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
        return self._groups("task", self._group_in_turn, self._kind())

    def _groups(self, name: str, work: Callable[[Expr, Expr, int], tirx.Stmt], kind: str = "serial") -> tirx.Stmt:
        """A loop ``name`` over the groups of tiles of all images; ``work`` takes the image, the first tile and how
        many.
        """

        def task(index: Expr) -> tirx.Stmt:
            image, bound_image = tir.bind_index("image", index // const(self.grouping.groups))
            group, bound_group = tir.bind_index("group", index % const(self.grouping.groups))
            return tir.sequence(bound_image, bound_group, self._per_group(group, partial(work, image)))

        return tir.loop(name, self.images * const(self.grouping.groups), task, kind=kind)

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
                lambda xi: self._point(Product(spectrum, products, xi, count, block, const(0), vectors)),
            )

            def output(t: Expr) -> tirx.Stmt:
                vector = lambda v: self._output(products, image, first + t, v * const(count) + t, block + v)
                return tir.loop("v", vectors, vector)

            return tir.sequence(tirx.AllocBuffer(products), gemm, tir.loop("tile", count, output))

        transforms = tir.loop("tile", count, transform)
        return tir.sequence(tirx.AllocBuffer(spectrum), transforms, self._chunks(chunk))

    def _split(self) -> tirx.Stmt:
        return self._groups("group", self._group_in_steps)

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
            work = lambda block, vectors: self._point(Product(spectrum, products, xi, count, block, block, vectors))
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
        return tir.when(chunk < const(full), work(chunk * const(vectors), vectors), work(const(full * vectors), tail))

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
        conv, size = self.conv, self.size
        batch, plane, row, column, bound = self._place(image, tile)
        bind = tir.Names()
        top = bind("top", row * const(conv.tile) - const(conv.padding[0]))
        left = bind("left", column * const(conv.tile) - const(conv.padding[1]))
        height, width = self.data.ty.shape[-3:-1]
        is_inside = tirx.all(
            top >= const(0), left >= const(0), top + const(size) <= height, left + const(size) <= width
        )

        def all_blocks(is_inside: bool) -> tirx.Stmt:
            window = Window(batch, plane, top, left, is_inside)
            return over_blocks(lambda block: self._block_transform(spectrum, window, block, slot(block)))

        return tir.sequence(bound, *bind.bound, tir.when(is_inside, all_blocks(True), all_blocks(False)))

    def _block_transform(self, spectrum: tirx.Buffer, window: Window, block: Expr, slot: Expr) -> tirx.Stmt:
        """The transform of one block of channels; zeros where it reads a plane that is none."""
        size, lanes, matrix = self.size, self.conv.lanes, self.matrices.data
        half = tirx.decl_buffer([const(self.points * lanes)], self.dtype, "half", scope="local")
        source, has_data = self._source(window.plane, block)

        def down(j: Expr) -> tirx.Stmt:
            values = [self._sample(window, source, i, j) for i in range(size)]
            put = lambda r, value: tir.store(half, value, [(const(r * size) + j) * const(lanes)], lanes)
            return self._transformed(matrix, "d", values, put)

        def across(r: Expr) -> tirx.Stmt:
            place = lambda j: [(r * const(size) + const(j)) * const(lanes)]
            values = [tir.load(half, place(j), lanes) for j in range(size)]
            put = lambda s, value: tir.store(spectrum, value, [r * const(size) + const(s), slot, 0], lanes)
            return self._transformed(matrix, "h", values, put)

        nothing = lambda point: tir.store(spectrum, self._zero(), [point, slot, 0], lanes)
        transform = tir.sequence(tirx.AllocBuffer(half), tir.loop("j", size, down), tir.loop("r", size, across))
        return tir.when(has_data, transform, tir.loop("point", self.points, nothing))

    def _sample(self, window: Window, source: list[Expr], i: int, j: Expr) -> Expr:
        """The data at row ``i`` and column ``j`` of a window, 0 beside the image."""
        row, column = window.top + const(i), window.left + j
        value = tir.load(self.data, [window.batch, *source, row, column, 0], self.conv.lanes)
        if window.is_inside:
            return value
        height, width = self.data.ty.shape[-3:-1]
        valid = tirx.all(tir.inside(row, height), tir.inside(column, width))
        return tirx.if_then_else(valid, value, self._zero())

    def _zero(self) -> Expr:
        return tir.broadcast(tirx.const(0, self.dtype), self.conv.lanes)

    def _transformed(
        self, matrix: Matrix, name: str, values: list[Expr], put: Callable[[int, Expr], tirx.Stmt]
    ) -> tirx.Stmt:
        """``put(n, element n of matrix @ values)``."""
        code = VectorCode(self.conv.lanes, self.dtype)
        bound = [code.bind(f"{name}{n}", value) for n, value in enumerate(values)]
        results = code.transform(matrix, bound)
        return tir.sequence(*code.stmts, *(put(n, value) for n, value in enumerate(results)))

    def _point(self, product: Product) -> tirx.Stmt:
        """The products of all tiles at one point."""
        run = cover_columns(product.count, self.grouping.width, 1)

        def tile(t: Expr) -> tirx.Stmt:
            ask = lambda in_block: self._ask(product, t, run.count, in_block)
            return self._product_tile(product, run.start(t), run.width, ask)

        return tir.loop("run", run.count, tile)

    def _ask(self, product: Product, tile: Expr, tiles: int, in_block: Expr) -> tirx.Stmt | None:
        """Ask for a part of the weights of the next chunk while this one is worked on."""
        if not self.grouping.asks_ahead:
            return None
        size = product.vectors * self.conv.in_channels * self.conv.lanes
        iteration = tile * const(self.blocks) + in_block
        iterations = tiles * self.blocks
        following: list[SizeLike] = [product.point, product.block + const(product.vectors), 0, 0]
        _, part_of = emit.prefetch_parts(self.weight, following, size, iterations, iterations)
        return part_of(iteration)

    def _product_tile(
        self, product: Product, start: Expr, width: int, ask: Callable[[Expr], tirx.Stmt | None]
    ) -> tirx.Stmt:
        """``width`` tiles from ``start`` on by all vectors of a product, in registers."""
        acc = tir.Accumulators(width * product.vectors, self.conv.lanes, self.dtype)
        start, bound = tir.bind_index("start", start)
        in_block = lambda block: tir.sequence(ask(block), self._multiply(product, acc, start, width, block))
        keep = lambda is_first: self._keep(product, acc, start, width, is_first)
        sum_blocks = max(1, LONGEST_SUM // self.conv.lanes)

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

    def _multiply(self, product: Product, acc: tir.Accumulators, start: Expr, width: int, block: Expr) -> tirx.Stmt:
        """Add the products of one block of input channels to the sums."""
        conv, lanes, count = self.conv, self.conv.lanes, const(product.count)
        extent: int | Expr = lanes
        if conv.in_channels % lanes:
            extent = tirx.min(const(lanes), const(conv.in_channels) - block * const(lanes))

        def channel(ic: Expr) -> tirx.Stmt:
            def column(m: Expr) -> tirx.Stmt:
                place = [product.point, block * count + start + m, ic]
                value = tir.broadcast(tir.load(product.spectrum, place), lanes)

                def vector(v: Expr) -> tirx.Stmt:
                    place: list[SizeLike] = [product.point, product.block + v, block * const(lanes) + ic, 0]
                    which = m * const(product.vectors) + v
                    return acc.set(which, acc.get(which) + value * tir.load(self.weight, place, lanes))

                return tir.loop("v", product.vectors, vector, kind="unrolled")

            return tir.loop("m", width, column, kind="unrolled")

        return tir.loop("ic", extent, channel)

    def _keep(self, product: Product, acc: tir.Accumulators, start: Expr, width: int, is_first: bool) -> tirx.Stmt:
        """Store the sums, or add them to those that lie there."""
        lanes = self.conv.lanes

        def one(m: Expr, v: Expr) -> tirx.Stmt:
            row = (product.slot + v) * const(product.count) + start + m
            place: list[SizeLike] = [product.point, row, 0]
            value = acc.get(m * const(product.vectors) + v)
            if not is_first:
                value = value + tir.load(product.products, place, lanes)
            return tir.store(product.products, value, place, lanes)

        inner = lambda m: tir.loop("v", product.vectors, lambda v: one(m, v), kind="unrolled")
        return tir.loop("m", width, inner, kind="unrolled")

    def _output(self, products: tirx.Buffer, image: Expr, tile: Expr, slot: Expr, block: Expr) -> tirx.Stmt:
        """``A^T m A`` of one tile and one block of channels, then the epilogue."""
        conv, size, lanes = self.conv, self.size, self.conv.lanes
        epilogue = Epilogue(self.kernel, lanes)
        batch, plane, row, column, bound = self._place(image, tile)
        half = tirx.decl_buffer([const(conv.tile * size * lanes)], self.dtype, "half", scope="local")

        def down(s: Expr) -> tirx.Stmt:
            values = [tir.load(products, [const(r * size) + s, slot, 0], lanes) for r in range(size)]
            put = lambda i, value: tir.store(half, value, [(const(i * size) + s) * const(lanes)], lanes)
            return self._transformed(self.matrices.output, "m", values, put)

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
            return tir.sequence(bound_h, tir.when(h < const(self.height) if self.height % conv.tile else None, whole))

        return tir.sequence(
            bound,
            tirx.AllocBuffer(half),
            tir.loop("s", size, down),
            epilogue.allocate(),
            tir.loop("i", conv.tile, across),
        )
