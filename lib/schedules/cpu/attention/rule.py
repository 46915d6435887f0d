"""Scaled dot product attention in one kernel: scores, mask, softmax and weighted sum stay in cache.

    for task in parallel(batch × heads [× row chunks]):
        pack K as [keys / NR, D, NR] and V as [keys, DV]        # filled up to whole vectors
        for row block (BR rows):
            for key block (BC keys):                            # one iteration unless there are more than BC keys
                S[BR, BC] = Q K^T                               # register tiles
                S = mask(S); m = max(m, rows of S); S = exp(S - m); l = l * exp(m_old - m) + rows of S
                O = O * exp(m_old - m) + S V                    # register tiles
            out = O / l

The running maximum and sum follow "Online normalizer calculation for softmax" (Milakov and Gimelshein,
arXiv:1805.02867) as FlashAttention does; with a single key block nothing is rescaled. Under a causal mask,
key blocks and panels to the right of the diagonal are not computed.

The PrimFunc is its own specification (:mod:`torch_tvm.transforms.fuse_attention` writes it): the blocks that
:mod:`torch_tvm.workloads.attention` names say how Q, K, V, the mask and the result lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.s_tir import SBlock
from tvm_ffi.structural import structural_map

from torch_tvm.schedules.cpu.attention.kernel import AttentionEmitter, AttentionSpec, AttentionTiling
from torch_tvm.schedules.cpu.loops.producers import steps
from torch_tvm.schedules.cpu.matmul.register_tile import TileShape
from torch_tvm.schedules.cpu.matmul.tiling import tile_rows
from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import ceil_div, const, exact, round_up, static, static_sizes, substitute
from torch_tvm.workloads.attention import CAST, MASKED, OUTPUT, ROWS, SCORES, AttentionWorkload

KEY_BLOCK = 512
ROW_BLOCK = 64


class Attention:
    """See the module's text."""

    name = "attention"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        spec = read_attention(func)
        body = AttentionEmitter(spec, choose_tilings(spec, cpu)).emit()
        return func.with_body(body).without_attr(AttentionWorkload.ATTRIBUTE)


@dataclass(frozen=True)
class Blocks:
    """The blocks of an attention; ``after`` are those that change the weighted sums element by element."""

    scores: SBlock
    masked: SBlock
    output: SBlock
    after: list[SBlock]


def read_attention(func: tirx.PrimFunc) -> AttentionSpec:
    """Read the specification or raise :class:`Refusal`."""
    workload = AttentionWorkload.from_attr(func.attrs)
    if workload is None:
        raise Refusal("no attention")
    blocks = _read_blocks(func)
    b, h, i, j, d = (it.var for it in blocks.scores.iter_vars)
    batch, heads, rows, keys, depth = (it.dom.extent for it in blocks.scores.iter_vars)
    query, key = blocks.scores.body.value.b.a, blocks.scores.body.value.b.b
    weights, value = blocks.output.body.value.b.a, blocks.output.body.value.b.b
    point = list(_first_load(weights).indices)
    of_value = next((it for it in blocks.output.iter_vars if not any(it.var.same_as(p) for p in point)), None)
    sizes = static_sizes((depth, of_value.dom.extent if of_value is not None else None))
    if of_value is None or sizes is None:
        raise Refusal("the size of a head is not constant")
    if any(static(extent) == 0 for extent in (batch, heads, rows, keys, *sizes)):
        raise Refusal("an axis is empty")
    at = lambda expr, old: lambda *new: substitute(expr, dict(zip(old, new, strict=True))).astype("float32")
    return AttentionSpec(
        batch=batch,
        heads=heads,
        rows=rows,
        keys=keys,
        depth=sizes[0],
        value_depth=sizes[1],
        query=at(query, (b, h, i, d)),
        key=at(key, (b, h, j, d)),
        value=at(value, (point[0], point[1], point[3], of_value.var)),
        masked=_read_masked(blocks),
        store=_read_store(blocks, [*point[:3], of_value.var]),
        causal={"none": None, "top_left": const(0), "bottom_right": keys - rows}[workload.causal],
        is_safe=workload.is_safe,
    )


def _read_blocks(func: tirx.PrimFunc) -> Blocks:
    sch = steps.start(func)
    found = {sch.get(block).name_hint: sch.get(block) for block in steps.blocks(sch)}
    scores, masked, output = (found.get(name) for name in (SCORES, MASKED, OUTPUT))
    if scores is None or masked is None or output is None:
        raise Refusal("the blocks of an attention are missing")
    if str(output.body.buffer.dtype) != "float32":
        raise Refusal("the exponential is written for single precision")
    return Blocks(scores, masked, output, [found[name] for name in (ROWS, CAST) if name in found])


