"""The loop nest of fused attention; :mod:`torch_tvm.schedules.cpu.attention.rule` says what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.math import exponentials
from torch_tvm.schedules.cpu.math.let_builder import Lets
from torch_tvm.schedules.cpu.matmul.register_tile import TileShape, emit_tile
from torch_tvm.schedules.cpu.register_transpose import transpose_square
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
class AttentionSpec:
    """Sizes, and the elements of the operands as functions of batch, head, row (query), key and depth.

    ``masked(b, h, i, j, score)`` is the scaled and masked score, ``store(b, h, i, d, value)`` writes the
    result. ``causal`` is the key offset of the diagonal (key ``j`` is visible to row ``i`` if
    ``j <= i + causal``) or None; a row without any visible key is 0 if ``is_safe`` or if there are none, otherwise NaN.
    """

    batch: Expr
    heads: Expr
    rows: Expr
    keys: Expr
    depth: int
    value_depth: int
    query: Callable[[Expr, Expr, Expr, Expr], Expr]
    key: Callable[[Expr, Expr, Expr, Expr], Expr]
    value: Callable[[Expr, Expr, Expr, Expr], Expr]
    masked: Callable[[Expr, Expr, Expr, Expr, Expr], Expr]
    store: Callable[[Expr, Expr, Expr, Expr, Expr], tirx.Stmt]
    causal: Expr | None
    is_safe: bool


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


class AttentionEmitter:
    """Writes the kernel of one attention: the first of ``tilings`` with enough rows is used at run time.

    They differ in their rows alone, the largest comes first. ``tiling`` is the one being written.
    """

    def __init__(self, spec: AttentionSpec, tilings: Sequence[AttentionTiling]) -> None:
        self.spec, self.tilings = spec, tilings
        self.tiling = tiling = tilings[0]
        self.lanes = tiling.score.lanes
        self.width = tiling.score.columns
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
            self.tiling = tiling
            blocks = ceil_div(self.spec.rows, tiling.row_block)
            per_chunk = ceil_div(blocks, chunks)
            first = chunk * per_chunk if chunks > 1 else const(0)
            here = tirx.min(per_chunk, blocks - first) if chunks > 1 else blocks
            body = loop("row_block", here, lambda block, first=first: self.row_block(b, h, first + block))
            fits = self.spec.rows >= const(tiling.row_block)
            result = body if result is None else when(fits, body, result)
        return result

    def pack(self, b: Expr, h: Expr) -> tirx.Stmt:
        """Copy K^T into panels and V into rows of whole vectors.

        Lanes without a key hold the last key or zeros, and nobody reads their scores; V ends in zeros.
        """
        spec, lanes = self.spec, self.lanes
        zero = tirx.const(0.0, "float32")
        in_panel, keys = self.tiling.score.vectors, static(spec.keys)
        squares = spec.depth // lanes if self.is_contiguous_key() else 0
        is_square = squares * lanes == spec.depth

        def keys_of_vector(vector: Expr) -> tirx.Stmt:
            """``lanes`` keys: squares of them are transposed in registers where depth is contiguous."""
            p, v, first = vector // in_panel, vector % in_panel, vector * lanes

            def element(d: Expr, lane: Expr, guarded: bool) -> tirx.Stmt:
                value = spec.key(b, h, first + lane, d)
                if guarded:
                    value = tirx.if_then_else(first + lane < spec.keys, value, zero)
                return tirx.BufferStore(self.packed_keys, value, [p, d, v * lanes + lane])

            def square(s: Expr, guarded: bool) -> tirx.Stmt:
                key_at = lambda key: tirx.min(first + key, spec.keys - 1) if guarded else first + key
                return transpose_square(
                    lanes,
                    "float32",
                    lambda key, lane: spec.key(b, h, key_at(key), s * lanes + lane),
                    lambda d, lane, value: tirx.BufferStore(
                        self.packed_keys, value, [p, s * lanes + d, v * lanes + lane]
                    ),
                )

            rest = spec.depth - squares * lanes
            row = lambda d: lanes_loop(lanes, lambda lane: element(squares * lanes + d, lane, False))
            whole = sequence(
                loop("square", squares, lambda s: square(s, False)) if squares else None,
                loop("d", rest, row) if rest else None,
            )
            part = (
                loop("square", squares, lambda s: square(s, True))
                if is_square
                else loop("d", spec.depth, lambda d: loop("lane", lanes, lambda lane: element(d, lane, True)))
            )
            return (
                whole
                if keys is not None and keys % lanes == 0
                else when(first + lanes <= spec.keys, whole, part)
            )

        # Only with a tail no tile goes over more vectors than there are keys for.
        vectors = self.panels * in_panel if self.tiling.tail is None else ceil_div(spec.keys, lanes)

        def value_row(j: Expr) -> tirx.Stmt:
            full = spec.value_depth // self.lanes
            copy = lambda d: tirx.BufferStore(self.packed_values, spec.value(b, h, j, d), [j, d])
            clear = lambda d: tirx.BufferStore(self.packed_values, zero, [j, d])
            whole = loop(
                "vector", full, lambda v: lanes_loop(self.lanes, lambda lane: copy(v * self.lanes + lane))
            )
            rest = spec.value_depth - full * self.lanes
            return sequence(
                whole if full else None,
                loop("d", rest, lambda d: copy(full * self.lanes + d)) if rest else None,
                loop("d", self.value_width - spec.value_depth, lambda d: clear(spec.value_depth + d))
                if rest
                else None,
            )

        return sequence(
            loop("vector", vectors, keys_of_vector),
            loop("key", spec.keys, value_row) if self.copies_values else None,
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

    def row_block(self, b: Expr, h: Expr, block: Expr) -> tirx.Stmt:
        spec, tiling = self.spec, self.tiling
        size = tiling.row_block
        row0 = tirx.Var("row0", "int64")
        rows = static(spec.rows)
        start = (
            block * size
            if rows is not None and rows % size == 0
            else tirx.min(block * size, spec.rows - size)
        )
        visible: Expr = as_size(spec.keys)
        if spec.causal is not None:
            visible = tirx.max(const(0), tirx.min(spec.keys, row0 + spec.causal + size))
        minus_infinity = tirx.const(float("-inf"), "float32")
        if self.one_block:
            body = self.key_block(b, h, row0, const(0), visible)
        else:
            count = ceil_div(visible, tiling.key_block)
            clear = lambda r: sequence(
                tirx.BufferStore(self.maximum, minus_infinity, [r]),
                tirx.BufferStore(self.sum, tirx.const(0.0, "float32"), [r]),
                loop(
                    "vector",
                    self.value_width // self.lanes,
                    lambda v: lanes_loop(
                        self.lanes,
                        lambda lane: tirx.BufferStore(
                            self.total, tirx.const(0.0, "float32"), [r, v * self.lanes + lane]
                        ),
                    ),
                ),
            )
            turn = lambda k: self.key_block(
                b,
                h,
                row0,
                k * tiling.key_block,
                tirx.min(const(tiling.key_block), visible - k * tiling.key_block),
            )
            body = sequence(
                loop("r", size, clear),
                loop("key_block", count, turn),
                loop("r", size, lambda r: tirx.BufferStore(self.factor, self.inverse(r), [r])),
                loop("r", size, lambda r: self.finish_row(b, h, row0, r)),
            )
        return sequence(tirx.Bind(row0, start), body)

    def key_block(self, b: Expr, h: Expr, row0: Expr, key0: Expr, keys: Expr) -> tirx.Stmt:
        """Scores, softmax and weighted sum of one row block with ``keys`` keys from ``key0`` on."""
        spec, tiling = self.spec, self.tiling
        here = tirx.Var("keys_here", "int64")
        size = static(keys)
        extent = const(size) if size is not None else here
        tail = tiling.tail
        panels = const(exact(size) // self.width) if tail is not None else ceil_div(extent, self.width)
        first_panel = key0 // self.width if static(key0) != 0 else const(0)
        tiles = ceil_div(tiling.row_block, tiling.score.rows)

        def tile_row(tile: Expr) -> Expr:
            start = tile * tiling.score.rows
            last = tiling.row_block - tiling.score.rows
            return start if tiling.row_block % tiling.score.rows == 0 else tirx.min(start, const(last))

        def score_tile(shape: TileShape, panel: Expr, tile: Expr) -> tirx.Stmt:
            base = tile_row(tile)
            return emit_tile(
                shape,
                spec.depth,
                lambda r, d: spec.query(b, h, row0 + base + r, d),
                lambda d, column: tirx.BufferLoad(self.packed_keys, [first_panel + panel, d, column]),
                lambda r, column, total: tirx.BufferStore(
                    self.score, total, [base + r, panel * self.width + column]
                ),
                "float32",
            )

        def sum_tile(part: Expr, tile: Expr) -> tirx.Stmt:
            base = tile_row(tile)
            origin = part * tiling.sum.columns

            def finish(r: int, column: Expr, total: Expr) -> tirx.Stmt:
                place = [base + r, origin + column]
                if not self.one_block:
                    before = tirx.BufferLoad(self.total, place) * tirx.BufferLoad(self.factor, [base + r])
                    return tirx.BufferStore(self.total, before + total, place)
                value = total * tirx.BufferLoad(self.factor, [base + r])
                return spec.store(b, h, row0 + base + r, origin + column, value)

            return emit_tile(
                tiling.sum,
                extent,
                lambda r, j: tirx.BufferLoad(self.score, [base + r, j]),
                lambda j, column: self.value(b, h, key0 + j, origin + column),
                finish,
                "float32",
            )

        parts = self.value_width // tiling.sum.columns
        return sequence(
            None if size is not None else tirx.Bind(here, keys),
            loop("panel", panels, lambda p: loop("tile", tiles, lambda t: score_tile(tiling.score, p, t))),
            loop("tile", tiles, lambda t: score_tile(tail, panels, t)) if tail is not None else None,
            loop("r", tiling.row_block, lambda r: self.mask_row(b, h, row0, r, key0, extent)),
            loop("r", tiling.row_block, lambda r: self.softmax_row(r, extent)),
            loop("tile", tiles, lambda t: loop("part", parts, lambda p: sum_tile(p, t))),
        )

    def mask_row(self, b: Expr, h: Expr, row0: Expr, r: Expr, key0: Expr, keys: Expr) -> tirx.Stmt:
        """Scale and mask one row of scores, and set what its exponentials start from.

        A loop of its own: the rows' chains of maxima, one after the other, would wait for their exponentials.
        """
        lanes, float32 = self.lanes, "float32"
        most = tirx.decl_buffer((const(lanes),), float32, "most")
        minus_infinity, zero = tirx.const(float("-inf"), float32), tirx.const(0.0, float32)
        full, rest = keys // lanes, keys % lanes
        new = tirx.Var("new_maximum", float32)
        score_at = lambda column: tirx.BufferLoad(self.score, [r, column])
        masked = lambda column: self.spec.masked(b, h, row0 + r, key0 + column, score_at(column)).astype(
            float32
        )
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
                tirx.BufferStore(
                    self.factor, exp_of_nonpositive(before - tirx.BufferLoad(self.low, [r])), [r]
                ),
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
        store = lambda lane: sequence(
            tirx.BufferStore(self.score, at(lane), [r, column + lane]), top(lane, at(lane))
        )
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
        total = tirx.BufferLoad(part, [const(0)])

        def exponent(column: Expr, lane: Expr) -> tirx.Stmt:
            place = [r, column + lane]
            value = exp_of_nonpositive(tirx.BufferLoad(self.score, place) - low)
            return sequence(
                tirx.BufferStore(self.score, value, place),
                tirx.BufferStore(
                    part, tirx.BufferLoad(part, [lane]) + tirx.BufferLoad(self.score, place), [lane]
                ),
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
            steps_.append(
                lanes_loop(half, lambda lane, value=value: tirx.BufferStore(buffer, value(lane), [lane]))
            )
            half //= 2
        return sequence(*steps_)

    def inverse(self, r: Expr) -> Expr:
        """What the weighted sum of row ``r`` is multiplied by in the end."""
        total = tirx.BufferLoad(self.sum, [r])
        zero, nan = tirx.const(0.0, "float32"), tirx.const(float("nan"), "float32")
        empty = zero if self.spec.is_safe else tirx.Select(self.spec.keys == const(0), zero, nan)
        return tirx.Select(total == tirx.const(0.0, "float32"), empty, tirx.const(1.0, "float32") / total)

    def finish_row(self, b: Expr, h: Expr, row0: Expr, r: Expr) -> tirx.Stmt:
        spec, lanes = self.spec, self.lanes

        def element(d: Expr) -> tirx.Stmt:
            value = tirx.BufferLoad(self.total, [r, d]) * tirx.BufferLoad(self.factor, [r])
            return spec.store(b, h, row0 + r, d, value)

        full = spec.value_depth // lanes
        rest = spec.value_depth % lanes
        return sequence(
            loop("vector", full, lambda v: lanes_loop(lanes, lambda lane: element(v * lanes + lane)))
            if full
            else None,
            loop("d", rest, lambda d: element(full * lanes + d)) if rest else None,
        )


def exp_of_nonpositive(x: Expr) -> Expr:
    """exp(x) in float32 for x <= 0."""
    m = Lets(1)
    return m.close(exponentials.exp_of_nonpositive(m, m(x)))


def larger(x: Expr, y: Expr) -> Expr:
    """The maximum; ``y`` where either is NaN (the exponential of a NaN makes its row NaN, whatever the maximum)."""
    return tirx.Select(x > y, x, y)
