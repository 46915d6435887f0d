"""Kernels for GPUs that order keys, and that group updates by their place: stable, without atomics, the same on every
run.

A line of many keys is sorted digit by digit, the lowest first. For each digit a thread counts those of its part of the
line, the counts of all parts become positions, and each thread moves its part there, in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.ops.indexing.kernels.bisection import first_where
from torch_tvm.lowering.ops.indexing.kernels.scatter import combination, identity
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import bits_of, ceil_div, const, elements, static

Scalar: TypeAlias = tvm.ir.Expr

RANKED_LENGTH = 512
"""Up to this length a thread for each key that looks at all others is done before digits are counted."""

LONGEST_PART = 256
"""Keys of a line that one thread counts and moves, at most."""

DIGIT = 8
RADIX = 1 << DIGIT


@dataclass(frozen=True)
class Ordered:
    """Lines of keys in order, one after the other, and where in its line each was."""

    keys: Any
    places: Any


def in_order(key_of: Callable[[Scalar, Scalar], Scalar], lines: Any, length: Any, bits: int, kind: str) -> Ordered:
    """The keys ``key_of(line, i)``, of ``kind``, below ``2 ** bits``, by parallel loops one after the other."""
    own = _part(length)
    parts = ceil_div(length, own)
    keys = [allocate(lines * length, kind) for _ in range(2)]
    places = [allocate(lines * length, "int32") for _ in range(2)]
    counts, bases = allocate(lines * RADIX * parts, "int32"), allocate(lines * RADIX, "int32")
    totals = allocate(lines * RADIX, "int32")
    with T.parallel(0, lines * length) as at:
        keys[0][at] = key_of(at // divisor(length), at % divisor(length))
        places[0][at] = tirx.Cast("int32", at % divisor(length))
    found = Ordered(keys[0], places[0])
    for number in range(ceil_div(bits, DIGIT)):
        target = 1 - number % 2
        digit = _Digit(lines, length, parts, own, number * DIGIT, kind, found, counts)
        digit.count()
        _positions(counts, totals, bases, lines, parts)
        found = Ordered(keys[target], places[target])
        digit.move(found)
    return found


@dataclass(frozen=True)
class _Digit:
    """One digit of all keys, ``shift`` bits up. ``counts`` holds for each line, value of the digit and part of the line
    how many keys of that part have the value, and then where in the line the next of them goes.
    """

    lines: Any
    length: Any
    parts: Any
    own: int
    shift: int
    kind: str
    source: Ordered
    counts: Any

    def count(self) -> None:
        def add(at: Scalar, slot: Scalar) -> None:
            self.counts[slot] = self.counts[slot] + 1

        with T.parallel(0, self.lines * RADIX * self.parts) as slot:
            self.counts[slot] = tirx.const(0, "int32")
        self._each_part(add)

    def move(self, target: Ordered) -> None:
        """Every key to its position: those of one value keep their order."""

        def move(at: Scalar, slot: Scalar) -> None:
            rank = allocate(1, "int32", "local")
            rank[0] = self.counts[slot]
            self.counts[slot] = rank[0] + 1
            begin = (at // divisor(self.length)) * self.length
            target.keys[begin + tirx.Cast("int64", rank[0])] = self.source.keys[at]
            target.places[begin + tirx.Cast("int64", rank[0])] = self.source.places[at]

        self._each_part(move)

    def _each_part(self, body: Callable[[Scalar, Scalar], None]) -> None:
        """A thread for each part calls ``body`` with each key of it in order, and where the count of its value lies."""
        with T.parallel(0, self.lines * self.parts) as task:
            line, part = task // divisor(self.parts), task % divisor(self.parts)
            first = part * self.own
            with T.serial(0, tirx.min(self.length - first, const(self.own))) as i:
                at = line * self.length + first + i
                body(at, (line * RADIX + self._value(at)) * self.parts + part)

    def _value(self, at: Scalar) -> Scalar:
        low = tirx.shift_right(self.source.keys[at], tirx.const(self.shift, self.kind))
        return tirx.Cast("int64", tirx.bitwise_and(low, tirx.const(RADIX - 1, self.kind)))


def _positions(counts: Any, totals: Any, bases: Any, lines: Any, parts: Any) -> None:
    """From how many keys of each part have a value to where in the line the first of them goes."""
    with T.parallel(0, lines * RADIX) as row:
        total = allocate(1, "int32", "local")
        total[0] = tirx.const(0, "int32")
        with T.serial(0, parts) as part:
            total[0] = total[0] + counts[row * parts + part]
        totals[row] = total[0]
    with T.parallel(0, lines * RADIX) as row:
        total = allocate(1, "int32", "local")
        total[0] = tirx.const(0, "int32")
        with T.serial(0, row % RADIX) as lower:
            total[0] = total[0] + totals[(row // RADIX) * RADIX + lower]
        bases[row] = total[0]
    with T.parallel(0, lines * RADIX) as row:
        here, total = allocate(1, "int32", "local"), allocate(1, "int32", "local")
        total[0] = bases[row]
        with T.serial(0, parts) as part:
            here[0] = counts[row * parts + part]
            counts[row * parts + part] = total[0]
            total[0] = total[0] + here[0]


def divisor(size: Any) -> Any:
    """A size to divide by: TVM looks at what an unknown one may be, and fails for 0, where no thread would divide."""
    return size if static(size) is not None else tirx.max(size, const(1))


def _part(length: Any) -> int:
    """The keys of a thread: about as many as there are threads, and then fewer, as all of them wait for the longest."""
    known = static(length)
    return LONGEST_PART if known is None else max(32, min(LONGEST_PART, math.isqrt(known) // 2))


# -- sorting -----------------------------------------------------------------------------------------------


def order(keys: te.Tensor, axis: int, descending: bool, count: int | None = None) -> te.Tensor:
    """The positions along ``axis`` (int64) of the keys (int32 or int64) in their order; the first ``count`` of them."""
    shape, dtype = list(keys.shape), str(keys.dtype)
    after, length = elements(shape[axis + 1 :]), shape[axis]
    lines = elements([elements(shape[:axis]), after])
    taken = length if count is None else const(count)
    known = static(length)

    def body(ins: Any, outs: Any) -> tirx.Stmt:
        data, out = T.buffer_proxy(ins[0]), T.buffer_proxy(outs[0])
        read = lambda line, i: data[((line // after) * length + i) * after + line % after]

        def write(line: Scalar, rank: Scalar, place: Scalar) -> None:
            at = ((line // after) * taken + rank) * after + line % after
            out[at] = tirx.Cast("int64", place)

        with IRBuilder() as builder:
            with T.seq_scope():
                if known is not None and known <= RANKED_LENGTH:
                    _by_rank(read, write, lines, length, descending, taken)
                else:
                    _by_digits(read, write, lines, length, dtype, descending, taken)
            return builder.get()

    result = [*shape[:axis], taken, *shape[axis + 1 :]]
    buffers = [tirx.decl_buffer(shape, dtype, "keys"), tirx.decl_buffer(result, "int64", "order")]
    return te.extern(
        [result], [keys], body, dtype="int64", in_buffers=buffers[:1], out_buffers=buffers[1:], name="argsort"
    )


def _by_rank(read: Any, write: Any, lines: Any, length: Any, descending: bool, taken: Any) -> None:
    """A thread for each key counts those that come before it."""
    with T.parallel(0, lines * length) as at:
        line, i = at // length, at % length
        own, rank = allocate(1, str(read(line, i).ty.dtype), "local"), allocate(1, "int32", "local")
        own[0], rank[0] = read(line, i), tirx.const(0, "int32")
        with T.serial(0, length) as j:
            other = read(line, j)
            is_before = own[0] < other if descending else other < own[0]
            comes = tirx.any(is_before, tirx.all(tirx.EQ(other, own[0]), j < i))
            rank[0] = rank[0] + tirx.Cast("int32", comes)
        with T.If(tirx.Cast("int64", rank[0]) < taken), T.Then():
            write(line, tirx.Cast("int64", rank[0]), i)


def _by_digits(read: Any, write: Any, lines: Any, length: Any, dtype: str, descending: bool, taken: Any) -> None:
    bits = bits_of(dtype)
    kind = f"uint{bits}"
    flip = tirx.const((1 << (bits - 1)) - 1 if descending else 1 << (bits - 1), kind)
    key_of = lambda line, i: tirx.bitwise_xor(tirx.reinterpret(kind, read(line, i)), flip)
    found = in_order(key_of, lines, length, bits, kind)
    with T.parallel(0, lines * taken) as at:
        line, rank = at // divisor(taken), at % divisor(taken)
        write(line, rank, found.places[line * length + rank])


# -- updates by their place --------------------------------------------------------------------------------

REDUCTIONS = ("sum", "prod", "amax", "amin")
"""Where all updates of a place count; of others the last does."""

SHORTEST_SUM = 32
"""Updates from which on a thread more is worth it."""

MOST_PARTS = 256


@dataclass(frozen=True)
class Groups:
    """Updates in the order of their places, those of one place in their own order; ``begins[p]`` is
    the first of ``p``.
    """

    order: Any
    begins: Any

    def count(self, place: Scalar) -> Scalar:
        return tirx.Cast("int64", self.begins[place + 1] - self.begins[place])

    def update(self, place: Scalar, number: Scalar) -> Scalar:
        """Which update is the one with a number at a place."""
        first = tirx.Cast("int64", self.begins[place])
        return tirx.Cast("int64", self.order[first + number])


def grouped(place_of: Callable[[Scalar], Scalar], updates: Any, places: Any) -> Groups:
    """``updates`` by what ``place_of`` gives; one out of ``[0, places)`` is in no group."""
    known = static(places)
    bits = 32 if known is None else known.bit_length()

    def key_of(_: Scalar, i: Scalar) -> Scalar:
        place = allocate(1, "int64", "local")
        place[0] = place_of(i)
        inside = tirx.all(place[0] >= 0, place[0] < places)
        return tirx.Cast("uint32", tirx.Select(inside, place[0], places))

    found = in_order(key_of, const(1), updates, bits, "uint32")
    begins = allocate(places + 1, "int32")
    with T.parallel(0, places + 1) as place:
        begin = first_where(lambda i: found.keys[i] >= tirx.Cast("uint32", place), const(0), updates, "local")
        begins[place] = tirx.Cast("int32", begin)
    return Groups(found.places, begins)


@dataclass(frozen=True)
class GroupedUpdate:
    """A scatter with a thread for each element of the result, which takes the updates of its place in their order."""

    reduction: str
    dtype: str
    include_self: bool

    def body(
        self,
        ins: Sequence[Any],
        outs: Sequence[Any],
        updates: Any,
        width: Any,
        place_of: Callable[[Any, Scalar], Scalar],
        value_of: Callable[[Sequence[Any], Scalar, Scalar], Scalar],
    ) -> tirx.Stmt:
        """``place_of(index, u)`` is the row of update ``u``, ``value_of(operands, u, j)`` the element ``j`` of it."""
        data, where, *rest = (T.buffer_proxy(buffer) for buffer in ins)
        out = T.buffer_proxy(outs[0])
        places = tirx.floordiv(ins[0].shape[0], divisor(width))
        with IRBuilder() as builder:
            with T.seq_scope():
                groups = grouped(lambda u: place_of(where, u), updates, places)
                size = ins[0].shape[0]
                value_at = lambda at, number: value_of(
                    rest, groups.update(at // divisor(width), number), at % divisor(width)
                )
                parts = self._parts(updates, size)
                sums = self._sums_of_parts(groups, value_at, size, width, parts) if parts > 1 else None
                with T.parallel(0, size) as at:
                    count = groups.count(at // divisor(width))
                    if sums is None:
                        self._element(data, out, at, count, count, lambda number: value_at(at, number))
                    else:
                        of_part = lambda part: sums[part * size + at]
                        self._element(data, out, at, count, const(parts), of_part)
            return builder.get()

    def _parts(self, updates: Any, size: Any) -> int:
        """Of how many threads each element needs sums, where so many updates go to few elements that it is worth it."""
        count, elements = static(updates), static(size)
        if count is None or elements is None or self.reduction not in REDUCTIONS:
            return 1
        return max(1, min(MOST_PARTS, count // (elements * SHORTEST_SUM)))

    def _sums_of_parts(
        self, groups: Groups, value_at: Callable[[Scalar, Scalar], Scalar], size: Any, width: Any, parts: int
    ) -> Any:
        """The updates of each element by parts that follow each other."""
        sums = allocate(parts * size, self.dtype)
        with T.parallel(0, parts * size) as task:
            part, at = task // size, task % size
            count = groups.count(at // divisor(width))
            begin, end = count * part // parts, count * (part + 1) // parts
            total = allocate(1, self.dtype, "local")
            total[0] = identity(self.reduction, self.dtype)
            with T.serial(0, end - begin) as number:
                value = value_at(at, begin + number)
                total[0] = combination(self.reduction, total[0], value, self.dtype)
            sums[task] = total[0]
        return sums

    def _element(
        self,
        data: Any,
        out: Any,
        at: Scalar,
        count: Scalar,
        terms: Scalar,
        value_at: Callable[[Scalar], Scalar],
    ) -> None:
        """What lies at an element, if it has updates with these: ``terms`` of them, or of sums of several."""
        total = allocate(1, self.dtype, "local")
        total[0] = data[at]
        with T.If(count > 0), T.Then():
            if self.reduction not in REDUCTIONS:
                total[0] = value_at(count - 1)
            else:
                if not self.include_self:
                    total[0] = identity(self.reduction, self.dtype)
                with T.serial(0, terms) as number:
                    total[0] = combination(self.reduction, total[0], value_at(number), self.dtype)
        out[at] = total[0]


__all__ = ["GroupedUpdate", "Groups", "divisor", "grouped", "in_order", "order"]
