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
"""

from __future__ import annotations

from math import prod

from tvm import tirx

from torch_tvm.schedules.attention_spec import AttentionSpec, read_attention
from torch_tvm.schedules.cpu.attention.kernel import AttentionEmitter, AttentionTiling
from torch_tvm.schedules.cpu.matmul.register_tile import TileShape
from torch_tvm.schedules.cpu.matmul.tiling import tile_rows
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import ceil_div, exact, round_up, static, static_sizes
from torch_tvm.workloads.attention import AttentionWorkload

KEY_BLOCK = 512
ROW_BLOCK = 64


class Attention:
    """See the module's text."""

    name = "attention"

    def apply(self, func: tirx.PrimFunc, cpu: CpuModel) -> tirx.PrimFunc:
        spec = read_attention(func)
        body = AttentionEmitter(spec, choose_tilings(spec, cpu)).emit()
        return func.with_body(body).without_attr(AttentionWorkload.ATTRIBUTE)


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
