"""The loop nest of fused attention; :mod:`torch_tvm.schedules.cpu.attention` says what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad

from torch_tvm.schedules.cpu.contraction import variables
from torch_tvm.schedules.cpu.emit import const, index, loop, sequence, static, when
from torch_tvm.schedules.cpu.register_tile import TileShape, emit_tile, lanes_loop
from torch_tvm.schedules.cpu.square import transpose_square


@dataclass(frozen=True)
class AttentionSpec:
    """Sizes, and the elements of the operands as functions of batch, head, row (query), key and depth.

    ``masked(b, h, i, j, score)`` is the scaled and masked score, ``store(b, h, i, d, value)`` writes the
    result. ``causal`` is the key offset of the diagonal (key ``j`` is visible to row ``i`` if
    ``j <= i + causal``) or None; a row without any visible key is 0 if ``is_safe``, otherwise NaN.
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
class Tiling:
    """``score`` and ``sum`` are the register tiles of Q K^T and S V; blocks are in rows and keys."""

    score: TileShape
    sum: TileShape
    row_block: int
    key_block: int
    row_chunks: int
    parallel: bool


class Emitter:
    """Writes the kernel of one attention: the first of ``tilings`` with enough rows is used at run time.

    They differ in their rows alone, the largest comes first. ``tiling`` is the one being written.
    """

    def __init__(self, spec: AttentionSpec, tilings: Sequence[Tiling]) -> None:
        self.spec, self.tilings = spec, tilings
        self.tiling = tiling = tilings[0]
        self.lanes = tiling.score.lanes
        self.width = tiling.score.columns
        self.value_width = -(-spec.value_depth // self.lanes) * self.lanes
        self.panels = _ceil_div(spec.keys, self.width)
        fits = static(spec.keys) is not None and static(self.panels) * self.width <= tiling.key_block
        self.one_block = fits and spec.value_depth % self.lanes == 0
        few = static(spec.rows) is not None and static(spec.rows) <= 2 * tiling.sum.rows
        self.copies_values = not few or spec.value_depth % self.lanes != 0
        buffer = lambda shape, name: tirx.decl_buffer([index(s) for s in shape], "float32", name)
        padded_keys = self.panels * self.width
        self.packed_keys = buffer((self.panels, spec.depth, self.width), "packed_keys")
        self.packed_values = buffer((padded_keys, self.value_width), "packed_values")
        self.score = buffer((tiling.row_block, tiling.key_block + self.lanes), "score")
        self.total = buffer((tiling.row_block, self.value_width), "total")
        self.maximum = buffer((tiling.row_block,), "maximum")
        self.sum = buffer((tiling.row_block,), "sum")
        self.factor = buffer((tiling.row_block,), "factor")

    def emit(self) -> tirx.Stmt:
        spec, chunks = self.spec, self.tilings[0].row_chunks
        tasks = spec.batch * spec.heads * chunks

        def task(which: Expr) -> tirx.Stmt:
            b, h = tirx.Var("b", "int64"), tirx.Var("h", "int64")
            outer = which // chunks if chunks > 1 else which
            chunk = which % chunks if chunks > 1 else const(0)
            buffers = [self.packed_keys, self.score, self.maximum, self.sum, self.factor]
            buffers += [self.packed_values] if self.copies_values else []
            return sequence(
                tirx.Bind(b, outer // spec.heads),
                tirx.Bind(h, outer % spec.heads),
                *(tirx.AllocBuffer(buffer) for buffer in buffers),
                None if self.one_block else tirx.AllocBuffer(self.total),
                self.pack(b, h),
                self.row_blocks(b, h, chunk, chunks),
            )

        return loop("task", tasks, task, kind="parallel" if self.tilings[0].parallel else "serial")

    def row_blocks(self, b: Expr, h: Expr, chunk: Expr, chunks: int) -> tirx.Stmt:
        """All row blocks of a chunk, under the tiling that fits the number of rows."""
        result: tirx.Stmt | None = None
        for tiling in reversed(self.tilings):
            self.tiling = tiling
            blocks = _ceil_div(self.spec.rows, tiling.row_block)
            per_chunk = _ceil_div(blocks, chunks)
            first = chunk * per_chunk if chunks > 1 else const(0)
            here = tirx.min(per_chunk, blocks - first) if chunks > 1 else blocks
            body = loop("row_block", here, lambda block, first=first: self.row_block(b, h, first + block))
            fits = self.spec.rows >= const(tiling.row_block)
            result = body if result is None else when(fits, body, result)
        return result

    def pack(self, b: Expr, h: Expr) -> tirx.Stmt:
        """Copy K^T into panels and V into rows of whole vectors, zeros where there is nothing."""
        spec, width, lanes = self.spec, self.width, self.lanes
        zero = tirx.const(0.0, "float32")
        even = static(spec.keys) is not None and static(spec.keys) % width == 0

        squares = spec.depth // lanes if self.is_contiguous_key() else 0

        def keys_of_vector(p: Expr, v: Expr) -> tirx.Stmt:
            """``lanes`` keys: squares of them are transposed in registers where depth is contiguous."""
            first = p * width + v * lanes

            def element(d: Expr, lane: Expr, guarded: bool) -> tirx.Stmt:
                value = spec.key(b, h, first + lane, d)
                if guarded:
                    value = tirx.if_then_else(first + lane < spec.keys, value, zero)
                return tirx.BufferStore(self.packed_keys, value, [p, d, v * lanes + lane])

            square = lambda s: transpose_square(
                lanes,
                "float32",
                lambda key, lane: spec.key(b, h, first + key, s * lanes + lane),
                lambda d, lane, value: tirx.BufferStore(
                    self.packed_keys, value, [p, s * lanes + d, v * lanes + lane]
                ),
            )
            rest = spec.depth - squares * lanes
            row = lambda d: lanes_loop(lanes, lambda lane: element(squares * lanes + d, lane, False))
            whole = sequence(
                loop("square", squares, square) if squares else None, loop("d", rest, row) if rest else None
            )
            part = loop("d", spec.depth, lambda d: loop("lane", lanes, lambda lane: element(d, lane, True)))
            return whole if even else when(first + lanes <= spec.keys, whole, part)

        panel = lambda p: loop("vector", self.tiling.score.vectors, lambda v: keys_of_vector(p, v))

        def value_row(j: Expr) -> tirx.Stmt:
            full = spec.value_depth // self.lanes
            copy = lambda d: tirx.BufferStore(self.packed_values, spec.value(b, h, j, d), [j, d])
            clear = lambda d: tirx.BufferStore(self.packed_values, zero, [j, d])
            vectors = loop(
                "vector", full, lambda v: lanes_loop(self.lanes, lambda lane: copy(v * self.lanes + lane))
            )
            rest = spec.value_depth - full * self.lanes
            return sequence(
                vectors if full else None,
                loop("d", rest, lambda d: copy(full * self.lanes + d)) if rest else None,
                loop("d", self.value_width - spec.value_depth, lambda d: clear(spec.value_depth + d))
                if rest
                else None,
            )

        return sequence(
            loop("panel", self.panels, panel),
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
        visible: Expr = index(spec.keys)
        if spec.causal is not None:
            visible = tirx.max(const(0), tirx.min(spec.keys, row0 + spec.causal + size))
        minus_infinity = tirx.const(float("-inf"), "float32")
        if self.one_block:
            body = self.key_block(b, h, row0, const(0), visible)
        else:
            count = _ceil_div(visible, tiling.key_block)
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
        panels = _ceil_div(extent, self.width)
        first_panel = key0 // self.width if static(key0) != 0 else const(0)
        tiles = tiling.row_block // tiling.score.rows

        def score_tile(panel: Expr, tile: Expr) -> tirx.Stmt:
            base = tile * tiling.score.rows
            return emit_tile(
                tiling.score,
                spec.depth,
                lambda r, d: spec.query(b, h, row0 + base + r, d),
                lambda d, column: tirx.BufferLoad(self.packed_keys, [first_panel + panel, d, column]),
                lambda r, column, total: tirx.BufferStore(
                    self.score, total, [base + r, panel * self.width + column]
                ),
                "float32",
            )

        def sum_tile(part: Expr, tile: Expr) -> tirx.Stmt:
            base = tile * tiling.sum.rows
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
        scores = loop("panel", panels, lambda p: loop("tile", tiles, lambda t: score_tile(p, t)))
        soft = loop("r", tiling.row_block, lambda r: self.softmax_row(b, h, row0, r, key0, extent))
        sums = loop("tile", tiles, lambda t: loop("part", parts, lambda p: sum_tile(p, t)))
        return sequence(None if size is not None else tirx.Bind(here, keys), scores, soft, sums)

    def softmax_row(self, b: Expr, h: Expr, row0: Expr, r: Expr, key0: Expr, keys: Expr) -> tirx.Stmt:
        """Turn one row of scores into exponentials; update its maximum and sum, and set its factor."""
        lanes, float32 = self.lanes, "float32"
        most = tirx.decl_buffer((const(lanes),), float32, "most")
        part = tirx.decl_buffer((const(lanes),), float32, "part")
        low, new = tirx.Var("low", float32), tirx.Var("new_maximum", float32)
        minus_infinity, zero = tirx.const(float("-inf"), float32), tirx.const(0.0, float32)
        full, rest = keys // lanes, keys % lanes
        has_rest = static(rest) != 0

        def mask(column: Expr, lane: Expr) -> tirx.Stmt:
            place = [r, column + lane]
            score = self.spec.masked(b, h, row0 + r, key0 + column + lane, tirx.BufferLoad(self.score, place))
            stored = tirx.BufferLoad(self.score, place)
            return sequence(
                tirx.BufferStore(self.score, score.astype(float32), place),
                tirx.BufferStore(most, tirx.max(tirx.BufferLoad(most, [lane]), stored), [lane]),
            )

        def exponent(column: Expr, lane: Expr) -> tirx.Stmt:
            place = [r, column + lane]
            value = exp_of_nonpositive(tirx.BufferLoad(self.score, place) - low)
            return sequence(
                tirx.BufferStore(self.score, value, place),
                tirx.BufferStore(
                    part, tirx.BufferLoad(part, [lane]) + tirx.BufferLoad(self.score, place), [lane]
                ),
            )

        pad = loop(
            "lane",
            lanes,
            lambda lane: when(
                lane >= rest, tirx.BufferStore(self.score, minus_infinity, [r, full * lanes + lane])
            ),
        )
        before = minus_infinity if self.one_block else tirx.BufferLoad(self.maximum, [r])
        update = [tirx.BufferStore(self.sum, tirx.BufferLoad(part, [const(0)]), [r])]
        update.append(tirx.BufferStore(self.factor, self.inverse(r), [r]))
        if not self.one_block:
            factor = tirx.BufferLoad(self.factor, [r])
            update = [
                tirx.BufferStore(self.factor, exp_of_nonpositive(before - low), [r]),
                tirx.BufferStore(
                    self.sum,
                    tirx.BufferLoad(self.sum, [r]) * factor + tirx.BufferLoad(part, [const(0)]),
                    [r],
                ),
                tirx.BufferStore(self.maximum, new, [r]),
            ]
        return sequence(
            tirx.AllocBuffer(most),
            tirx.AllocBuffer(part),
            lanes_loop(lanes, lambda lane: tirx.BufferStore(most, minus_infinity, [lane])),
            lanes_loop(lanes, lambda lane: tirx.BufferStore(part, zero, [lane])),
            loop("vector", full, lambda v: lanes_loop(lanes, lambda lane: mask(v * lanes, lane))),
            loop("rest", rest, lambda c: mask(full * lanes, c)) if has_rest else None,
            pad if has_rest else None,
            self.fold_lanes(most, tirx.max),
            tirx.Bind(new, tirx.max(before, tirx.BufferLoad(most, [const(0)]))),
            tirx.Bind(low, tirx.Select(new == minus_infinity, zero, new)),
            loop(
                "vector",
                _ceil_div(keys, lanes),
                lambda v: lanes_loop(lanes, lambda lane: exponent(v * lanes, lane)),
            ),
            self.fold_lanes(part, lambda x, y: x + y),
            *update,
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
        empty = tirx.const(0.0 if self.spec.is_safe else float("nan"), "float32")
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
    """exp(x) in float32 for x <= 0 with a relative error of 1e-7; 0 below -87, NaN for NaN.

    Cody-Waite reduction and polynomial of expf in the Cephes library (S. L. Moshier).
    """
    f = lambda value: tirx.const(value, "float32")
    held = tirx.max(x, f(-88.0))
    n = tirx.floor(held * f(1.44269504088896341) + f(0.5))
    r = x - n * f(0.693359375) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + f(coefficient)
    p = p * r * r + r + f(1.0)
    bits = (n.astype("int32") + tirx.const(127, "int32")) << tirx.const(23, "int32")
    # The comparison is false for NaN, which so stays NaN.
    return tirx.Select(x < f(-87.0), f(0.0), p * tirx.reinterpret("float32", bits))


def _ceil_div(value: int | Expr, divisor: int) -> Expr:
    size = static(value)
    return const(-(-size // divisor)) if size is not None else (value + (divisor - 1)) // divisor
