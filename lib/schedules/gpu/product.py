"""Products of matrices, batched or not, and convolutions as such products: tiles of both operands in shared memory.

    for b, m, n, k: C[b, m, n] += A[b, m, k] * B[b, n, k]

becomes

    for blockIdx.y = (b, tile of m), blockIdx.x = tile of n, threadIdx.y, threadIdx.x:
        for tile of k:
            shared A, shared B = the tiles of both operands, read by all threads
            for k in the tile: sums[own m, own n] += A * B
        C = what follows the product, of the sums

Any number of axes may stand for each of the four letters, as an axis is told by what reads it: that of one operand and
the result is ``m`` or ``n``, one of both operands and the result ``b``, one that is summed up ``k``. A convolution has
its positions as ``m``, its output channels as ``n`` and its channels and taps as ``k``; the window is gathered on its
way into shared memory (implicit GEMM). Tiles at the end are filled with zeros. Where a product has few results and long
sums, the sums are cut into parts that other blocks compute (split-K), and a launch more adds the parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import SBlock, Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from torch_tvm.schedules.gpu.blocks import (
    blocks_of,
    inline_consumers,
    is_spatial,
    kinds,
    refusing,
    schedule_of,
    scheduled,
)
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.gpu.reductions.truth import rebuilt
from torch_tvm.schedules.gpu.spatial_loops import bind_spatial
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import bytes_of, ceil_div

UNKNOWN = 1024
"""What a size that nobody knows is taken for where tiles are chosen."""

SMALL = 8
"""Rows and columns from which on tiles pay; fewer are the work of rules for rows."""

SHORTEST_PART = 256
"""Terms that a part of a sum has at least, where sums are cut."""

_DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "int64")


@dataclass(frozen=True)
class Axes:
    """The variables of a product by their part in it, in their order in the block."""

    batch: tuple[tirx.Var, ...]
    rows: tuple[tirx.Var, ...]
    columns: tuple[tirx.Var, ...]
    terms: tuple[tirx.Var, ...]


@dataclass(frozen=True)
class Tiles:
    """What a block computes: ``threads`` (y, x) with ``sums`` (y, x) each, in steps of ``depth`` terms."""

    threads: tuple[int, int]
    sums: tuple[int, int]
    depth: int

    @property
    def rows(self) -> int:
        return self.threads[0] * self.sums[0]

    @property
    def columns(self) -> int:
        return self.threads[1] * self.sums[1]

    def blocks(self, batch: int, rows: int, columns: int) -> int:
        """Of how many such tiles a result is made."""
        return batch * ceil_div(rows, self.rows) * ceil_div(columns, self.columns)


class Product:
    """The rule for products of matrices and for convolutions; those by channel are too narrow for it."""

    name = "product"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        schedule = schedule_of(func)
        with refusing():
            schedule, block = _with_groups_apart(schedule, _product(schedule))
            _tile(schedule, _in_parts(schedule, block, gpu), gpu)
            for rest in _unbound(schedule):
                bind_spatial(schedule, rest, min(64, gpu.threads))
            return scheduled(schedule)


# -- what is a product -------------------------------------------------------------------------------------


def _product(schedule: Schedule) -> SBlockRV:
    """The one block that sums up products; all others compute point by point."""
    blocks = blocks_of(schedule)
    summing = [block for block in blocks if "R" in kinds(schedule.get(block))]
    if len(summing) != 1:
        raise Refusal(f"{len(summing)} blocks sum up" if summing else "no block sums up")
    if not all(is_spatial(schedule.get(block)) for block in blocks if block is not summing[0]):
        raise Refusal("a block beside the product searches, or has blocks of its own")
    return summing[0]


def _with_groups_apart(schedule: Schedule, block: SBlockRV) -> tuple[Schedule, SBlockRV]:
    """The channels of a convolution with groups as groups, which are a batch, and channels of a group."""
    node = schedule.get(block)
    inputs: list[tirx.Var] = []
    results: list[tirx.Expr] = []
    is_split = False
    for item in node.iter_vars:
        index, size = tirx.Var("i", str(item.var.ty.dtype)), _group_size(node, item.var)
        inputs.append(index)
        results += [index] if size is None else [index // size, index % size]
        is_split = is_split or size is not None
    if not is_split:
        return schedule, block
    schedule.transform_block_layout(block, tirx.IndexMap(inputs, results, None))
    name = schedule.get(block).name_hint
    of_block = lambda node: _simplified(node) if node.name_hint == name else node
    func = schedule.mod["main"]
    func = func.with_body(tvm_ffi.structural_map(func.body, (SBlock, of_block)))
    schedule = Schedule(tvm.IRModule({"main": func}))
    return schedule, schedule.get_sblock(name)


def _simplified(node: SBlock) -> SBlock:
    """A block with ``(g * n + c) // n`` as ``g`` where ``c`` is below ``n``."""
    analyzer = tvm.sym.Analyzer()
    for item in node.iter_vars:
        analyzer.bind(item.var, item.dom)
    simple = lambda part: tvm_ffi.structural_map(part, (tirx.FloorDiv, analyzer.simplify))
    parts = {name: simple(getattr(node, name)) for name in ("body", "init")}
    return rebuilt(node, reads=[simple(region) for region in node.reads], **parts)


