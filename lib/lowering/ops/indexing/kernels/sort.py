"""Kernels that order integer keys along an axis, one line at a time: ranks, a radix sort, the k largest.

Lines run in parallel where there is enough to do. All kernels are stable: of equal keys the first comes first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.script import allocate
from torch_tvm.tir import bits_of, ceil_div, elements, round_up, static

Scalar: TypeAlias = tvm.ir.Expr

RANKED_LENGTH = 128
"""Up to this length, comparing every pair in vectors beats counting digits."""

LANES = 16
BLOCK = 64
DIGIT = 8
PARALLEL_ELEMENTS = 1 << 12
"""Keys from which on the lines are worth more than one thread (each costs tens of operations)."""


def order(keys: te.Tensor, axis: int, descending: bool) -> te.Tensor:
    """The positions along ``axis`` (int64) in the order of the keys (int32 or int64)."""
    length = static(keys.shape[axis])
    ranked = length is not None and length <= RANKED_LENGTH
    line = functools.partial(_ranked_line if ranked else _radix_line, descending=descending)
    return by_lines(keys, axis, keys.shape[axis], line, "argsort")


def largest(keys: te.Tensor, axis: int, count: int, smallest: bool) -> te.Tensor:
    """The positions along ``axis`` (int64) of the ``count`` largest (or smallest) keys, in order."""
    line = functools.partial(_selected_line, count=count, smallest=smallest)
    return by_lines(keys, axis, tirx.const(count, "int64"), line, "topk")


def smallest_by_digits(keys: te.Tensor, axis: int, count: int, is_largest: bool) -> te.Tensor:
    """As :func:`largest`, for many keys of long lines: what comes before the last of them is gathered and sorted."""

    def line(read: Any, write: Any, length: Any, dtype: str) -> None:
        last = ranked_key(read, length, dtype, count - 1, is_largest)
        found, places = allocate(count, dtype), allocate(count, "int32")
        filled, equal = allocate(1, "int32"), allocate(1, "int64")
        filled[0], equal[0] = 0, last.before[0] + 1

        def take(i: Scalar) -> None:
            found[filled[0]], places[filled[0]] = read(i), tirx.Cast("int32", i)
            filled[0] = filled[0] + 1

        with T.serial(0, length) as i, T.If(last.key_of(i) < last.key[0]):
            with T.Then():
                take(i)
            with T.Else(), T.If(tirx.all(tirx.EQ(last.key_of(i), last.key[0]), equal[0] > 0)), T.Then():
                take(i)
                equal[0] = equal[0] - 1
        line_of = _ranked_line if count <= RANKED_LENGTH else _radix_line
        number = tirx.const(count, "int64")
        line_of(lambda i: found[i], lambda at, i: write(at, places[i]), number, dtype, is_largest)

    return by_lines(keys, axis, tirx.const(count, "int64"), line, "topk")


@dataclass(frozen=True)
class RankedKey:
    """The key of a rank in its order as an unsigned number, how many equal ones come before it, and that of others."""

    key: Any
    before: Any
    key_of: Callable[[Scalar], Scalar]


def ranked_key(read: Any, length: Any, dtype: str, rank: Any, descending: bool) -> RankedKey:
    """The key of a rank (from 0) in a line, digit by digit from the highest: keys are counted, and not moved."""
    bits = bits_of(dtype)
    kind, radix = f"uint{bits}", 1 << DIGIT
    flip = (1 << (bits - 1)) - 1 if descending else 1 << (bits - 1)
    word = lambda number: tirx.const(number, kind)
    key_of = lambda i: tirx.bitwise_xor(tirx.reinterpret(kind, read(i)), word(flip))
    prefix, before = allocate(1, kind), allocate(1, "int64")
    counts, bucket = allocate(radix, "int64"), allocate(1, "int32")
    before[0] = tirx.Cast("int64", rank) if not isinstance(rank, int) else tirx.const(rank, "int64")
    prefix[0] = word(0)
    for digit in reversed(range(bits // DIGIT)):
        shift = digit * DIGIT
        digit_of = lambda i, s=shift: tirx.Cast(
            "int32", tirx.bitwise_and(tirx.shift_right(key_of(i), word(s)), word(radix - 1))
        )
        with T.serial(0, radix) as i:
            counts[i] = tirx.const(0, "int64")
        with T.serial(0, length) as i:
            if shift + DIGIT == bits:
                counts[digit_of(i)] = counts[digit_of(i)] + 1
            else:
                with T.If(tirx.EQ(tirx.shift_right(key_of(i), word(shift + DIGIT)), prefix[0])), T.Then():
                    counts[digit_of(i)] = counts[digit_of(i)] + 1
        bucket[0] = 0
        with T.While(counts[bucket[0]] <= before[0]):
            before[0] = before[0] - counts[bucket[0]]
            bucket[0] = bucket[0] + 1
        prefix[0] = tirx.bitwise_or(tirx.shift_left(prefix[0], word(DIGIT)), tirx.Cast(kind, bucket[0]))
    return RankedKey(prefix, before, key_of)


LONG = 1 << 8
"""Keys of a line from which on counting their digits beats moving them."""


def is_long(length: Any, count: int = 1) -> bool:
    """Whether a line has many keys, of which ``count`` are few."""
    size = static(length)
    return size is not None and size >= LONG and 2 * count <= size


def is_selection(count: int, length: Any) -> bool:
    """Whether insertion into a list of ``count`` beats sorting the line: of random keys,
    ``count * (1 + ln(length / count))`` are inserted, each in ``count`` steps (1.5 ns), against 9 ns a key."""
    size = static(length)
    return size is not None and 0 < count <= size and count**2 * (1 + math.log(size / count)) < 6 * size


def by_lines(
    keys: te.Tensor, axis: int, count: Any, line: Callable[..., None], name: str, *others: te.Tensor
) -> te.Tensor:
    """``line(read, write, length, dtype, *reads)`` for every line along ``axis``; it writes ``count`` positions.

    ``reads`` are for the lines of the other tensors.
    """
    shape, dtype = list(keys.shape), str(keys.dtype)
    after, length = elements(shape[axis + 1 :]), shape[axis]
    lines = elements([elements(shape[:axis]), after])
    total = static(elements([lines, length]))
    loop = T.serial if total is not None and total < PARALLEL_ELEMENTS else T.parallel

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        sources, out = [T.buffer_proxy(buffer) for buffer in ins], T.buffer_proxy(outs[0])
        with IRBuilder() as builder:
            with loop(0, lines) as number:
                outer, inner = number // after, number % after

                def write(place: Scalar, position: Scalar) -> None:
                    out[(outer * count + place) * after + inner] = tirx.Cast("int64", position)

                reads = [lambda i, data=data: data[(outer * length + i) * after + inner] for data in sources]
                line(reads[0], write, length, dtype, *reads[1:])
            return builder.get()

    result = [*shape[:axis], count, *shape[axis + 1 :]]
    given = [keys, *others]
    buffers = [tirx.decl_buffer(source.shape, source.dtype, f"in{n}") for n, source in enumerate(given)]
    out = [tirx.decl_buffer(result, "int64", "order")]
    return te.extern([result], given, body, dtype="int64", in_buffers=buffers, out_buffers=out, name=name)


def _ranked_line(read: Any, write: Any, length: Any, dtype: str, descending: bool) -> None:
    """``rank[i]`` counts the keys that come before key ``i``."""
    padded = round_up(int(length), LANES)
    keys, ranks = allocate(padded, dtype), allocate(padded, "int32")
    with T.serial(0, padded) as i:
        ranks[i] = 0
    with T.serial(0, length) as i:
        keys[i] = read(i)
    with T.serial(0, padded - int(length)) as i:
        keys[length + i] = tirx.const(0, dtype)
    with T.serial(0, length) as j, T.serial(0, padded // LANES) as block, T.vectorized(0, LANES) as lane:
        i = block * LANES + lane
        before = keys[i] < keys[j] if descending else keys[j] < keys[i]
        tie = tirx.all(tirx.EQ(keys[j], keys[i]), j < i)
        ranks[i] = ranks[i] + tirx.Select(tirx.any(before, tie), tirx.const(1, "int32"), tirx.const(0, "int32"))
    with T.serial(0, length) as i:
        write(tirx.Cast("int64", ranks[i]), i)


def _radix_line(read: Any, write: Any, length: Any, dtype: str, descending: bool) -> None:
    """Digits of 8 bits, the lowest first; the positions of the last pass are the result."""
    bits = bits_of(dtype)
    passes, kind, radix = bits // DIGIT, f"uint{bits}", 1 << DIGIT
    keys = [allocate(length, kind) for _ in range(2)]
    places = [allocate(length, "int32") for _ in range(2)]
    counts = allocate(passes * radix, "int32")
    flip = (1 << (bits - 1)) - 1 if descending else 1 << (bits - 1)

    def slot(key: Scalar, digit: int) -> Scalar:
        low = tirx.shift_right(key, tirx.const(digit * DIGIT, kind))
        return tirx.Cast("int32", tirx.bitwise_and(low, tirx.const(radix - 1, kind))) + digit * radix

    with T.serial(0, passes * radix) as i:
        counts[i] = 0
    with T.serial(0, length) as i:
        keys[0][i] = tirx.bitwise_xor(tirx.reinterpret(kind, read(i)), tirx.const(flip, kind))
        for digit in range(passes):
            counts[slot(keys[0][i], digit)] = counts[slot(keys[0][i], digit)] + 1
    running, here = allocate(1, "int32"), allocate(1, "int32")
    for digit in range(passes):
        running[0] = 0
        with T.serial(0, radix) as i:
            here[0] = counts[i + digit * radix]
            counts[i + digit * radix] = running[0]
            running[0] = running[0] + here[0]
    for digit in range(passes):
        source, target = digit % 2, 1 - digit % 2
        with T.serial(0, length) as i:
            place = slot(keys[source][i], digit)
            here[0] = counts[place]
            counts[place] = here[0] + 1
            position = places[source][i] if digit else tirx.Cast("int32", i)
            if digit == passes - 1:
                write(tirx.Cast("int64", here[0]), position)
            else:
                places[target][here[0]] = position
                keys[target][here[0]] = keys[source][i]


def _selected_line(read: Any, write: Any, length: Any, dtype: str, count: int, smallest: bool) -> None:
    """A list of the best so far; a block of keys that has none better than the last of them is passed over."""
    flip = tirx.const(-1 if smallest else 0, dtype)
    keys = allocate(length, dtype)
    best = _Best(keys, allocate(count, dtype), allocate(count, "int32"), allocate(1, dtype))
    with T.serial(0, length) as i:
        keys[i] = tirx.bitwise_xor(read(i), flip)

    def offer(i: Scalar) -> None:
        with T.If(keys[i] > best.keys[count - 1]), T.Then():
            best.insert(i, tirx.const(count - 1, "int64"))

    best.keys[0] = tirx.min_value(dtype)
    with T.serial(0, count) as i:
        best.insert(tirx.Cast("int64", i), tirx.Cast("int64", i))
    left = length - count
    top = allocate(LANES, dtype)
    with T.serial(0, left // BLOCK) as block:
        first = block * BLOCK + count
        _largest_first(top, keys, first)
        with T.If(top[0] > best.keys[count - 1]), T.Then(), T.serial(0, BLOCK) as i:
            offer(first + i)
    with T.serial(0, left % BLOCK) as i:
        offer(left // BLOCK * BLOCK + count + i)
    with T.serial(0, count) as i:
        write(i, best.places[i])


@dataclass(frozen=True)
class _Best:
    """The largest keys of ``source`` so far, in descending order, and where they stand there;
    ``key`` is room for one.
    """

    source: Any
    keys: Any
    places: Any
    key: Any

    def insert(self, i: Scalar, filled: Scalar) -> None:
        """Key ``i`` into the list, whose last entry ``filled`` is dropped (or empty)."""
        keys, places, key = self.keys, self.places, self.key
        key[0] = self.source[i]
        with T.serial(0, filled) as step:
            j = filled - step
            moves = keys[j - 1] < key[0]
            ends = tirx.any(keys[j] < key[0], tirx.EQ(step, tirx.const(0, "int64")))
            places[j] = tirx.Select(moves, places[j - 1], tirx.Select(ends, tirx.Cast("int32", i), places[j]))
            keys[j] = tirx.Select(moves, keys[j - 1], tirx.Select(ends, key[0], keys[j]))
        with T.If(tirx.any(keys[0] < key[0], tirx.EQ(filled, tirx.const(0, "int64")))), T.Then():
            keys[0] = key[0]
            places[0] = tirx.Cast("int32", i)


def _largest_first(top: Any, keys: Any, first: Scalar) -> None:
    """The largest of a block of keys from ``first`` on, in ``top[0]``: lane by lane, then of ever fewer lanes."""
    with T.vectorized(0, LANES) as lane:
        top[lane] = keys[first + lane]
    with T.serial(0, BLOCK // LANES - 1) as part, T.vectorized(0, LANES) as lane:
        top[lane] = tirx.max(top[lane], keys[first + (part + 1) * LANES + lane])
    width = LANES // 2
    while width:
        with T.vectorized(0, width) as lane:
            top[lane] = tirx.max(top[lane], top[lane + width])
        width //= 2


def merged_order(rows: te.Tensor) -> te.Tensor:
    """The positions (int64) of the rows of a 2-d tensor in lexicographic order: runs of 1, 2, 4, … merged in pairs."""
    count, width = rows.shape
    levels = max(int(count) - 1, 0).bit_length()

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
        with IRBuilder() as builder:
            with T.seq_scope():
                buffers = [out, allocate(count, "int64")]
                first = levels % 2
                with T.serial(0, count) as i:
                    buffers[first][i] = i
                for level in range(levels):
                    source, target = buffers[(first + level) % 2], buffers[(first + level + 1) % 2]
                    _merge_level(data, source, target, 1 << level, count, width)
            return builder.get()

    buffers = [tirx.decl_buffer(rows.shape, rows.dtype, "rows"), tirx.decl_buffer((count,), "int64", "order")]
    return te.extern(
        [[count]], [rows], body, dtype="int64", in_buffers=buffers[:1], out_buffers=buffers[1:], name="order"
    )


def _merge_level(data: Any, source: Any, target: Any, run: int, count: Any, width: Any) -> None:
    """Each pair of runs in ``source`` as one run in ``target``; of equal rows those of the first run come first."""
    with T.parallel(0, ceil_div(int(count), 2 * run)) as pair:
        cells = allocate(3, "int64", "local")
        begin = pair * (2 * run)
        middle, end = tirx.min(begin + run, count), tirx.min(begin + 2 * run, count)
        cells[0], cells[1] = begin, middle
        with T.serial(0, end - begin) as step:
            left, right = cells[0], cells[1]
            cells[2] = tirx.const(0, "int64")
            a, c = source[tirx.min(left, count - 1)], source[tirx.min(right, count - 1)]
            element = lambda row: _comparable(data[row, cells[2]])
            same = tirx.EQ(element(a), element(c))
            with T.While(tirx.if_then_else(cells[2] < width - 1, same, tirx.const(False, "bool"))):
                cells[2] = cells[2] + 1
            takes_right = tirx.any(left >= middle, tirx.all(right < end, element(c) < element(a)))
            with T.If(takes_right):
                with T.Then():
                    target[begin + step] = source[right]
                    cells[1] = right + 1
                with T.Else():
                    target[begin + step] = source[left]
                    cells[0] = left + 1


def _comparable(value: Scalar) -> Scalar:
    return tirx.Cast("int32", value) if str(value.ty.dtype) == "bool" else value
