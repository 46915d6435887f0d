"""The loss of all alignments of a sequence with shorter labels (connectionist temporal classification).

Graves et al., Connectionist temporal classification, 2006, in logarithms: a table of the likelihood of every prefix of the
labels, with a blank before, between and after them, at every time. One sequence of a batch after the other makes its own.
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
        body = lambda ins, outs: _body(ins, outs, blank, padded)
        kind = tensors[0].dtype
        return te.extern(shapes, tensors, body, dtype=[kind, kind], name="ctc_loss")

    table = relax.ShapeExpr([as_size(s) for s in (batch, time, width)])
    both = b.te(kernel, scores, numbers, times, counts, table, name="ctc_loss")
    return [b.emit(relax.TupleGetItem(both, index)) for index in range(2)]


def _body(ins: Sequence[tirx.Buffer], outs: Sequence[tirx.Buffer], blank: int, padded: bool) -> tirx.Stmt:
    scores, labels, times, counts = (T.buffer_proxy(buffer) for buffer in ins)
    loss, table = (T.buffer_proxy(buffer) for buffer in outs)
    batch, time, width = outs[1].shape
    classes, longest, dtype = ins[0].shape[2], ins[1].shape[-1], outs[0].dtype
    none, zero = tirx.const(float("-inf"), dtype), tirx.const(0, dtype)

    def joined(*terms: Any) -> Any:
        """``log(exp(…) + …)`` of what lies in cells."""
        top = terms[0]
        for term in terms[1:]:
            top = tirx.max(top, term)
        cell = _cell(dtype, tirx.Select(top == none, zero, top))
        total = tirx.exp(terms[0] - cell[0])
        for term in terms[1:]:
            total = total + tirx.exp(term - cell[0])
        return tirx.log(total) + cell[0]

    with IRBuilder() as builder:
        with T.parallel(0, batch) as n:
            start = _cell("int64", n * longest if padded else const(0))
            if not padded:
                with T.serial(0, n) as m:
                    start[0] = start[0] + counts[m]
            ends = _cell("int64", tirx.min(tirx.max(counts[n], const(0)) * 2 + 1, width))

            def label(place: Any) -> Any:
                at = tirx.max(tirx.min(place, longest - 1), 0)
                number = labels[n, at] if padded else labels[tirx.min(start[0] + at, longest - 1)]
                return tirx.max(tirx.min(number, classes - 1), 0)

            with T.serial(0, time) as t:
                with T.serial(0, width) as s:
                    is_label = tirx.floormod(s, 2) == 1
                    own = _cell("int64", tirx.Select(is_label, label(tirx.floordiv(s, 2)), const(blank)))
                    here = scores[t, n, own[0]]
                    with T.If(tirx.any(t >= times[n], s >= ends[0])):
                        with T.Then():
                            table[n, t, s] = none
                        with T.Else():
                            with T.If(t == 0):
                                with T.Then():
                                    table[n, t, s] = tirx.Select(s < 2, here, none)
                                with T.Else():
                                    skips = tirx.all(
                                        is_label, s > 1, label(tirx.floordiv(s, 2) - 1) != own[0]
                                    )
                                    terms = [
                                        _cell(
                                            dtype, tirx.if_then_else(holds, table[n, t - 1, s - back], none)
                                        )[0]
                                        for back, holds in enumerate((s >= 0, s > 0, skips))
                                    ]
                                    table[n, t, s] = joined(*terms) + here
            last = _cell("int64", tirx.max(tirx.min(times[n], time) - 1, 0))
            terms = [
                _cell(dtype, tirx.if_then_else(holds, table[n, last[0], tirx.max(ends[0] - back, 0)], none))[
                    0
                ]
                for back, holds in ((1, ends[0] > 0), (2, ends[0] > 1))
            ]
            value = _cell(dtype, zero - joined(*terms))
            nothing = tirx.Select(ends[0] == 1, zero, zero - none)
            loss[n] = tirx.Select(times[n] == 0, nothing, value[0])
        return builder.get()


def _cell(dtype: str, value: Any) -> Any:
    """One number in memory, with a value."""
    cell = T.buffer_proxy(T.alloc_buffer((1,), dtype, scope="local"))
    cell[0] = value
    return cell


for _overload in ("", ".Tensor"):
    register(f"torch.aten._ctc_loss{_overload}", ctc_loss, custom=True)