def _read_masked(blocks: Blocks) -> Callable[..., Expr]:
    """``masked(b, h, i, j, score)``."""
    axes = [it.var for it in blocks.masked.iter_vars]

    def masked(*args: Expr) -> Expr:
        *place, score = args
        value = substitute(blocks.masked.body.value, dict(zip(axes, place, strict=True)))
        return _replace_load(value, blocks.scores.body.buffer.name, score)

    return masked


def _read_store(blocks: Blocks, axes: list[tirx.Var]) -> Callable[..., tirx.Stmt]:
    """``store(b, h, i, d, total)``, through the blocks after the sums; ``axes`` are those of the sums."""

    def store(*args: Expr) -> tirx.Stmt:
        *place, total = args
        bindings = dict(zip(axes, place, strict=True))
        indices = [substitute(index, bindings) for index in blocks.output.body.indices]
        buffer = blocks.output.body.buffer
        for block in blocks.after:
            own = dict(zip((it.var for it in block.iter_vars), indices, strict=True))
            total = _replace_load(substitute(block.body.value, own), buffer.name, total)
            buffer = block.body.buffer
        return tirx.BufferStore(buffer, total, indices)

    return store


def choose_tilings(spec: AttentionSpec, cpu: CpuModel) -> list[AttentionTiling]:
    """Tilings in falling order of rows; the first with at least as many rows as its row block is used."""
    lanes = cpu.lanes("float32")
    keys, rows = static(spec.keys), static(spec.rows)
    score_vectors = 2 if keys is None else min(3 if cpu.vector_registers >= 32 else 2, ceil_div(keys, lanes))
    sum_vectors = min(ceil_div(spec.value_depth, lanes), 4 if cpu.vector_registers >= 32 else 2)
    while ceil_div(spec.value_depth, lanes) % sum_vectors:
        sum_vectors -= 1
    widest = max(score_vectors, sum_vectors)
    most = tile_rows(None, widest, cpu)
    tasks = None if static(spec.batch) is None else (static(spec.batch) or 1) * (static(spec.heads) or 1)
    width = score_vectors * lanes
    padded = None if keys is None else round_up(keys, width)
    block = KEY_BLOCK // width * width
    one_block = padded is not None and padded <= block and spec.value_depth % lanes == 0
    has_tail = one_block and spec.causal is None
    tail_vectors = ceil_div(exact(keys) % width, lanes) % score_vectors if has_tail else 0

    def tiling(tile: int, row_block: int) -> AttentionTiling:
        chunks = 1
        if tasks is not None and rows is not None and tasks < cpu.cores:
            chunks = min(ceil_div(cpu.cores, tasks), ceil_div(rows, row_block))
        known = static_sizes((tasks, rows, keys))
        work = None if known is None else prod(known) * spec.depth
        return AttentionTiling(
            score=_shape(tile, score_vectors, lanes),
            tail=_shape(tile, tail_vectors, lanes) if tail_vectors else None,
            sum=_shape(tile, sum_vectors, lanes),
            row_block=row_block,
            key_block=block if padded is None or padded > block else padded,
            row_chunks=chunks,
            one_block=one_block,
            parallel=cpu.cores > 1 and (work is None or work >= 1 << 17),
        )

    if rows is None:
        return [tiling(most, 4 * most), tiling(most, most), tiling(1, 1)]
    if rows <= most:
        return [tiling(rows, rows)]
    tile = tile_rows(rows, widest, cpu)
    return [tiling(*(_rows(rows, most, one_block) or (tile, tile)))]


def _rows(rows: int, most: int, overlap: bool) -> tuple[int, int] | None:
    """Rows of a tile and of a block that take the least work: a row of each tile, and as much as one for the tile.

    With ``overlap`` the last tile of a block may overlap the one before; otherwise blocks are whole tiles, and None is
    the answer where no block of them has room.
    """
    fewest = ceil_div(rows, ROW_BLOCK)
    found = []
    for blocks in range(fewest, min(2 * fewest + 1, rows // most) + 1):
        for tile in range(max(1, most // 2), most + 1):
            tiles = ceil_div(rows, blocks * tile)
            block = max(tile, ceil_div(rows, blocks)) if overlap else tiles * tile
            if block <= rows:
                found.append((blocks * tiles * (tile + 1.0), blocks, -tile, block))
    if not found:
        return None
    _, _, tile, block = min(found)
    return -tile, block


def _shape(rows: int, vectors: int, lanes: int) -> TileShape:
    chains = 4 if rows * vectors <= 4 else 2 if rows * vectors <= 8 else 1
    return TileShape(rows, vectors, lanes, k_unroll=2 if chains == 1 else chains, chains=chains)


def _first_load(expr: Any) -> TensorLoad:
    while not isinstance(expr, TensorLoad):
        expr = expr.value
    return expr


def _replace_load(expr: Expr, name: str, value: Expr) -> Expr:
    """``expr`` with ``value`` for what it loads from the buffer ``name``."""
    return structural_map(expr, (TensorLoad, lambda load: value if load.source.name == name else load))
