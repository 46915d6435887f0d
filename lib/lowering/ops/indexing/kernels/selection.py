"""Kernels that find the element of a rank in each line, by partitioning around pivots, in linear time.

Which of equal elements is at that rank depends for ``kthvalue`` on the swaps, so these are those of ATen's own quick
select. For medians the first comes first; only NaN are in no order, and a line of them has the one that
``std::nth_element`` of libstdc++ leaves there.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tvm
from tvm import te, tirx
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.ops.indexing.kernels.sort import by_lines, is_long, ranked_key
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import const

Scalar: TypeAlias = tvm.ir.Expr

LEFT, RIGHT, UP, DOWN, GOES_ON = range(5)


def kth(keys: te.Tensor, axis: int, rank: int) -> te.Tensor:
    """The position along ``axis`` (int64) where quick select has the key of a rank (from 0)."""

    def line(read: Any, write: Any, length: Any, dtype: str) -> None:
        _quick_select(_Line(read, length, dtype), write, const(rank), length)

    return by_lines(keys, axis, const(1), line, "kthvalue")


def median(keys: te.Tensor, axis: int, nan: int | None, ignores_nan: bool) -> te.Tensor:
    """The position along ``axis`` (int64) of the lower median; ``nan`` is the key of NaN, if there is one.

    These are passed over where ``ignores_nan``, and otherwise the first of them is the median.
    """

    def line(read: Any, write: Any, length: Any, dtype: str) -> None:
        middle = tirx.floordiv(length - 1, 2)
        find = _by_digits if is_long(length) else _by_partition
        if nan is None:
            find(read, write, length, dtype, middle)
            return
        cells = allocate(2, "int64", "local")
        count, place = range(2)
        cells[count], cells[place] = const(0), length
        with T.serial(0, length) as step:
            i = length - 1 - step
            with T.If(tirx.EQ(read(i), tirx.const(nan, dtype))), T.Then():
                cells[count], cells[place] = cells[count] + 1, i
        if ignores_nan:
            with T.If(cells[count] < length):
                with T.Then():
                    find(read, write, length, dtype, tirx.floordiv(length - 1 - cells[count], 2))
                with T.Else():
                    _nth_element(_Line(read, length, dtype, nan), write, const(0), length)
            return
        with T.If(tirx.EQ(cells[count], const(0))):
            with T.Then():
                find(read, write, length, dtype, middle)
            with T.Else():
                write(const(0), cells[place])

    return by_lines(keys, axis, const(1), line, "median")


def _by_partition(read: Any, write: Any, length: Any, dtype: str, rank: Scalar) -> None:
    _nth_element(_Line(read, length, dtype), write, rank, length)


def _by_digits(read: Any, write: Any, length: Any, dtype: str, rank: Scalar) -> None:
    """The key of a rank, and then the place of the one that is meant among equal ones."""
    ranked = ranked_key(read, length, dtype, rank, False)
    with T.serial(0, length) as i, T.If(tirx.EQ(ranked.key_of(i), ranked.key[0])), T.Then():
        with T.If(tirx.EQ(ranked.before[0], const(0))), T.Then():
            write(const(0), i)
        ranked.before[0] = ranked.before[0] - 1


def mode(keys: te.Tensor, axis: int, nan: int | None, order: te.Tensor) -> te.Tensor:
    """The position along ``axis`` (int64) of the most frequent key, the least of several, given their order.

    Of equal keys it is the last; NaN are not equal to each other.
    """

    def line(read: Any, write: Any, length: Any, dtype: str, place: Any) -> None:
        cells = allocate(3, "int64", "local")
        run, most, best = range(3)
        cells[run], cells[most], cells[best] = const(0), const(0), const(0)
        with T.serial(0, length) as i:
            here, after = read(place(i)), read(place(tirx.min(i + 1, length - 1)))
            ends = tirx.any(i >= length - 1, tirx.NE(here, after))
            if nan is not None:
                ends = tirx.any(ends, tirx.EQ(here, tirx.const(nan, dtype)))
            cells[run] = cells[run] + 1
            with T.If(ends), T.Then():
                with T.If(cells[run] > cells[most]), T.Then():
                    cells[most], cells[best] = cells[run], place(i)
                cells[run] = const(0)
        write(const(0), cells[best])

    return by_lines(keys, axis, const(1), line, "mode", order)


class _Line:
    """The keys of a line with their positions, in memory of their own, and the cells of the loops over them."""

    def __init__(self, read: Any, length: Any, dtype: str, unordered: int | None = None) -> None:
        self.unordered = None if unordered is None else tirx.const(unordered, dtype)
        self.keys, self.places = allocate(length, dtype), allocate(length, "int32")
        self.cells = allocate(5, "int64", "local")
        self.key, self.place = allocate(1, dtype, "local"), allocate(1, "int32", "local")
        self.pivot, self.pivot_place = allocate(1, dtype, "local"), allocate(1, "int32", "local")
        with T.serial(0, length) as i:
            self.keys[i] = read(i)
            self.places[i] = tirx.Cast("int32", i)

    def is_before(self, i: Scalar, j: Scalar) -> Scalar:
        """Whether element ``i`` comes before ``j``: by the key, then by the position."""
        return self._ordered(self.keys[i], self.places[i], self.keys[j], self.places[j])

    def is_before_pivot(self, i: Scalar) -> Scalar:
        return self._ordered(self.keys[i], self.places[i], self.pivot[0], self.pivot_place[0])

    def is_after_pivot(self, i: Scalar) -> Scalar:
        return self._ordered(self.pivot[0], self.pivot_place[0], self.keys[i], self.places[i])

    def _ordered(self, key: Scalar, place: Scalar, other: Scalar, its_place: Scalar) -> Scalar:
        tied = tirx.all(tirx.EQ(key, other), place < its_place)
        if self.unordered is not None:
            tied = tirx.all(tied, tirx.NE(key, self.unordered))
        return tirx.any(key < other, tied)

    def swap(self, i: Scalar, j: Scalar) -> None:
        self.key[0], self.place[0] = self.keys[i], self.places[i]
        self.keys[i], self.places[i] = self.keys[j], self.places[j]
        self.keys[j], self.places[j] = self.key[0], self.place[0]

    def swap_if(self, condition: Scalar, i: Scalar, j: Scalar) -> None:
        with T.If(condition), T.Then():
            self.swap(i, j)


def _quick_select(line: _Line, write: Any, rank: Scalar, length: Any) -> None:
    """ATen's ``quick_select_template``."""
    cells, keys = line.cells, line.keys
    left, right, up, down = (cells[n] for n in (LEFT, RIGHT, UP, DOWN))
    cells[LEFT], cells[RIGHT] = const(0), length - 1
    with T.While(right > left), T.If(tirx.EQ(right, left + 1)):
        with T.Then():
            line.swap_if(keys[left] > keys[right], left, right)
            cells[RIGHT] = left
        with T.Else():
            line.swap(left + tirx.floordiv(right - left, 2), left + 1)
            line.swap_if(keys[left + 1] > keys[right], left + 1, right)
            line.swap_if(keys[left] > keys[right], left, right)
            line.swap_if(keys[left + 1] > keys[left], left + 1, left)
            cells[UP], cells[DOWN], line.pivot[0] = left + 1, right, keys[left]
            cells[GOES_ON] = const(1)
            with T.While(cells[GOES_ON] > 0):
                cells[UP] = up + 1
                with T.While(line.pivot[0] > keys[up]):
                    cells[UP] = up + 1
                cells[DOWN] = down - 1
                with T.While(keys[down] > line.pivot[0]):
                    cells[DOWN] = down - 1
                with T.If(down < up):
                    with T.Then():
                        cells[GOES_ON] = const(0)
                    with T.Else():
                        line.swap(up, down)
            line.swap(left, down)
            with T.If(down <= rank), T.Then():
                cells[LEFT] = up
            with T.If(down >= rank), T.Then():
                cells[RIGHT] = down - 1
    write(const(0), line.places[rank])


