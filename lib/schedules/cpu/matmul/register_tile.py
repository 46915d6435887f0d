"""The inner kernel of every matrix product: a tile of sums that stays in vector registers.

    for k:                                  # reduce_k, unrolled by k_unroll
        for row in range(rows):             # unrolled
            for vector in range(vectors):   # unrolled
                sum[row, vector] += lhs(row, k) * rhs(k, vector)

Sums live in one small buffer for each column of vectors; it stays on the stack, and LLVM promotes it to
registers. Rows are loops that TVM unrolls late, so its passes see one statement and not one for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu import emit
from torch_tvm.schedules.instructions.prefetch import PREFETCH
from torch_tvm.schedules.target import CpuModel
from torch_tvm.tir import as_size, const, lanes_loop, loads, loop, sequence, static


@dataclass(frozen=True)
class TileShape:
    """``rows`` × ``vectors`` sums of ``lanes`` elements.

    ``k_unroll`` turns of the reduction are unrolled; ``chains`` independent sets of sums take turns (their
    total is formed at the end), which hides the latency of the multiply-add when the tile is small.
    ``prefetch`` is how many turns ahead the right operand is asked for (0: not), where one tile has all rows.
    """

    rows: int
    vectors: int
    lanes: int
    k_unroll: int = 1
    chains: int = 1
    prefetch: int = 0

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


@dataclass(frozen=True)
class Share:
    """A tile's number among the ``tiles`` tiles in a row that read the same right operand."""

    tile: Expr
    tiles: int | Expr


def tile_shape(rows: int, vectors: int, lanes: int, cpu: CpuModel) -> TileShape:
    """A tile with as many chains of sums as hide the latency of the multiply-add and fit the registers."""
    sums = rows * vectors
    chains = 4 if sums <= 4 else 2 if sums <= 8 else 1
    while chains > 1 and chains * sums + vectors + 1 > cpu.vector_registers:
        chains //= 2
    return TileShape(rows, vectors, lanes, k_unroll=2 if chains == 1 else chains, chains=chains)


def emit_tile(
    shape: TileShape,
    reduce: int | Expr,
    lhs: Callable[[Expr, Expr], Expr],
    rhs: Callable[[Expr, Expr], Expr],
    finish: Callable[[Expr, Expr, Expr], tirx.Stmt],
    dtype: str,
    share: Share | None = None,
) -> tirx.Stmt:
    """Compute one tile.

    ``lhs(row, k)`` is a scalar, ``rhs(k, column)`` the element for one ``column`` of the tile; the columns
    are ``vectors`` vectorised loops. ``finish(row, column, total)`` stores an element of type ``dtype``.
    With a ``share``, the tile asks for its part of what lies behind its right operand in memory.
    """
    sums = [
        [
            tirx.decl_buffer((const(shape.rows * shape.lanes),), dtype, f"sum_{chain}_{vector}")
            for vector in range(shape.vectors)
        ]
        for chain in range(shape.chains)
    ]
    zero = tirx.const(0, dtype)

    def cells(body: Callable[[Expr, int, Expr], tirx.Stmt]) -> tirx.Stmt:
        """``body(row, vector, lane)`` for the whole tile."""
        return loop(
            "row",
            shape.rows,
            lambda row: sequence(
                *(
                    lanes_loop(shape.lanes, lambda lane, vector=vector: body(row, vector, lane))
                    for vector in range(shape.vectors)
                )
            ),
            kind="unrolled",
        )

    def at(chain: int, row: Expr, vector: int, lane: Expr) -> Expr:
        return tirx.BufferLoad(sums[chain][vector], [row * shape.lanes + lane])

    def put(chain: int, row: Expr, vector: int, lane: Expr, value: Expr) -> tirx.Stmt:
        return tirx.BufferStore(sums[chain][vector], value, [row * shape.lanes + lane])

    def accumulate(chain: int, k: Expr) -> tirx.Stmt:
        return cells(
            lambda row, vector, lane: put(
                chain,
                row,
                vector,
                lane,
                at(chain, row, vector, lane) + lhs(row, k) * rhs(k, lane + vector * shape.lanes),
            )
        )

    def total(row: Expr, vector: int, lane: Expr) -> Expr:
        value = at(0, row, vector, lane)
        for chain in range(1, shape.chains):
            value = value + at(chain, row, vector, lane)
        return value

    step = max(shape.k_unroll, shape.chains)
    size = static(reduce)
    turns = size // step if size is not None else 0
    bound, part_of = None, None
    if (
        share is not None
        and size is not None
        and turns
        and len(found := loads(rhs(const(size), const(0)))) == 1
    ):
        source, first = found[0].source, found[0].indices
        amount = size * shape.columns
        bound, part_of = emit.prefetch_parts(source, first, amount, share.tiles * turns, 2 * turns)

    def ahead(k: Expr) -> tirx.Stmt | None:
        """Ask for the right operand of a later step (past its end, the processor ignores the request)."""
        if not shape.prefetch:
            return None
        lines = range(0, shape.columns, shape.lanes * emit.vectors_in_line(shape.lanes, dtype))
        found = [loads(rhs(k + shape.prefetch, const(start))) for start in lines]
        if not all(len(of_vector) == 1 for of_vector in found):
            return None
        return sequence(*(PREFETCH(load, 3) for (load,) in found))

    def turn(k: Expr, count: int) -> tirx.Stmt:
        """``count`` steps of the reduction from ``k`` on."""
        ask = None
        if share is not None and part_of is not None and count == step:
            ask = part_of(share.tile * turns + k // step)
        if shape.chains == 1:
            steps = [
                loop("k", count, lambda i: sequence(ahead(k + i), accumulate(0, k + i)), kind="unrolled")
            ]
        else:
            steps = [s for i in range(count) for s in (ahead(k + i), accumulate(i % shape.chains, k + i))]
        return sequence(ask, *steps)

    main = size // step if size is not None else as_size(reduce) // step
    rest = size % step if size is not None else as_size(reduce) - main * step
    loops = [loop("reduce_k", main, lambda k: turn(k * step, step))] if static(main) != 0 else []
    if static(rest) is None:
        loops.append(loop("reduce_rest", rest, lambda k: turn(main * step + k, 1)))
    elif rest:
        loops.append(turn(const(main * step), rest))
    return sequence(
        bound,
        *(tirx.AllocBuffer(buffer) for chain in sums for buffer in chain),
        *(
            cells(lambda row, vector, lane, chain=chain: put(chain, row, vector, lane, zero))
            for chain in range(shape.chains)
        ),
        *loops,
        cells(lambda row, vector, lane: finish(row, lane + vector * shape.lanes, total(row, vector, lane))),
    )
