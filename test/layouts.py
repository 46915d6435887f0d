"""Tensors of the same numbers in other places: what a caller may hand over in place of a dense tensor."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


def _transposed(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() > 1 else x


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.dim() > 2 else x


def _stepped(x: torch.Tensor) -> torch.Tensor:
    if not x.dim():
        return x
    wide = torch.stack([x, torch.ones_like(x)], -1).flatten(-2)
    return wide[..., ::2]


def _stepped_rows(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.ones_like(x), x], 1).flatten(0, 1)[1::2] if x.dim() else x


def _offset(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x.new_ones(3), x.reshape(-1)])[3:].view(x.shape)


def _misaligned(x: torch.Tensor) -> torch.Tensor:
    """At an odd address."""
    if not x.numel():
        return x
    memory = bytearray(x.numel() * x.element_size() + 1)
    moved = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=1).view(x.shape)
    _reals(moved).copy_(_reals(x))
    return moved


def _reals(x: torch.Tensor) -> torch.Tensor:
    """``x``, or its view as reals: PyTorch's kernels of complex128 die at addresses that are no multiple of 16."""
    return torch.view_as_real(x) if x.is_complex() and not x.is_conj() else x


def _odd_strides_of_ones(x: torch.Tensor) -> torch.Tensor:
    strides = [7 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True)]
    return x.as_strided(x.shape, strides)


def _negative(x: torch.Tensor) -> torch.Tensor:
    return torch._neg_view(torch.neg(x)) if x.is_floating_point() or x.dtype == torch.int64 else x


def _conjugate(x: torch.Tensor) -> torch.Tensor:
    return x.conj().resolve_conj().conj() if x.is_complex() else x


def _expanded(x: torch.Tensor) -> torch.Tensor:
    """The first slice of the first axis longer than 1, over and over: other numbers than those of ``x``."""
    axis = next((axis for axis, size in enumerate(x.shape) if size > 1), None)
    return x if axis is None else x.narrow(axis, 0, 1).expand_as(x)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": _transposed,
    "channels_last": _channels_last,
    "stepped": _stepped,
    "stepped rows": _stepped_rows,
    "offset": _offset,
    "misaligned": _misaligned,
    "odd strides of ones": _odd_strides_of_ones,
    "negative": _negative,
    "conjugate": _conjugate,
    "expanded": _expanded,
}


def laid_out(args: Sequence[Any], layout: str) -> list[Any]:
    """The arguments with every tensor in one layout, where it can have that."""
    return pytree.tree_map_only(torch.Tensor, lambda x: LAYOUTS[layout](x.clone()), list(args))


def mixed(args: Sequence[Any], seed: int) -> list[Any]:
    """The arguments with each tensor in a layout by chance; their numbers stay."""
    chance = random.Random(seed)
    names = [name for name in LAYOUTS if name != "expanded"]
    return pytree.tree_map_only(torch.Tensor, lambda x: LAYOUTS[chance.choice(names)](x.clone()), list(args))


def dense(args: Sequence[Any]) -> list[Any]:
    """Dense tensors of the same numbers."""

    def copied(x: torch.Tensor) -> torch.Tensor:
        copy = torch.empty(x.shape, dtype=x.dtype)
        (copy if x.is_conj() else _reals(copy)).copy_(_reals(x))
        return copy

    return pytree.tree_map_only(torch.Tensor, copied, list(args))


def assert_same_for_any_layout(
    call: Callable[..., Any], args: Sequence[Any], layouts: Sequence[str] = tuple(LAYOUTS)
) -> None:
    """``call`` gives bit for bit what it gives for dense arguments, written arguments included."""
    for layout in layouts:
        _assert_same(call, laid_out(args, layout), layout)


def assert_same_for_mixed_layouts(
    call: Callable[..., Any], args: Sequence[Any], seed: int, *, slack: float = 0.0
) -> None:
    """As :func:`assert_same_for_any_layout`, for one mixture of layouts; ``slack`` is what numbers may differ by."""
    _assert_same(call, mixed(args, seed), f"mixed, seed {seed}", slack)


def _assert_same(call: Callable[..., Any], odd: Sequence[Any], what: str, slack: float = 0.0) -> None:
    plain = dense(odd)
    expected, ours = _outcome(call, plain), _outcome(call, odd)
    assert len(ours) == len(expected), what
    for index, (mine, theirs) in enumerate(zip([*ours, *odd], [*expected, *plain], strict=True)):
        if isinstance(theirs, torch.Tensor):
            where = f"{what}: result {index} of {len(ours)}"
            torch.testing.assert_close(*dense([mine, theirs]), rtol=slack, atol=slack, equal_nan=True, msg=where)
        else:
            assert mine == theirs or theirs != theirs, what


def _outcome(call: Callable[..., Any], args: Sequence[Any]) -> list[Any]:
    """The results of a call, or the type of its error."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            return pytree.tree_leaves(call(*args))
    except Exception as error:
        return [type(error)]
