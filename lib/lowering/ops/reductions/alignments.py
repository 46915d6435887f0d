"""The loss of all alignments of a sequence with shorter labels (connectionist temporal classification).

Graves et al., Connectionist temporal classification, 2006, in logarithms: a table of the likelihood of every prefix of
the labels, with a blank before, between and after them, at every time. One sequence of a batch after the other makes
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from torch_tvm.lowering.builder import Builder, is_tensor
from torch_tvm.lowering.ops.indexing.positions import checked
from torch_tvm.lowering.registry import Tensor, register
from torch_tvm.lowering.script import allocate
from torch_tvm.tir import SizeLike, as_size, const

Expr: TypeAlias = relax.Expr


def _lengths(b: Builder, lengths: Any, most: SizeLike) -> Expr:
    """Lengths as an int64 tensor; one above ``most`` is an error."""
    given = lengths if is_tensor(lengths) else relax.const(np.asarray(lengths, np.int64), "int64")
    return checked(b, given, most + 1)


def ctc_loss(
    b: Builder,
    scores: Tensor,
    labels: Tensor,
    times: Any,
    counts: Any,
    blank: int,
    zero_infinity: bool,
) -> list[Expr]:
    """aten::_ctc_loss(Tensor log_probs, Tensor targets, int[] input_lengths, int[] target_lengths, int blank=0,
    bool zero_infinity=False) -> (Tensor, Tensor); the other overload has tensors of lengths"""
    time, batch, classes = b.shape(scores)
    if b.dtype(scores) not in ("float32", "float64") or any(s == 0 for s in (time, batch, *b.shape(labels))):
        b.unsupported(f"a loss of {b.dtype(scores)}, or of nothing")
    if not isinstance(classes, int) or not 0 <= blank < classes:
        b.unsupported("a blank that is no class")
    longest = b.shape(labels)[-1]
    known = not is_tensor(counts)
    width = 2 * (max(counts) if known else longest) + 1
    times, counts = _lengths(b, times, time), _lengths(b, counts, longest)
    padded = b.rank(labels) > 1  # behind their labels, rows have what they want
    numbers = b.cast(labels, "int64") if padded else checked(b, labels, classes)

    def kernel(*given: Any) -> te.Tensor:
        *tensors, sizes = given
        shapes = [[as_size(batch)], [as_size(s) for s in sizes]]
        body = lambda ins, outs: _Alignments(ins, outs, blank, padded).body()
        kind = tensors[0].dtype
        return te.extern(shapes, tensors, body, dtype=[kind, kind], name="ctc_loss")

    table = relax.ShapeExpr([as_size(s) for s in (batch, time, width)])
    both = b.te(kernel, scores, numbers, times, counts, table, name="ctc_loss")
    return [b.emit(relax.TupleGetItem(both, index)) for index in range(2)]


class _Alignments:
    """The loops of the loss: ``loss[n]``, and ``table[n, t, s]``, the likelihood of prefix ``s`` after time ``t``."""

    def __init__(self, ins: Sequence[tirx.Buffer], outs: Sequence[tirx.Buffer], blank: int, padded: bool) -> None:
        self.scores, self.labels, self.times, self.counts = map(T.buffer_proxy, ins)
        self.loss, self.table = map(T.buffer_proxy, outs)
        self.batch, self.time, self.width = outs[1].shape
        self.classes, self.longest, self.dtype = ins[0].shape[2], ins[1].shape[-1], outs[0].dtype
        self.blank, self.padded = const(blank), padded
        self.none, self.zero = tirx.const(float("-inf"), self.dtype), tirx.const(0, self.dtype)

    def body(self) -> tirx.Stmt:
        """One sequence of the batch after the other."""
        with IRBuilder() as builder:
            with T.parallel(0, self.batch) as n:
                start = self._first_label(n)
                ends = _cell("int64", tirx.min(tirx.max(self.counts[n], const(0)) * 2 + 1, self.width))
                with T.serial(0, self.time) as t:
                    with T.serial(0, self.width) as s:
                        self._entry(n, t, s, start, ends)
                self._loss(n, ends)
            return builder.get()

    def _first_label(self, n: Any) -> Any:
        """Where the labels of a sequence start, which lie in a row of their own or one behind the other."""
        start = _cell("int64", n * self.longest if self.padded else const(0))
        if not self.padded:
            with T.serial(0, n) as m:
                start[0] = start[0] + self.counts[m]
        return start

    def _label(self, n: Any, start: Any, place: Any) -> Any:
        at = tirx.max(tirx.min(place, self.longest - 1), 0)
        number = self.labels[n, at] if self.padded else self.labels[tirx.min(start[0] + at, self.longest - 1)]
        return tirx.max(tirx.min(number, self.classes - 1), 0)

    def _entry(self, n: Any, t: Any, s: Any, start: Any, ends: Any) -> None:
        """One entry of the table; odd prefixes end with a label, even ones with a blank."""
        is_label = tirx.floormod(s, 2) == 1
        label = self._label(n, start, tirx.floordiv(s, 2))
        own = _cell("int64", tirx.Select(is_label, label, self.blank))
        here = self.scores[t, n, own[0]]
        with T.If(tirx.any(t >= self.times[n], s >= ends[0])):
            with T.Then():
                self.table[n, t, s] = self.none
            with T.Else():
                with T.If(t == 0):
                    with T.Then():
                        self.table[n, t, s] = tirx.Select(s < 2, here, self.none)
                    with T.Else():
                        before = self._label(n, start, tirx.floordiv(s, 2) - 1)
                        skips = tirx.all(is_label, s > 1, before != own[0])
                        ways = enumerate((s >= 0, s > 0, skips))
                        terms = [self._term(holds, n, t - 1, s - back) for back, holds in ways]
                        self.table[n, t, s] = self._joined(*terms) + here

    def _loss(self, n: Any, ends: Any) -> None:
        """From the last two prefixes at the last time."""
        last = _cell("int64", tirx.max(tirx.min(self.times[n], self.time) - 1, 0))
        ways = ((1, ends[0] > 0), (2, ends[0] > 1))
        terms = [self._term(holds, n, last[0], tirx.max(ends[0] - back, 0)) for back, holds in ways]
        value = _cell(self.dtype, self.zero - self._joined(*terms))
        nothing = tirx.Select(ends[0] == 1, self.zero, self.zero - self.none)
        self.loss[n] = tirx.Select(self.times[n] == 0, nothing, value[0])

    def _term(self, holds: Any, *place: Any) -> Any:
        return _cell(self.dtype, tirx.if_then_else(holds, self.table[place], self.none))[0]

    def _joined(self, *terms: Any) -> Any:
        """``log(exp(…) + …)`` of what lies in cells."""
        top = terms[0]
        for term in terms[1:]:
            top = tirx.max(top, term)
        cell = _cell(self.dtype, tirx.Select(top == self.none, self.zero, top))
        total = tirx.exp(terms[0] - cell[0])
        for term in terms[1:]:
            total = total + tirx.exp(term - cell[0])
        return tirx.log(total) + cell[0]


def _cell(dtype: str, value: Any) -> Any:
    """One number in memory, with a value."""
    cell = allocate(1, dtype, "local")
    cell[0] = value
    return cell


for _overload in ("", ".Tensor"):
    register(f"torch.aten._ctc_loss{_overload}", ctc_loss, custom=True)