def _group_size(node: SBlock, var: tirx.Var) -> tirx.Expr | None:
    """``n`` where an operand is read at ``var // n``."""
    found: list[tirx.Expr] = []

    def visit(division: tirx.FloorDiv) -> None:
        if division.a.same_as(var) and isinstance(division.b, tirx.IntImm):
            found.append(division.b)

    tvm_ffi.structural_walk(node.body, (tirx.FloorDiv, visit))
    return found[0] if found else None


def _axes(node: SBlock) -> Axes:
    """Which variable is what. Raises :class:`Refusal` where a block is no product."""
    first, second = _operands(node)
    if not all(str(region.source.dtype) in _DTYPES for region in [*node.reads, *node.writes]):
        raise Refusal("a dtype that no tile is made of")
    reads = [set(_variables(load.indices)) for load in (first, second)]
    written = set(_variables(node.body.indices))
    found: dict[str, list[tirx.Var]] = {"batch": [], "rows": [], "columns": [], "terms": []}
    for item in node.iter_vars:
        var, by = item.var, tuple(item.var in each for each in reads)
        if item.iter_type == tirx.IterVar.CommReduce:
            if by != (True, True) or var in written:
                raise Refusal("a sum over what only one operand has")
            found["terms"].append(var)
        elif by == (False, False) or var not in written:
            raise Refusal("an axis that no operand has")
        else:
            found["batch" if all(by) else "rows" if by[0] else "columns"].append(var)
    return Axes(**{name: tuple(variables) for name, variables in found.items()})


def _operands(node: SBlock) -> tuple[TensorLoad, TensorLoad]:
    """What ``C += A * B`` reads as A and B, whatever they are cast to."""
    body = node.body
    if not isinstance(body, tirx.BufferStore) or node.init is None or not isinstance(body.value, tirx.Add):
        raise Refusal("it sums up no products")
    sides = [body.value.a, body.value.b]
    terms = [side for side in sides if not _reads(side, body.buffer)]
    if len(terms) != 1:
        raise Refusal("it sums up no products")
    term = _plain(terms[0])
    sides = [_plain(factor) for factor in (term.a, term.b)] if isinstance(term, tirx.Mul) else []
    factors = [factor for factor in sides if isinstance(factor, TensorLoad)]
    if len(factors) != 2:
        raise Refusal("its terms are no products of two elements")
    if factors[0].source.same_as(factors[1].source) or len(node.reads) != 2:
        raise Refusal("both operands are one tensor")
    if not node.reads[0].source.same_as(factors[0].source):
        factors.reverse()
    return factors[0], factors[1]


def _plain(expr: tirx.Expr) -> tirx.Expr:
    while isinstance(expr, tirx.Cast):
        expr = expr.value
    return expr


def _reads(expr: tirx.Expr, buffer: tirx.Var) -> bool:
    found: list[TensorLoad] = []
    tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
    return any(load.source.same_as(buffer) for load in found)


def _variables(indices: Sequence[tirx.Expr]) -> list[tirx.Var]:
    return [var for index in indices for var in tirx.analysis.undefined_vars(index)]


# -- sizes of tiles ----------------------------------------------------------------------------------------


def _size(node: SBlock, variables: Sequence[tirx.Var]) -> int | None:
    """How many values variables have together; None where that is not known."""
    extents = [item.dom.extent for item in node.iter_vars if item.var in variables]
    if not all(isinstance(extent, tirx.IntImm) for extent in extents):
        return None
    return math.prod(int(extent) for extent in extents)


def _sizes(node: SBlock, axes: Axes) -> tuple[int, int, int, int]:
    """Batch, rows, columns and terms. Raises :class:`Refusal` where rows or columns are too few for tiles."""
    known = [_size(node, each) for each in (axes.batch, axes.rows, axes.columns, axes.terms)]
    taken_for = (1, UNKNOWN, UNKNOWN, UNKNOWN)
    batch, rows, columns, terms = (
        instead if size is None else size for size, instead in zip(known, taken_for, strict=True)
    )
    if min(rows, columns) < SMALL:
        raise Refusal(f"fewer than {SMALL} rows or columns")
    return batch, rows, columns, terms


