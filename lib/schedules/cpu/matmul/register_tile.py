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
from torch_tvm.tir import SizeLike, as_size, const, lanes_loop, loads, loop, sequence, static


@dataclass(frozen=True)
class TileShape:
    """``rows`` × ``vectors`` sums of ``lanes`` elements.

    ``k_unroll`` iterations of the reduction are unrolled; ``chains`` independent sets of sums take turns (their
    total is formed at the end), which hides the latency of the multiply-add when the tile is small.
    ``prefetch`` is how many iterations ahead the right operand is asked for (0: not), where one tile has all rows.
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

    @property
    def step(self) -> int:
        """Steps of the reduction in an iteration of its loop."""
        return max(self.k_unroll, self.chains)


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


def _nothing(_: Expr) -> tirx.Stmt | None:
    return None


@dataclass(frozen=True)
class Requests:
    """What a tile asks memory for beside its work: ``bound`` comes first, the others go with each
    iteration and step.
    """

    bound: tirx.Stmt | None = None
    of_turn: Callable[[Expr], tirx.Stmt | None] = _nothing
    of_step: Callable[[Expr], tirx.Stmt | None] = _nothing


class RegisterTile:
    """The sums of one tile: for each chain and each column of vectors a buffer that LLVM keeps in registers."""

    def __init__(self, shape: TileShape, dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        size = (const(shape.rows * shape.lanes),)
        self.sums = [
            [tirx.decl_buffer(size, dtype, f"sum_{chain}_{vector}") for vector in range(shape.vectors)]
            for chain in range(shape.chains)
        ]

    def cells(self, body: Callable[[Expr, int], tirx.Stmt]) -> tirx.Stmt:
        """``body(row, vector)`` for the whole tile."""
        of_row = lambda row: sequence(*(body(row, vector) for vector in range(self.shape.vectors)))
        return loop("row", self.shape.rows, of_row, kind="unrolled")

    def elements(self, body: Callable[[Expr, int, Expr], tirx.Stmt]) -> tirx.Stmt:
        """``body(row, vector, lane)`` for the whole tile, vectors being loops over lanes."""
        return self.cells(lambda row, v: lanes_loop(self.shape.lanes, lambda lane: body(row, v, lane)))

    def at(self, chain: int, row: Expr, vector: int, lane: Expr) -> Expr:
        return tirx.BufferLoad(self.sums[chain][vector], [row * self.shape.lanes + lane])

    def put(self, chain: int, row: Expr, vector: int, lane: Expr, value: Expr) -> tirx.Stmt:
        return tirx.BufferStore(self.sums[chain][vector], value, [row * self.shape.lanes + lane])

    def clear(self, chain: int) -> tirx.Stmt:
        zero = tirx.const(0, self.dtype)
        return self.elements(lambda row, vector, lane: self.put(chain, row, vector, lane, zero))

    def total(self, row: Expr, vector: int, lane: Expr) -> Expr:
        """A sum over all chains."""
        value = self.at(0, row, vector, lane)
        for chain in range(1, self.shape.chains):
            value = value + self.at(chain, row, vector, lane)
        return value

    def emit(
        self,
        reduce: SizeLike,
        start: Callable[[int], tirx.Stmt],
        add: Callable[[int, Expr], tirx.Stmt],
        finish: Callable[[Expr, Expr, Expr], tirx.Stmt],
        requests: Requests,
    ) -> tirx.Stmt:
        """``start(chain)``, then ``add(chain, k)`` for all ``k < reduce``, then ``finish(row, column, total)``."""
        lanes = self.shape.lanes
        return sequence(
            requests.bound,
            *(tirx.AllocBuffer(buffer) for chain in self.sums for buffer in chain),
            *(start(chain) for chain in range(self.shape.chains)),
            *self._iterations(reduce, add, requests),
            self.elements(lambda row, v, lane: finish(row, lane + v * lanes, self.total(row, v, lane))),
        )

    def _iterations(
        self, reduce: SizeLike, add: Callable[[int, Expr], tirx.Stmt], requests: Requests
    ) -> list[tirx.Stmt]:
        """The reduction in iterations of ``step`` steps, and what is left of it."""
        step = self.shape.step
        size = static(reduce)

        def steps(k: Expr, count: int) -> list[tirx.Stmt | None]:
            if self.shape.chains == 1:
                one = lambda i: sequence(requests.of_step(k + i), add(0, k + i))
                return [loop("k", count, one, kind="unrolled")]
            return [s for i in range(count) for s in (requests.of_step(k + i), add(i % self.shape.chains, k + i))]

        def iteration(k: Expr) -> tirx.Stmt:
            return sequence(requests.of_turn(k), *steps(k * step, step))

        if size is None:
            main = as_size(reduce) // step
            rest = as_size(reduce) - main * step
            single = lambda k: sequence(*steps(main * step + k, 1))
            return [loop("reduce_k", main, iteration), loop("reduce_rest", rest, single)]
        iterations, left = divmod(size, step)
        loops = [loop("reduce_k", iterations, iteration)] if iterations else []
        return [*loops, sequence(*steps(const(iterations * step), left))] if left else loops


def emit_tile(
    shape: TileShape,
    reduce: SizeLike,
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
    tile = RegisterTile(shape, dtype)

    def add(chain: int, k: Expr) -> tirx.Stmt:
        def element(row: Expr, vector: int, lane: Expr) -> tirx.Stmt:
            product = lhs(row, k) * rhs(k, lane + vector * shape.lanes)
            return tile.put(chain, row, vector, lane, tile.at(chain, row, vector, lane) + product)

        return tile.elements(element)

    return tile.emit(reduce, tile.clear, add, finish, _requests(shape, static(reduce), rhs, dtype, share))


def _requests(
    shape: TileShape, size: int | None, rhs: Callable[[Expr, Expr], Expr], dtype: str, share: Share | None
) -> Requests:
    """The tile's part of what the tiles in a row ask for, and what ``shape.prefetch`` asks for at each step."""
    of_step = (lambda k: _ahead(shape, k, rhs, dtype)) if shape.prefetch else _nothing
    iterations = size // shape.step if size is not None else 0
    if share is None or size is None or not iterations:
        return Requests(of_step=of_step)
    found = loads(rhs(const(size), const(0)))
    if len(found) != 1:
        return Requests(of_step=of_step)
    source, first = found[0].source, found[0].indices
    amount = size * shape.columns
    bound, part_of = emit.prefetch_parts(source, first, amount, share.tiles * iterations, 2 * iterations)
    return Requests(bound, lambda iteration: part_of(share.tile * iterations + iteration), of_step)


def _ahead(shape: TileShape, k: Expr, rhs: Callable[[Expr, Expr], Expr], dtype: str) -> tirx.Stmt | None:
    """Ask for the right operand of a later step (past its end, the processor ignores the request)."""
    lines = range(0, shape.columns, shape.lanes * emit.vectors_in_line(shape.lanes, dtype))
    found = [loads(rhs(k + shape.prefetch, const(start))) for start in lines]
    if not all(len(of_vector) == 1 for of_vector in found):
        return None
    return sequence(*(PREFETCH(load, 3) for (load,) in found))
