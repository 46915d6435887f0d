"""The loop nest of fused attention; :mod:`torch_tvm.schedules.cpu.attention.rule` says what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.attention_spec import AttentionSpec
from torch_tvm.schedules.cpu.math import exponentials
from torch_tvm.schedules.cpu.math.let_builder import LetBuilder
from torch_tvm.schedules.cpu.matmul.register_tile import TileShape, emit_tile
from torch_tvm.schedules.cpu.register_transpose import transpose_registers
from torch_tvm.tir import (
    as_size,
    ceil_div,
    const,
    exact,
    lanes_loop,
    loads,
    loop,
    round_up,
    sequence,
    static,
    variables,
    when,
)


@dataclass(frozen=True)
class AttentionTiling:
    """``score`` and ``sum`` are the register tiles of Q K^T and S V; blocks are in rows and keys.

    With ``one_block`` all keys are one block; the last tile of a row block may then overlap the one before. ``tail`` is
    the tile of the last panel where fewer vectors hold its keys: of one block, if all rows see all of it.
    """

    score: TileShape
    tail: TileShape | None
    sum: TileShape
    row_block: int
    key_block: int
    row_chunks: int
    one_block: bool
    parallel: bool


@dataclass(frozen=True)
class RowBlock:
    """The rows of one head from ``row0`` on that are computed together, under ``tiling``."""

    tiling: AttentionTiling
    b: Expr
    h: Expr
    row0: tirx.Var

    def first_row(self, tile: Expr) -> Expr:
        """The first row of a tile within the block; the last tile moves back until it fits."""
        rows = self.tiling.score.rows
        last = self.tiling.row_block - rows
        return tile * rows if self.tiling.row_block % rows == 0 else tirx.min(tile * rows, const(last))


class AttentionEmitter:
    """Writes the kernel of one attention: the first of ``tilings`` with enough rows is used at run time.

    They differ in their rows alone, the largest comes first.
    """

    def __init__(self, spec: AttentionSpec, tilings: Sequence[AttentionTiling]) -> None:
        self.spec, self.tilings = spec, tilings
        tiling = tilings[0]
        self.lanes = tiling.score.lanes
        self.in_panel, self.width = tiling.score.vectors, tiling.score.columns
        self.value_width = round_up(spec.value_depth, self.lanes)
        self.panels = ceil_div(spec.keys, self.width)
        self.one_block = tiling.one_block
        rows = static(spec.rows)
        few = rows is not None and rows <= 2 * tiling.sum.rows
        self.copies_values = not few or spec.value_depth % self.lanes != 0
        buffer = lambda shape, name: tirx.decl_buffer([as_size(s) for s in shape], "float32", name)
        padded_keys = self.panels * self.width
        self.packed_keys = buffer((self.panels, spec.depth, self.width), "packed_keys")
        self.packed_values = buffer((padded_keys, self.value_width), "packed_values")
        self.score = buffer((tiling.row_block, tiling.key_block + self.lanes), "score")
        self.total = buffer((tiling.row_block, self.value_width), "total")
        self.maximum = buffer((tiling.row_block,), "maximum")
        self.low = buffer((tiling.row_block,), "low")
        self.sum = buffer((tiling.row_block,), "sum")
        self.factor = buffer((tiling.row_block,), "factor")

    def emit(self) -> tirx.Stmt:
        spec, chunks = self.spec, self.tilings[0].row_chunks
        tasks = spec.batch * spec.heads * chunks

        def task(which: Expr) -> tirx.Stmt:
            b, h = tirx.Var("b", "int64"), tirx.Var("h", "int64")
            outer = which // chunks if chunks > 1 else which
            chunk = which % chunks if chunks > 1 else const(0)
            buffers = [self.packed_keys, self.score, self.low, self.sum, self.factor]
            buffers += [self.packed_values] if self.copies_values else []
            buffers += [] if self.one_block else [self.maximum, self.total]
            return sequence(
                tirx.Bind(b, outer // spec.heads),
                tirx.Bind(h, outer % spec.heads),
                *(tirx.AllocBuffer(buffer) for buffer in buffers),
                self.pack(b, h),
                self.row_blocks(b, h, chunk, chunks),
            )

        return loop("task", tasks, task, kind="parallel" if self.tilings[0].parallel else "serial")

    def row_blocks(self, b: Expr, h: Expr, chunk: Expr, chunks: int) -> tirx.Stmt:
        """All row blocks of a chunk, under the tiling that fits the number of rows."""
        result: tirx.Stmt | None = None
        for tiling in reversed(self.tilings):
            blocks = ceil_div(self.spec.rows, tiling.row_block)
            per_chunk = ceil_div(blocks, chunks)
            first = chunk * per_chunk if chunks > 1 else const(0)
            here = tirx.min(per_chunk, blocks - first) if chunks > 1 else blocks
            one = lambda block, tiling=tiling, first=first: self.row_block(tiling, b, h, first + block)
            body = loop("row_block", here, one)
            fits = self.spec.rows >= const(tiling.row_block)
            result = body if result is None else when(fits, body, result)
        assert result is not None
        return result

    # --- what is packed ------------------------------------------------------------------------------

    def pack(self, b: Expr, h: Expr) -> tirx.Stmt:
        """Copy K^T into panels and V into rows of whole vectors.

        Lanes without a key hold the last key or zeros, and nobody reads their scores; V ends in zeros.
        """
        # Only with a tail no tile goes over more vectors than there are keys for.
        whole = self.tilings[0].tail is None
        vectors = self.panels * self.in_panel if whole else ceil_div(self.spec.keys, self.lanes)
        return sequence(
            loop("vector", vectors, lambda vector: self.pack_keys(b, h, vector)),
            loop("key", self.spec.keys, lambda j: self.pack_value(b, h, j)) if self.copies_values else None,
        )

    def pack_keys(self, b: Expr, h: Expr, vector: Expr) -> tirx.Stmt:
        """A vector of keys: squares of them are transposed in registers where depth is contiguous."""
        spec, lanes, first = self.spec, self.lanes, vector * self.lanes
        squares = spec.depth // lanes if self.is_contiguous_key() else 0
        rest = spec.depth - squares * lanes
        of_squares = lambda is_guarded: loop("square", squares, lambda s: self.pack_square(b, h, vector, s, is_guarded))
        column = lambda d: lanes_loop(lanes, lambda lane: self.pack_key(b, h, vector, squares * lanes + d, lane, False))
        whole = sequence(of_squares(False) if squares else None, loop("d", rest, column) if rest else None)
        keys = static(spec.keys)
        if keys is not None and keys % lanes == 0:
            return whole
        guarded = lambda d: loop("lane", lanes, lambda lane: self.pack_key(b, h, vector, d, lane, True))
        part = of_squares(True) if squares and not rest else loop("d", spec.depth, guarded)
        return when(first + lanes <= spec.keys, whole, part)

    def pack_key(self, b: Expr, h: Expr, vector: Expr, d: Expr, lane: Expr, is_guarded: bool) -> tirx.Stmt:
        """One element; 0 where it ``is_guarded`` and there is no key."""
        key = vector * self.lanes + lane
        value = self.spec.key(b, h, key, d)
        if is_guarded:
            value = tirx.if_then_else(key < self.spec.keys, value, tirx.const(0.0, "float32"))
        return tirx.BufferStore(self.packed_keys, value, self.place_of_key(vector, d, lane))

    def pack_square(self, b: Expr, h: Expr, vector: Expr, square: Expr, is_guarded: bool) -> tirx.Stmt:
        """``lanes`` keys by ``lanes`` elements of their depth; the last key again where there is none."""
        spec, lanes, first = self.spec, self.lanes, vector * self.lanes
        key_at = lambda key: tirx.min(first + key, spec.keys - 1) if is_guarded else first + key
        return transpose_registers(
            lanes,
            "float32",
            lambda key, lane: spec.key(b, h, key_at(key), square * lanes + lane),
            lambda d, lane, value: tirx.BufferStore(
                self.packed_keys, value, self.place_of_key(vector, square * lanes + d, lane)
            ),
        )

    def place_of_key(self, vector: Expr, d: Expr, lane: Expr) -> list[Expr]:
        return [vector // self.in_panel, d, vector % self.in_panel * self.lanes + lane]

    def pack_value(self, b: Expr, h: Expr, j: Expr) -> tirx.Stmt:
        """The value of one key, with zeros up to a whole vector."""
        spec, lanes = self.spec, self.lanes
        copy = lambda d: tirx.BufferStore(self.packed_values, spec.value(b, h, j, d), [j, d])
        clear = lambda d: tirx.BufferStore(self.packed_values, tirx.const(0.0, "float32"), [j, d])
        return sequence(
            self.each_of_depth(copy),
            loop("d", self.value_width - spec.value_depth, lambda d: clear(spec.value_depth + d))
            if spec.value_depth % lanes
            else None,
        )

    def each_of_depth(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        """``body`` for all elements of a value: vectors, and what does not fill one."""
        full, rest = divmod(self.spec.value_depth, self.lanes)
        of_vector = lambda v: lanes_loop(self.lanes, lambda lane: body(v * self.lanes + lane))
        return sequence(
            loop("vector", full, of_vector) if full else None,
            loop("d", rest, lambda d: body(full * self.lanes + d)) if rest else None,
        )

    def value(self, b: Expr, h: Expr, key: Expr, column: Expr) -> Expr:
        if self.copies_values:
            return tirx.BufferLoad(self.packed_values, [key, column])
        return self.spec.value(b, h, key, column)

    def is_contiguous_key(self) -> bool:
        """Whether the depth of one key lies side by side in memory."""
        zero, d = const(0), tirx.Var("d", "int64")
        load = self.spec.key(zero, zero, zero, d)
        while isinstance(load, tirx.Cast):
            load = load.value
        if not isinstance(load, TensorLoad):
            return False
        last = tvm.sym.Analyzer().simplify(load.indices[-1] - d)
        return d not in variables(last) and not any(d in variables(i) for i in load.indices[:-1])

    # --- a block of rows -----------------------------------------------------------------------------

    def row_block(self, tiling: AttentionTiling, b: Expr, h: Expr, block: Expr) -> tirx.Stmt:
        spec, size = self.spec, tiling.row_block
        rows = RowBlock(tiling, b, h, tirx.Var("row0", "int64"))
        total = static(spec.rows)
        is_whole = total is not None and total % size == 0
        start = block * size if is_whole else tirx.min(block * size, spec.rows - size)
        visible: Expr = as_size(spec.keys)
        if spec.causal is not None:
            visible = tirx.max(const(0), tirx.min(spec.keys, rows.row0 + spec.causal + size))
        body = self.key_block(rows, const(0), visible) if self.one_block else self.key_blocks(rows, visible)
        return sequence(tirx.Bind(rows.row0, start), body)

    def key_blocks(self, rows: RowBlock, visible: Expr) -> tirx.Stmt:
        """The blocks of ``visible`` keys in turn, with running maxima and sums."""
        size, keys = rows.tiling.row_block, rows.tiling.key_block
        iteration = lambda k: self.key_block(rows, k * keys, tirx.min(const(keys), visible - k * keys))
        return sequence(
            loop("r", size, self.clear_row),
            loop("key_block", ceil_div(visible, keys), iteration),
            loop("r", size, lambda r: tirx.BufferStore(self.factor, self.inverse(r), [r])),
            loop("r", size, lambda r: self.finish_row(rows, r)),
        )

    def clear_row(self, r: Expr) -> tirx.Stmt:
        zero, lanes = tirx.const(0.0, "float32"), self.lanes
        clear = lambda d: tirx.BufferStore(self.total, zero, [r, d])
        of_vector = lambda v: lanes_loop(lanes, lambda lane: clear(v * lanes + lane))
        return sequence(
            tirx.BufferStore(self.maximum, tirx.const(float("-inf"), "float32"), [r]),
            tirx.BufferStore(self.sum, zero, [r]),
            loop("vector", self.value_width // lanes, of_vector),
        )

    def key_block(self, rows: RowBlock, key0: Expr, keys: Expr) -> tirx.Stmt:
        """Scores, softmax and weighted sum of one row block with ``keys`` keys from ``key0`` on."""
        tiling, tail = rows.tiling, rows.tiling.tail
        here = tirx.Var("keys_here", "int64")
        size = static(keys)
        extent = const(size) if size is not None else here
        panels = const(exact(size) // self.width) if tail is not None else ceil_div(extent, self.width)
        tiles = ceil_div(tiling.row_block, tiling.score.rows)
        parts = self.value_width // tiling.sum.columns
        score = lambda shape, panel, tile: self.score_tile(rows, shape, key0, panel, tile)
        each = lambda body: loop("r", tiling.row_block, body)
        return sequence(
            None if size is not None else tirx.Bind(here, keys),
            loop("panel", panels, lambda p: loop("tile", tiles, lambda t: score(tiling.score, p, t))),
            loop("tile", tiles, lambda t: score(tail, panels, t)) if tail is not None else None,
            each(lambda r: self.mask_row(rows, r, key0, extent)),
            each(lambda r: self.softmax_row(r, extent)),
            loop(
                "tile",
                tiles,
                lambda t: loop("part", parts, lambda p: self.sum_tile(rows, key0, extent, p, t)),
            ),
        )

    def score_tile(self, rows: RowBlock, shape: TileShape, key0: Expr, panel: Expr, tile: Expr) -> tirx.Stmt:
        """A tile of the scores of one panel of keys."""
        base = rows.first_row(tile)
        first_panel = key0 // self.width if static(key0) != 0 else const(0)
        return emit_tile(
            shape,
            self.spec.depth,
            lambda r, d: self.spec.query(rows.b, rows.h, rows.row0 + base + r, d),
            lambda d, column: tirx.BufferLoad(self.packed_keys, [first_panel + panel, d, column]),
            lambda r, column, total: tirx.BufferStore(self.score, total, [base + r, panel * self.width + column]),
            "float32",
        )

    def sum_tile(self, rows: RowBlock, key0: Expr, keys: Expr, part: Expr, tile: Expr) -> tirx.Stmt:
        """A tile of the weighted sums of the values."""
        base, origin = rows.first_row(tile), part * rows.tiling.sum.columns

        def finish(r: Expr, column: Expr, total: Expr) -> tirx.Stmt:
            place, factor = [base + r, origin + column], tirx.BufferLoad(self.factor, [base + r])
            if not self.one_block:
                before = tirx.BufferLoad(self.total, place) * factor
                return tirx.BufferStore(self.total, before + total, place)
            return self.spec.store(rows.b, rows.h, rows.row0 + base + r, origin + column, total * factor)

        return emit_tile(
            rows.tiling.sum,
            keys,
            lambda r, j: tirx.BufferLoad(self.score, [base + r, j]),
            lambda j, column: self.value(rows.b, rows.h, key0 + j, origin + column),
            finish,
            "float32",
        )

    def mask_row(self, rows: RowBlock, r: Expr, key0: Expr, keys: Expr) -> tirx.Stmt:
        """Scale and mask one row of scores, and set what its exponentials start from.

        A loop of its own: the rows' chains of maxima, one after the other, would wait for their exponentials.
        """
        lanes, float32 = self.lanes, "float32"
        most = tirx.decl_buffer((const(lanes),), float32, "most")
        minus_infinity, zero = tirx.const(float("-inf"), float32), tirx.const(0.0, float32)
        full, rest = keys // lanes, keys % lanes
        new = tirx.Var("new_maximum", float32)
        score_at = lambda column: tirx.BufferLoad(self.score, [r, column])
        place = lambda column: (rows.b, rows.h, rows.row0 + r, key0 + column)
        masked = lambda column: self.spec.masked(*place(column), score_at(column)).astype(float32)
        top = lambda lane, value: tirx.BufferStore(most, larger(value, tirx.BufferLoad(most, [lane])), [lane])

        def mask(column: Expr, lane: Expr) -> tirx.Stmt:
            return sequence(
                tirx.BufferStore(self.score, masked(column + lane), [r, column + lane]),
                top(lane, score_at(column + lane)),
            )

        before = minus_infinity if self.one_block else tirx.BufferLoad(self.maximum, [r])
        return sequence(
            tirx.AllocBuffer(most),
            lanes_loop(lanes, lambda lane: tirx.BufferStore(most, minus_infinity, [lane])),
            loop("vector", full, lambda v: lanes_loop(lanes, lambda lane: mask(v * lanes, lane))),
            self.mask_rest(r, full * lanes, rest, masked, mask, top) if static(rest) != 0 else None,
            self.fold_lanes(most, larger),
            tirx.Bind(new, larger(before, tirx.BufferLoad(most, [const(0)]))),
            tirx.BufferStore(self.low, tirx.Select(new == minus_infinity, zero, new), [r]),
            None
            if self.one_block
            else sequence(
                tirx.BufferStore(self.factor, exp_of_nonpositive(before - tirx.BufferLoad(self.low, [r])), [r]),
                tirx.BufferStore(self.maximum, new, [r]),
            ),
        )

    def mask_rest(
        self,
        r: Expr,
        column: Expr,
        rest: Expr,
        masked: Callable[[Expr], Expr],
        mask: Callable[[Expr, Expr], tirx.Stmt],
        top: Callable[[Expr, Expr], tirx.Stmt],
    ) -> tirx.Stmt:
        """:meth:`mask_row` for the columns that do not fill a vector; the others of the vector are -inf."""
        lanes, minus_infinity = self.lanes, tirx.const(float("-inf"), "float32")
        count = static(rest)
        if count is None:
            put = lambda lane: tirx.BufferStore(self.score, minus_infinity, [r, column + lane])
            pad = loop("lane", lanes, lambda lane: when(lane >= rest, put(lane)))
            return sequence(loop("rest", rest, lambda c: mask(column, c)), pad)
        last = tirx.decl_buffer((const(lanes),), "float32", "last")
        at = lambda lane: tirx.BufferLoad(last, [lane])
        store = lambda lane: sequence(tirx.BufferStore(self.score, at(lane), [r, column + lane]), top(lane, at(lane)))
        if all(load.source.same_as(self.score) for load in loads(masked(column))):
            value = lambda lane: tirx.Select(lane < rest, masked(column + lane), minus_infinity)
            fill = lanes_loop(lanes, lambda lane: tirx.BufferStore(last, value(lane), [lane]))
        else:
            # A mask ends with the last column. Element by element the vector is made in a register.
            fill = sequence(
                *(
                    tirx.BufferStore(last, masked(column + i) if i < count else minus_infinity, [const(i)])
                    for i in range(lanes)
                )
            )
        return sequence(tirx.AllocBuffer(last), fill, lanes_loop(lanes, store))

    def softmax_row(self, r: Expr, keys: Expr) -> tirx.Stmt:
        """Turn one row of scores into exponentials; update its sum, and set its factor."""
        lanes, float32 = self.lanes, "float32"
        part = tirx.decl_buffer((const(lanes),), float32, "part")
        low = tirx.Var("low", float32)
        total: Expr = tirx.BufferLoad(part, [const(0)])

        def exponent(column: Expr, lane: Expr) -> tirx.Stmt:
            place = [r, column + lane]
            value = exp_of_nonpositive(tirx.BufferLoad(self.score, place) - low)
            return sequence(
                tirx.BufferStore(self.score, value, place),
                tirx.BufferStore(part, tirx.BufferLoad(part, [lane]) + tirx.BufferLoad(self.score, place), [lane]),
            )

        if not self.one_block:
            total = tirx.BufferLoad(self.sum, [r]) * tirx.BufferLoad(self.factor, [r]) + total
        zero = tirx.const(0.0, float32)
        return sequence(
            tirx.AllocBuffer(part),
            lanes_loop(lanes, lambda lane: tirx.BufferStore(part, zero, [lane])),
            tirx.Bind(low, tirx.BufferLoad(self.low, [r])),
            loop(
                "vector",
                ceil_div(keys, lanes),
                lambda v: lanes_loop(lanes, lambda lane: exponent(v * lanes, lane)),
            ),
            self.fold_lanes(part, lambda x, y: x + y),
            tirx.BufferStore(self.sum, total, [r]),
            tirx.BufferStore(self.factor, self.inverse(r), [r]) if self.one_block else None,
        )

    def fold_lanes(self, buffer: tirx.Var, combine: Callable[[Expr, Expr], Expr]) -> tirx.Stmt:
        """Combine all lanes of a vector in memory into its first element, by halves."""
        steps_, half = [], self.lanes // 2
        while half:
            value = lambda lane, half=half: combine(
                tirx.BufferLoad(buffer, [lane]), tirx.BufferLoad(buffer, [lane + half])
            )
            steps_.append(lanes_loop(half, lambda lane, value=value: tirx.BufferStore(buffer, value(lane), [lane])))
            half //= 2
        return sequence(*steps_)

    def inverse(self, r: Expr) -> Expr:
        """What the weighted sum of row ``r`` is multiplied by in the end."""
        total = tirx.BufferLoad(self.sum, [r])
        zero, nan = tirx.const(0.0, "float32"), tirx.const(float("nan"), "float32")
        empty = zero if self.spec.is_safe else tirx.Select(self.spec.keys == const(0), zero, nan)
        return tirx.Select(total == tirx.const(0.0, "float32"), empty, tirx.const(1.0, "float32") / total)

    def finish_row(self, rows: RowBlock, r: Expr) -> tirx.Stmt:
        def element(d: Expr) -> tirx.Stmt:
            value = tirx.BufferLoad(self.total, [r, d]) * tirx.BufferLoad(self.factor, [r])
            return self.spec.store(rows.b, rows.h, rows.row0 + r, d, value)

        return self.each_of_depth(element)


def exp_of_nonpositive(x: Expr) -> Expr:
    """exp(x) in float32 for x <= 0."""
    m = LetBuilder(1)
    return m.close(exponentials.exp_of_nonpositive(m, m(x)))


def larger(x: Expr, y: Expr) -> Expr:
    """The maximum; ``y`` where either is NaN (the exponential of a NaN makes its row NaN, whatever the maximum)."""
    return tirx.Select(x > y, x, y)