def choose_tiles(batch: int, rows: int, columns: int, depth: int, size: int, gpu: GpuModel) -> Tiles:
    """The tiles of a product of elements of ``size`` bytes: the least time for what is computed, padding included.

    A sum costs a multiply-add and its part of reading both operands from shared memory; a GPU that has fewer blocks
    than it could run at once is that much slower.
    """
    side = 16 if gpu.threads >= 256 else 8
    best, least = None, math.inf
    for down in (1, 2, 4, 8):
        for across in (1, 2, 4, 8):
            tiles = Tiles((side, side), (down, across), min(16, max(4, depth)))
            registers = (down * across + down + across) * ceil_div(size, 4)
            shared = (tiles.rows + tiles.columns) * tiles.depth * size
            if registers > gpu.registers or shared > gpu.shared:
                continue
            blocks = tiles.blocks(batch, rows, columns)
            work = blocks * tiles.rows * tiles.columns * (1 + (down + across) / (down * across))
            time = work / min(1.0, blocks / gpu.blocks)
            if time < least:
                best, least = tiles, time
    if best is None:
        raise Refusal("no tile fits the shared memory")
    return best


def _bytes(node: SBlock) -> int:
    return max(bytes_of(str(region.source.dtype)) for region in [*node.reads, *node.writes])


# -- steps -------------------------------------------------------------------------------------------------


