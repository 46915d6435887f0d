"""Sequences of known lengths: packing, recurrent layers over what is packed, and padding again.

Rows of packed data are those of the first time step, then of the second, and so on, each step without the sequences
that have ended. Time steps in a row with as many sequences are one call of a recurrent layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch

aten = torch.ops.aten
Call = Callable[..., Any]
"""Calls an overload: on tensors, or on what an importer has in their place."""


def batch_sizes_of(lengths: Sequence[int]) -> list[int]:
    """How many sequences each time step has; raises ``ValueError`` for lengths that eager refuses."""
    if not lengths or list(lengths) != sorted(lengths, reverse=True) or lengths[-1] <= 0:
        raise ValueError("lengths of packed sequences must fall and be greater than 0")
    return [sum(length > step for length in lengths) for step in range(lengths[0])]


def lengths_of(batch_sizes: Sequence[int]) -> list[int]:
    """The length of each sequence."""
    return [sum(size > each for size in batch_sizes) for each in range(batch_sizes[0])]


def packed_rows(lengths: Sequence[int], sizes: Sequence[int], batch_first: bool) -> list[int]:
    """For each row of packed data, its row among those of the padded tensor, whose first two ``sizes`` are these."""
    if len(lengths) != sizes[0 if batch_first else 1] or lengths[0] > sizes[1 if batch_first else 0]:
        raise ValueError("lengths of packed sequences do not fit the tensor")
    steps = enumerate(batch_sizes_of(lengths))
    place = lambda t, i: i * sizes[1] + t if batch_first else t * sizes[1] + i
    return [place(step, each) for step, count in steps for each in range(count)]


def padded_rows(batch_sizes: Sequence[int], batch_first: bool, total: int) -> list[int]:
    """For each row of the padded tensor, its row of packed data, or the number of those where it is padding."""
    starts = [sum(batch_sizes[:step]) for step in range(len(batch_sizes))]
    padding, steps = sum(batch_sizes), max(total, len(batch_sizes))
    if 0 < total < len(batch_sizes):
        raise ValueError("total_length is smaller than the longest sequence")

    def row(step: int, each: int) -> int:
        is_there = step < len(batch_sizes) and each < batch_sizes[step]
        return starts[step] + each if is_there else padding

    if batch_first:
        return [row(step, each) for each in range(batch_sizes[0]) for step in range(steps)]
    return [row(step, each) for step in range(steps) for each in range(batch_sizes[0])]


def padded_sizes(batch_sizes: Sequence[int], rows: int, batch_first: bool) -> list[int]:
    """The first two sizes of a padded tensor that has so many rows."""
    sizes = [batch_sizes[0], rows // batch_sizes[0]]
    return sizes if batch_first else sizes[::-1]


def pack(call: Call, x: Any, rows: Any) -> Any:
    """The packed data; ``rows`` is the tensor of :func:`packed_rows`."""
    return call(aten.index_select.default, call(aten.flatten.using_ints, x, 0, 1), 0, rows)


def pad(call: Call, data: Any, rows: Any, sizes: Sequence[int], value: Any, row_shape: Sequence[Any]) -> Any:
    """The padded tensor, whose first two sizes are ``sizes``; ``rows`` is the tensor of :func:`padded_rows`."""
    padding = call(aten.new_full.default, data, [1, *row_shape], value)
    filled = call(aten.index_select.default, call(aten.cat.default, [data, padding], 0), 0, rows)
    return call(aten.unflatten.int, filled, 0, list(sizes))


def recurrent(
    call: Call,
    overload: torch._ops.OpOverload,
    data: Any,
    batch_sizes: Sequence[int],
    states: Any,
    params: Sequence[Any],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[Any]:
    """A recurrent layer over packed data: its output, packed, and the last states.

    ``overload`` is that of whole sequences: ``aten::lstm.input`` and its kin. ``states`` is one tensor, or a list of
    two, each (layers · directions, B, H).
    """
    is_lstm = overload is aten.lstm.input
    given = list(states) if is_lstm else [states]
    directions = 2 if bidirectional else 1
    count = len(params) // (layers * directions)
    last: list[list[Any]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            first = [call(aten.slice.Tensor, state, 0, index, index + 1) for state in given]
            own = list(params[index * count : (index + 1) * count])
            output, final = _direction(call, overload, data, batch_sizes, first, own, has_biases, direction == 1)
            outputs.append(output)
            last.append(final)
        data = outputs[0] if directions == 1 else call(aten.cat.default, outputs, 1)
        if train and dropout and layer < layers - 1:
            data = call(aten.dropout.default, data, dropout, True)
    joined = [call(aten.cat.default, list(each), 0) for each in zip(*last, strict=True)]
    return [data, *joined]


def _direction(
    call: Call,
    overload: torch._ops.OpOverload,
    data: Any,
    batch_sizes: Sequence[int],
    initial: list[Any],
    params: list[Any],
    has_biases: bool,
    backwards: bool,
) -> tuple[Any, list[Any]]:
    """One layer in one direction; backwards, sequences join where they end, and forwards they leave."""
    runs, start = [], 0
    for size, steps in groupby(batch_sizes):
        length = len(list(steps))
        runs.append((start, length, size))
        start += length * size
    outputs: list[Any] = []
    ended: list[list[Any]] = []
    current: list[Any] = []
    held = 0
    for start, length, size in reversed(runs) if backwards else runs:
        rows = call(aten.slice.Tensor, data, 0, start, start + length * size)
        if held < size:
            joining = [call(aten.slice.Tensor, state, 1, held, size) for state in initial]
            pairs = zip(current, joining, strict=True) if held else ()
            current = [call(aten.cat.default, list(pair), 1) for pair in pairs] or joining
        elif held > size:
            ended.append([call(aten.slice.Tensor, state, 1, size, held) for state in current])
            current = [call(aten.slice.Tensor, state, 1, 0, size) for state in current]
        held = size
        steps = call(aten.unflatten.int, rows, 0, [length, size])
        steps = call(aten.flip.default, steps, [0]) if backwards else steps
        hidden = current if overload is aten.lstm.input else current[0]
        output, *current = call(overload, steps, hidden, params, has_biases, 1, 0.0, False, False, False)
        output = call(aten.flip.default, output, [0]) if backwards else output
        outputs.append(call(aten.flatten.using_ints, output, 0, 1))
    if backwards:
        outputs.reverse()
    parts = [current, *reversed(ended)]
    final = [call(aten.cat.default, list(each), 1) for each in zip(*parts, strict=True)]
    return call(aten.cat.default, outputs, 0), final


__all__ = [
    "batch_sizes_of",
    "lengths_of",
    "pack",
    "packed_rows",
    "pad",
    "padded_rows",
    "padded_sizes",
    "recurrent",
]
