"""The inner kernel of every matrix product: a tile of sums that stays in vector registers.

    for k:                                  # reduce_k, unrolled by k_unroll
        for row in range(rows):             # unrolled
            for vector in range(vectors):   # unrolled
                sum[row, vector] += lhs(row, k) * rhs(k, vector)

Sums live in one small buffer for each row: TVM keeps buffers below 1 KiB that have global scope on the
stack, and LLVM promotes those to registers. (Other scopes become calls of the workspace allocator.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.cpu.emit import const, index, loop, sequence, static


@dataclass(frozen=True)
class TileShape:
    """``rows`` × ``vectors`` sums of ``lanes`` elements.

    ``k_unroll`` turns of the reduction are unrolled; ``chains`` independent sets of sums take turns (their
    total is formed at the end), which hides the latency of the multiply-add when the tile is small.
    """

    rows: int
    vectors: int
    lanes: int
    k_unroll: int = 1
    chains: int = 1

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


def lanes_loop(lanes: int, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
    """A loop over the lanes of one vector (none for a single lane)."""
    return loop("lane", lanes, body, kind="vectorized") if lanes > 1 else body(const(0))


def emit_tile(
    shape: TileShape,
    reduce: int | Expr,
    lhs: Callable[[int, Expr], Expr],
    rhs: Callable[[Expr, Expr], Expr],
    finish: Callable[[int, Expr, Expr], tirx.Stmt],
    dtype: str,
) -> tirx.Stmt:
    """Compute one tile.

    ``lhs(row, k)`` is a scalar, ``rhs(k, column)`` the element for one ``column`` of the tile; the columns
    are ``vectors`` vectorised loops. ``finish(row, column, total)`` stores an element of type ``dtype``.
    """
    sums = [
        [tirx.decl_buffer((const(shape.columns),), dtype, f"sum_{chain}_{row}") for row in range(shape.rows)]
        for chain in range(shape.chains)
    ]
    bases = [const(vector * shape.lanes) for vector in range(shape.vectors)]
    zero = tirx.const(0, dtype)

    def at(chain: int, row: int, column: Expr) -> Expr:
        return tirx.BufferLoad(sums[chain][row], [column])

    def initialise(chain: int, row: int, base: Expr) -> tirx.Stmt:
        return lanes_loop(shape.lanes, lambda lane: tirx.BufferStore(sums[chain][row], zero, [base + lane]))

    def accumulate(chain: int, k: Expr) -> list[tirx.Stmt]:
        scalars = [lhs(row, k) for row in range(shape.rows)]
        return [
            lanes_loop(
                shape.lanes,
                lambda lane, row=row, base=base: tirx.BufferStore(
                    sums[chain][row],
                    at(chain, row, base + lane) + scalars[row] * rhs(k, base + lane),
                    [base + lane],
                ),
            )
            for row in range(shape.rows)
            for base in bases
        ]

    def total(row: int, column: Expr) -> Expr:
        value = at(0, row, column)
        for chain in range(1, shape.chains):
            value = value + at(chain, row, column)
        return value

    step = max(shape.k_unroll, shape.chains)
    size = static(reduce)
    main, rest = (size // step, size % step) if size is not None else (index(reduce) // step, None)
    done = main * step

    def turn(k: Expr, count: int) -> tirx.Stmt:
        return sequence(*(s for i in range(count) for s in accumulate(i % shape.chains, k + i if i else k)))

    body: list[tirx.Stmt] = []
    if size is None and step > 1:
        body.append(loop("reduce_k", main, lambda k: turn(k * step, step)))
        body.append(loop("reduce_rest", reduce - done, lambda k: turn(done + k, 1)))
    else:
        if size is None or main:
            body.append(loop("reduce_k", main, lambda k: turn(k * step if step > 1 else k, step)))
        if rest:
            body.append(turn(const(done), rest))
    cells = [(row, base) for row in range(shape.rows) for base in bases]
    return sequence(
        *(tirx.AllocBuffer(buffer) for chain in sums for buffer in chain),
        *(initialise(chain, row, base) for chain in range(shape.chains) for row, base in cells),
        *body,
        *(
            lanes_loop(
                shape.lanes,
                lambda lane, row=row, base=base: finish(row, base + lane, total(row, base + lane)),
            )
            for row, base in cells
        ),
    )
