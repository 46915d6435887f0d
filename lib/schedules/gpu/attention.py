"""Scaled dot product attention in one kernel: scores and weights stay in shared memory (FlashAttention).

    for blockIdx.x = (batch, head, tile of rows):
        shared Q = the tile of queries; sums = 0, top = -inf, total = 0          # sums of a thread in registers
        for tile of keys:
            shared K = the tile of keys;    S = mask(Q Kᵀ)
            new = max(top, rows of S);      shared V = the tile of values, in the place of K;    S = exp(S - new)
            total = total * exp(top - new) + rows of S;    sums = sums * exp(top - new) + S V;    top = new
        out = sums / total

The running maximum and sum are those of "Online normalizer calculation for softmax" (Milakov and Gimelshein,
arXiv:1805.02867). Tiles of keys behind the diagonal of a causal mask are not read. All is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.op import tvm_storage_sync

from torch_tvm.schedules.attention_spec import AttentionSpec, read_attention
from torch_tvm.schedules.gpu.model import GpuModel
from torch_tvm.schedules.storage import in_root_block
from torch_tvm.support.errors import Refusal
from torch_tvm.tir import ceil_div, const, flat_sequence, loop, static, when
from torch_tvm.workloads.attention import AttentionWorkload

DTYPE = "float32"


@dataclass(frozen=True)
class Tiles:
    """``rows`` by ``keys`` scores for ``down`` by ``across`` threads."""

    down: int
    across: int
    rows: int
    keys: int

    def shared(self, depth: int, value_depth: int) -> int:
        """Bytes of shared memory: queries, keys or values, and scores."""
        values = max(self.keys * (depth + 1), self.keys * value_depth)
        return 4 * (self.rows * (depth + 1) + values + self.rows * (self.keys + 1))

    def registers(self, value_depth: int) -> int:
        """What a thread keeps: its sums, its scores, and of each row the maximum, the total and the factor."""
        own = self.rows // self.down
        return own * (ceil_div(value_depth, self.across) + self.keys // self.across + 4)


class Attention:
    """The rule for kernels that :class:`AttentionWorkload` describes."""

    name = "attention"

    def apply(self, func: tirx.PrimFunc, gpu: GpuModel) -> tirx.PrimFunc:
        spec = read_attention(func)
        kernel = _Kernel(spec, choose_tiles(spec.rows, spec.keys, spec.depth, spec.value_depth, gpu))
        return in_root_block(func.with_body(kernel.body())).without_attr(AttentionWorkload.ATTRIBUTE)


def choose_tiles(rows: Expr, keys: Expr, depth: int, value_depth: int, gpu: GpuModel) -> Tiles:
    """The largest tiles that fit registers and shared memory and are no larger than the attention."""
    side = 16 if gpu.threads >= 256 else 8
    down = side if static(rows) is None else min(side, _power_above(static(rows) or 1))
    longest = 64 if static(keys) is None else max(8, min(64, _power_above(static(keys) or 1)))
    for own in (4, 2, 1):
        if own > 1 and static(rows) is not None and down * own // 2 >= (static(rows) or 1):
            continue  # half of the rows would be none
        width = longest
        while width >= 8:
            tiles = Tiles(down, min(side * side // down, width), down * own, width)
            fits = tiles.shared(depth, value_depth) <= gpu.shared
            if fits and tiles.registers(value_depth) <= gpu.registers * 3 // 4:
                return tiles
            width //= 2
    raise Refusal(f"heads of {max(depth, value_depth)} elements do not fit the shared memory")


def _power_above(size: int) -> int:
    """The least power of two that is no less."""
    return 1 << (size - 1).bit_length()


class _Tile:
    """A tile in shared memory, flat: TVM would cut off what lies between rows that are an odd
    number of elements apart.
    """

    def __init__(self, name: str, rows: int, width: int) -> None:
        self.width = width
        self.buffer = tirx.decl_buffer((rows * width,), DTYPE, name, scope="shared")

    def get(self, row: Expr, column: Expr) -> Expr:
        return _get(self.buffer, row * self.width + column)

    def set(self, value: Expr, row: Expr, column: Expr) -> tirx.Stmt:
        return _set(self.buffer, value, row * self.width + column)


class _Kernel:
    """The loops of one attention."""

    def __init__(self, spec: AttentionSpec, tiles: Tiles) -> None:
        self.spec, self.tiles = spec, tiles
        self.own_rows, self.own_keys = tiles.rows // tiles.down, tiles.keys // tiles.across
        self.own_values = ceil_div(spec.value_depth, tiles.across)
        local = lambda name, *shape: tirx.decl_buffer(shape, DTYPE, name, scope="local")
        width = max(spec.depth + 1, spec.value_depth)
        self.queries = _Tile("queries", tiles.rows, spec.depth + 1)
        self.others = _Tile("keys_or_values", tiles.keys, width)
        self.shares = _Tile("scores", tiles.rows, tiles.keys + 1)
        self.sums = local("sums", self.own_rows, self.own_values)
        self.scores = local("own_scores", self.own_rows, self.own_keys)
        self.top, self.new, self.total, self.factor = (
            local(name, self.own_rows) for name in ("top", "new_top", "total", "factor")
        )
        self.y, self.x = tirx.Var("thread_y", "int64"), tirx.Var("thread_x", "int64")
        self.block = tirx.Var("block", "int64")
        row_tiles = ceil_div(spec.rows, tiles.rows)
        head = tirx.floordiv(self.block, row_tiles)
        self.first_row = tirx.floormod(self.block, row_tiles) * tiles.rows
        self.b, self.h = tirx.floordiv(head, spec.heads), tirx.floormod(head, spec.heads)
        self.blocks = spec.batch * spec.heads * row_tiles

    def body(self) -> tirx.Stmt:
        shared = [tile.buffer for tile in (self.queries, self.others, self.shares)]
        local = [self.sums, self.scores, self.top, self.new, self.total, self.factor]
        steps = [
            *map(tirx.AllocBuffer, shared + local),
            self._load(self.queries, self.tiles.rows, self.spec.depth, self._query),
            self._begin(),
            loop("key_tile", self._key_tiles(), self._key_tile),
            self._end(),
        ]
        body = flat_sequence(steps)
        for var, extent, axis in (
            (self.x, const(self.tiles.across), "threadIdx.x"),
            (self.y, const(self.tiles.down), "threadIdx.y"),
            (self.block, self.blocks, "blockIdx.x"),
        ):
            thread = tirx.IterVar(tvm.ir.Range(0, extent), var, tirx.IterVar.ThreadIndex, axis)
            body = tirx.For(var, const(0), extent, tirx.ForKind.THREAD_BINDING, body, thread)
        return body

    # -- what a thread has -----------------------------------------------------------------------------

    def _row(self, a: Expr) -> Expr:
        """The number in the tile of a thread's own row."""
        return self.y + a * self.tiles.down

    def _key(self, c: Expr) -> Expr:
        return self.x + c * self.tiles.across

    def _rows(self, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        return loop("a", self.own_rows, body, kind="unrolled")

    def _points(self, count: int, body: Callable[[Expr, Expr], tirx.Stmt]) -> tirx.Stmt:
        return self._rows(lambda a: loop("c", count, lambda c: body(a, c), kind="unrolled"))

    def _begin(self) -> tirx.Stmt:
        lowest, zero = tirx.const(float("-inf"), DTYPE), tirx.const(0.0, DTYPE)
        rows = self._rows(lambda a: flat_sequence([_set(self.top, lowest, a), _set(self.total, zero, a)]))
        return flat_sequence([rows, self._points(self.own_values, lambda a, e: _set(self.sums, zero, a, e))])

    def _end(self) -> tirx.Stmt:
        spec = self.spec

        def store(a: Expr, e: Expr) -> tirx.Stmt:
            row, place, total = self.first_row + self._row(a), self._key(e), _get(self.total, a)
            value = _get(self.sums, a, e) / total
            if spec.is_safe:
                zero = tirx.const(0.0, DTYPE)
                value = tirx.Select(tirx.EQ(total, zero), zero, value)
            inside = tirx.all(row < spec.rows, place < spec.value_depth)
            return when(inside, spec.store(self.b, self.h, row, place, value))

        return self._points(self.own_values, store)

    # -- tiles -------------------------------------------------------------------------------------------

    def _load(self, target: _Tile, rows: int, width: int, element: Callable[[Expr, Expr], Expr]) -> tirx.Stmt:
        """A tile in shared memory, by all threads: neighbours read neighbours."""
        threads = self.tiles.down * self.tiles.across
        thread = self.y * self.tiles.across + self.x

        def copy(step: Expr) -> tirx.Stmt:
            at = step * threads + thread
            row, column = tirx.floordiv(at, width), tirx.floormod(at, width)
            return when(at < rows * width, target.set(element(row, column), row, column))

        return loop("step", ceil_div(rows * width, threads), copy)

    def _query(self, row: Expr, d: Expr) -> Expr:
        at = self.first_row + row
        return _inside(at < self.spec.rows, self.spec.query(self.b, self.h, at, d))

    def _key_tiles(self) -> Expr:
        """How many tiles of keys the rows of a block see."""
        spec, seen = self.spec, self.spec.keys
        if spec.causal is not None:
            seen = tirx.max(tirx.min(seen, self.first_row + self.tiles.rows + spec.causal), const(0))
        return ceil_div(seen, self.tiles.keys)

    def _key_tile(self, number: Expr) -> tirx.Stmt:
        spec, first = self.spec, number * self.tiles.keys
        of = lambda operand: lambda j, d: _inside(first + j < spec.keys, operand(self.b, self.h, first + j, d))
        return flat_sequence(
            [
                _barrier(),  # nobody reads the values and the weights of the tile before
                self._load(self.others, self.tiles.keys, spec.depth, of(spec.key)),
                _barrier(),
                self._score(first),
                _barrier(),
                self._load(self.others, self.tiles.keys, spec.value_depth, of(spec.value)),
                self._find_top(),
                _barrier(),  # all have seen the scores
                self._weigh(),
                _barrier(),
                self._add(),
            ]
        )

    def _score(self, first: Expr) -> tirx.Stmt:
        """The masked scores of a thread, to where all see them."""
        spec, zero = self.spec, tirx.const(0.0, DTYPE)

        def product(d: Expr) -> tirx.Stmt:
            def add(a: Expr, c: Expr) -> tirx.Stmt:
                term = self.queries.get(self._row(a), d) * self.others.get(self._key(c), d)
                return _set(self.scores, _get(self.scores, a, c) + term, a, c)

            return self._points(self.own_keys, add)

        def mask(a: Expr, c: Expr) -> tirx.Stmt:
            row, key = self.first_row + self._row(a), first + self._key(c)
            value = spec.masked(self.b, self.h, row, key, _get(self.scores, a, c))
            hidden = tirx.const(float("-inf"), DTYPE)
            shown = tirx.if_then_else(tirx.all(row < spec.rows, key < spec.keys), value, hidden)
            return flat_sequence(
                [
                    _set(self.scores, shown, a, c),
                    self.shares.set(_get(self.scores, a, c), self._row(a), self._key(c)),
                ]
            )

        return flat_sequence(
            [
                self._points(self.own_keys, lambda a, c: _set(self.scores, zero, a, c)),
                loop("d", spec.depth, product),
                self._points(self.own_keys, mask),
            ]
        )

    def _find_top(self) -> tirx.Stmt:
        """The maximum of each row so far, and by what its sums are to be multiplied."""
        lowest, zero = tirx.const(float("-inf"), DTYPE), tirx.const(0.0, DTYPE)

        def row(a: Expr) -> tirx.Stmt:
            larger = lambda j: tirx.max(_get(self.new, a), self.shares.get(self._row(a), j))
            new = _get(self.new, a)
            shift = tirx.Select(tirx.EQ(new, lowest), zero, new)  # a row that has seen no key yet
            return flat_sequence(
                [
                    _set(self.new, _get(self.top, a), a),
                    loop("j", self.tiles.keys, lambda j: _set(self.new, larger(j), a)),
                    _set(self.factor, tirx.exp(_get(self.top, a) - shift), a),
                    _set(self.top, new, a),
                    _set(self.new, shift, a),
                    _set(self.total, _get(self.total, a) * _get(self.factor, a), a),
                ]
            )

        scale = lambda a, e: _set(self.sums, _get(self.sums, a, e) * _get(self.factor, a), a, e)
        return flat_sequence([self._rows(row), self._points(self.own_values, scale)])

    def _weigh(self) -> tirx.Stmt:
        """The exponentials of a thread's own scores, in their place."""
        weight = lambda a, c: tirx.exp(_get(self.scores, a, c) - _get(self.new, a))
        return self._points(self.own_keys, lambda a, c: self.shares.set(weight(a, c), self._row(a), self._key(c)))

    def _add(self) -> tirx.Stmt:
        """The weighted values, and the weights alone."""

        def key(j: Expr) -> tirx.Stmt:
            weight = lambda a: self.shares.get(self._row(a), j)
            total = lambda a: _set(self.total, _get(self.total, a) + weight(a), a)

            def add(a: Expr, e: Expr) -> tirx.Stmt:
                place = tirx.min(self._key(e), const(self.spec.value_depth - 1))
                return _set(self.sums, _get(self.sums, a, e) + weight(a) * self.others.get(j, place), a, e)

            return flat_sequence([self._rows(total), self._points(self.own_values, add)])

        return loop("j", self.tiles.keys, key)


def _get(buffer: tirx.Buffer, *indices: Expr) -> Expr:
    return tirx.BufferLoad(buffer, list(indices))


def _set(buffer: tirx.Buffer, value: Expr, *indices: Expr) -> tirx.Stmt:
    return tirx.BufferStore(buffer, value, list(indices))


def _inside(condition: Expr, value: Expr) -> Expr:
    """``value`` where it is there, 0 elsewhere; it is not read there."""
    return tirx.if_then_else(condition, value, tirx.const(0.0, DTYPE))


def _barrier() -> tirx.Stmt:
    return tirx.Evaluate(tvm_storage_sync("shared"))


__all__ = ["Attention", "Tiles", "choose_tiles"]