def _in_parts(schedule: Schedule, block: SBlockRV, gpu: GpuModel) -> SBlockRV:
    """The product of each part of the terms, where it has too few blocks otherwise; else the product as it is."""
    node = schedule.get(block)
    axes = _axes(node)
    if _size(node, [item.var for item in node.iter_vars]) is None:
        return block
    batch, rows, columns, terms = _sizes(node, axes)
    tiles = choose_tiles(batch, rows, columns, terms, _bytes(node), gpu)
    wanted = min(gpu.blocks // tiles.blocks(batch, rows, columns), terms // SHORTEST_PART)
    parts = max((count for count in range(1, wanted + 1) if terms % count == 0), default=1)
    if parts == 1:
        return block
    extents = {item.var: item.dom.extent for item in node.iter_vars}
    free = [var for var in extents if var not in axes.terms]
    letters = (*((var,) for var in free), axes.terms)
    inputs, (*places, term) = _fused(list(extents), letters, extents)
    size = tirx.const(terms // parts, "int64")
    schedule.transform_block_layout(block, tirx.IndexMap(inputs, [*places, term // size, term % size], None))
    product = schedule.rfactor(schedule.get_loops(block)[-2], 0)
    *spatial, part, last = schedule.get_loops(product)
    schedule.reorder(part, *spatial, last)  # as the variables of the block stand
    return product


def _tile(schedule: Schedule, block: SBlockRV, gpu: GpuModel) -> None:
    node = schedule.get(block)
    axes = _axes(node)
    batch, rows, columns, terms = _sizes(node, axes)
    operands = (0, 1)
    if _is_along(node.body.indices, axes.rows):
        operands, rows, columns = (1, 0), columns, rows
        axes = Axes(axes.batch, axes.columns, axes.rows, axes.terms)
    tiles = choose_tiles(batch, rows, columns, terms, _bytes(node), gpu)
    loads = _operands(node)
    sides = zip(operands, (axes.rows, axes.columns), strict=True)
    transposed = [_is_along(loads[operand].indices, side) for operand, side in sides]
    _normalise(schedule, block, axes, operands)
    schedule.pad_einsum(block, [1, tiles.rows, tiles.columns, tiles.depth])
    b, m, n, k = schedule.get_loops(block)
    block_y, thread_y, own_y = schedule.split(m, [None, tiles.threads[0], tiles.sums[0]])
    block_x, own_x, thread_x = schedule.split(n, [None, tiles.sums[1], tiles.threads[1]])
    step, term = schedule.split(k, [None, tiles.depth])
    schedule.reorder(b, block_y, block_x, own_x, thread_y, thread_x, step, term, own_y)
    for loop, name in (
        (block_x, "blockIdx.x"),
        (schedule.fuse(b, block_y), "blockIdx.y"),
        (own_x, "vthread.x"),  # neighbouring threads have neighbouring columns
        (thread_y, "threadIdx.y"),
        (thread_x, "threadIdx.x"),
    ):
        schedule.bind(loop, name)
    schedule.unroll(own_y)
    sums = schedule.cache_write(block, 0, "local")
    schedule.reverse_compute_at(sums, thread_x, preserve_unit_loops=True)
    for operand, along in zip(operands, transposed, strict=True):
        _into_shared(schedule, block, operand, step, tiles, transposed=along)
    schedule.decompose_reduction(block, step)
    inline_consumers(schedule, sums)


def _is_along(indices: Sequence[tirx.Expr], variables: Sequence[tirx.Var]) -> bool:
    """Whether neighbours in memory lie along one of these variables."""
    found = [read for index in indices if (read := set(_variables([index])))]
    return bool(found) and not found[-1].isdisjoint(variables)


def _normalise(schedule: Schedule, block: SBlockRV, axes: Axes, operands: tuple[int, int]) -> None:
    """``C[b, m, n] += A[b, m, k] * B[b, n, k]``, one axis for each letter."""
    node = schedule.get(block)
    extents = {item.var: item.dom.extent for item in node.iter_vars}
    loads = _operands(node)
    for operand, side in zip(operands, (axes.rows, axes.columns), strict=True):
        used = set(_variables(loads[operand].indices))
        copy = schedule.reindex(block, ("read", operand))
        order, letters = [var for var in extents if var in used], (axes.batch, side, axes.terms)
        schedule.transform_layout(copy, ("write", 0), _index_map(order, letters, extents))
    used = set(_variables(node.body.indices))
    copy = schedule.reindex(block, ("write", 0))
    order, letters = [var for var in extents if var in used], (axes.batch, axes.rows, axes.columns)
    schedule.transform_layout(copy, ("read", 0), _index_map(order, letters, extents))
    everything = (axes.batch, axes.rows, axes.columns, axes.terms)
    schedule.transform_block_layout(block, _index_map(list(extents), everything, extents))


Letters = Sequence[Sequence[tirx.Var]]


def _index_map(order: Sequence[tirx.Var], letters: Letters, extents: dict[tirx.Var, tirx.Expr]) -> tirx.IndexMap:
    inputs, results = _fused(order, letters, extents)
    return tirx.IndexMap(inputs, results, None)


def _fused(
    order: Sequence[tirx.Var], letters: Letters, extents: dict[tirx.Var, tirx.Expr]
) -> tuple[list[tirx.Var], list[tirx.Expr]]:
    """One index for each variable in ``order``, and made of these one for each letter."""
    inputs = [tirx.Var(f"i{position}", str(extents[var].ty.dtype)) for position, var in enumerate(order)]
    place = dict(zip(order, inputs, strict=True))
    results: list[tirx.Expr] = []
    for variables in letters:
        index = place[variables[0]] if variables else tirx.const(0, "int64")
        for var in variables[1:]:
            index = index * extents[var] + place[var]
        results.append(index)
    return inputs, results


def _into_shared(
    schedule: Schedule, block: SBlockRV, operand: int, step: LoopRV, tiles: Tiles, *, transposed: bool
) -> None:
    """The tile of one operand, read by all threads of a block and computed on the way.

    Neighbouring threads read neighbours in memory: along terms, or where ``transposed`` along rows or columns. The rows
    of a tile begin an odd number of elements apart, so that threads of a warp meet in no bank of shared memory.
    """
    copy = schedule.cache_read(block, operand, "shared")
    schedule.compute_at(copy, step, preserve_unit_loops=True)
    batch, side, terms = schedule.get_loops(copy)[-3:]
    if transposed:
        schedule.reorder(batch, terms, side)
    fused = schedule.fuse(*schedule.get_loops(copy)[-3:])
    if str(schedule.get(copy).writes[0].source.dtype) != "bfloat16":  # stored as other bits, without strides
        schedule.storage_align(copy, 0, axis=1, factor=2, offset=1)
    _, thread_y, thread_x = schedule.split(fused, [None, *tiles.threads])
    schedule.bind(thread_y, "threadIdx.y")
    schedule.bind(thread_x, "threadIdx.x")
    _inline_before(schedule, copy)


def _inline_before(schedule: Schedule, block: SBlockRV) -> None:
    """Compute what a block reads where it is read."""
    for producer in schedule.get_producers(block):
        _inline_before(schedule, producer)
        try:
            schedule.compute_inline(producer)
        except tvm.s_tir.ScheduleError:
            continue  # another reads it too, or it is no single element


def _unbound(schedule: Schedule) -> list[SBlockRV]:
    """Blocks that no thread has yet."""
    return [
        block
        for block in blocks_of(schedule)
        if not any(schedule.get(loop).kind == tirx.ForKind.THREAD_BINDING for loop in schedule.get_loops(block))
    ]


__all__ = ["Product", "Tiles", "choose_tiles"]