def _nth_element(line: _Line, write: Any, rank: Scalar, length: Any) -> None:
    """``std::nth_element`` of libstdc++, but for its other algorithm where the pivots are bad again and again."""
    cells, is_before = line.cells, line.is_before
    first, last, up, down = (cells[n] for n in (LEFT, RIGHT, UP, DOWN))
    cells[LEFT], cells[RIGHT] = const(0), length
    with T.While(last - first > 3):
        _median_to_first(line, first, first + 1, first + tirx.floordiv(last - first, 2), last - 1)
        line.pivot[0], line.pivot_place[0] = line.keys[first], line.places[first]
        cells[UP], cells[DOWN], cells[GOES_ON] = first + 1, last, const(1)
        with T.While(cells[GOES_ON] > 0):
            with T.While(line.is_before_pivot(up)):
                cells[UP] = up + 1
            cells[DOWN] = down - 1
            with T.While(line.is_after_pivot(down)):
                cells[DOWN] = down - 1
            with T.If(up < down):
                with T.Then():
                    line.swap(up, down)
                    cells[UP] = up + 1
                with T.Else():
                    cells[GOES_ON] = const(0)
        with T.If(up <= rank):
            with T.Then():
                cells[LEFT] = up
            with T.Else():
                cells[RIGHT] = up
    for end in (1, 2):  # three elements at most are left
        with T.If(first + end < last), T.Then():
            for at in range(end, 0, -1):
                line.swap_if(is_before(first + at, first + at - 1), first + at, first + at - 1)
    write(const(0), line.places[rank])


def _median_to_first(line: _Line, result: Scalar, a: Scalar, b: Scalar, c: Scalar) -> None:
    """The median of three elements and the one at ``result`` change places."""
    is_before = line.is_before
    below = tirx.Select(is_before(b, c), b, tirx.Select(is_before(a, c), c, a))
    above = tirx.Select(is_before(a, c), a, tirx.Select(is_before(b, c), c, b))
    line.cells[UP] = tirx.Select(is_before(a, b), below, above)
    line.swap(result, line.cells[UP])


__all__ = ["kth", "median", "mode"]
