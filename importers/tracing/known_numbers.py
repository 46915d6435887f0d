"""Constant propagation through small integer tensors, while a program in Python is traced.

Lengths of sequences are such tensors. With them, packed sequences are plain ones
(:mod:`torch_tvm.aten.packed_sequences`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from torch_tvm.aten import packed_sequences

aten = torch.ops.aten
_MOST = 1024
_MADE = (torch.tensor, torch.as_tensor)
_FILLED = (torch.zeros, torch.ones, torch.full)
_SIZED = (torch.zeros, torch.ones, torch.empty, torch.full, torch.randn, torch.rand)
_SAME = frozenset(
    (
        torch.as_tensor, Tensor.to, Tensor.cpu, Tensor.long, Tensor.int, Tensor.clone, Tensor.detach,
        torch.sort, Tensor.sort, torch.argsort, Tensor.argsort, torch.flip, Tensor.flip,
        torch.max, Tensor.max, torch.min, Tensor.min, torch.sum, Tensor.sum, torch.cumsum, Tensor.cumsum,
        Tensor.add, Tensor.sub, Tensor.mul, Tensor.__add__, Tensor.__sub__, Tensor.__mul__,
        Tensor.__getitem__, Tensor.index_select, Tensor.select, Tensor.unbind, Tensor.squeeze, Tensor.unsqueeze,
    )
)  # fmt: skip
_ASKED = (Tensor.tolist, Tensor.item, Tensor.__int__, Tensor.__index__, Tensor.__bool__)
_DATA = (Tensor.data.__get__, Tensor.data.__set__)
_DEVICE = Tensor.device.__get__
_RECURRENT = {
    torch._VF.lstm: aten.lstm.input,
    torch._VF.gru: aten.gru.input,
    torch._VF.rnn_tanh: aten.rnn_tanh.input,
    torch._VF.rnn_relu: aten.rnn_relu.input,
}


@contextmanager
def _outside() -> Iterator[None]:
    """A context in which calls compute at once: no mode that traces the program sees them."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


def _plain(overload: Callable[..., Any], *args: Any) -> Any:
    return overload(*args)


class NumbersKnown(TorchFunctionMode):
    """Follows the elements of small integer tensors that a program makes of numbers, and answers what it asks of them.

    A tensor that is written to, be it through a view, is known no more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, int, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):  # dynamo would trace what follows here
            return func(*args, **kwargs)
        handler = _HANDLERS.get(func)
        if handler is not None:
            found = handler(self, *args, **kwargs)
            if found is not NotImplemented:
                return found
        if not self._known and func not in _MADE and func not in _FILLED:
            return func(*args, **kwargs)
        if func in _SIZED:
            args = pytree.tree_map(self._as_number, args)
        if func == _DEVICE and self.value(args[0]) is not None:
            with torch._C.DisableTorchFunction():
                return args[0].device
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        values = [self.value(leaf) for leaf in leaves]
        is_known = all(value is not None for value in values)
        if func in _ASKED and leaves and is_known:
            with _outside():
                return func(values[0])
        result = func(*args, **kwargs)
        if self._is_lost(func, leaves):
            self._known.clear()
        elif is_known and (func in _MADE or (leaves and func in _SAME) or (func in _FILLED and _is_small(result))):
            self._follow(func, args, kwargs, result)
        return result

    def value(self, tensor: Any) -> Tensor | None:
        """The elements of a tensor, where they are known."""
        made, version, value = self._known.get(id(tensor), (None, 0, None))
        return None if made is None or _version(made) != version else value

    def _is_lost(self, func: Any, leaves: Sequence[Tensor]) -> bool:
        """Whether a call may write to a known tensor where its version does not tell: through ``.data``, or by an op of
        ``torch.ops`` or for lists.
        """
        if func in _DATA:
            return any(self.value(leaf) is not None for leaf in leaves)
        name = getattr(func, "__name__", "").partition(".")[0]
        is_op = isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
        is_write = name.endswith("_") and not name.endswith("__")
        return (is_op or name.startswith("_foreach")) and is_write and any(map(_is_whole, leaves))

    def numbers(self, tensor: Any) -> list[int] | None:
        """The elements of a one-dimensional tensor, or ``None``."""
        value = self.value(tensor)
        with _outside():
            return None if value is None or value.dim() != 1 else value.tolist()

    def made(self, numbers: Sequence[int]) -> Tensor:
        """A tensor of these numbers, known, and on the CPU, as sizes of batches have to be."""
        with torch._C.DisableTorchFunction():  # no other mode has it elsewhere
            result = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        with _outside():
            self._know(result, torch.tensor(numbers, dtype=torch.int64))
        return result

    def _know(self, tensor: Tensor, value: Tensor) -> None:
        if not tensor.is_inference():  # nobody counts what is written to it
            self._known[id(tensor)] = (tensor, _version(tensor), value)

    def _as_number(self, item: Any) -> Any:
        value = self.value(item)
        if value is None or value.dim():
            return item
        with _outside():
            return int(value)

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = pytree.tree_map(lambda leaf: self.value(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        named = {key: value for key, value in given[1].items() if key != "device"}
        try:
            with _outside():
                real = func(*given[0], **named)
        except Exception:  # a form of its own: it is not followed
            return
        for made, value in zip(pytree.tree_leaves(result), pytree.tree_leaves(real), strict=False):
            if isinstance(made, Tensor) and isinstance(value, Tensor) and _is_small(value):
                self._know(made, value)


def _is_small(value: Tensor) -> bool:
    """Whether these are a few whole numbers, a known count of them."""
    is_sized = all(isinstance(size, int) for size in value.shape)
    return is_sized and value.dtype in (torch.int64, torch.int32) and value.numel() <= _MOST


def _is_whole(tensor: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        return not tensor.dtype.is_floating_point


def _version(tensor: Tensor) -> int:
    """How often a tensor, or a view of its memory, was written to."""
    with torch._C.DisableTorchFunction():
        return tensor._version


def _pack(mode: NumbersKnown, x: Tensor, lengths: Tensor, batch_first: bool) -> Any:
    numbers = mode.numbers(lengths)
    if numbers is None:
        return NotImplemented
    rows = packed_sequences.packed_rows(numbers, [int(size) for size in x.shape[:2]], batch_first)
    data = packed_sequences.pack(_plain, x, torch.tensor(rows, device=x.device))
    return data, mode.made(packed_sequences.batch_sizes_of(numbers))


def _pad(mode: NumbersKnown, data: Tensor, sizes: Tensor, batch_first: bool, value: float, total: int) -> Any:
    numbers = mode.numbers(sizes)
    if numbers is None:
        return NotImplemented
    rows = torch.tensor(packed_sequences.padded_rows(numbers, batch_first, total), device=data.device)
    outer = packed_sequences.padded_sizes(numbers, len(rows), batch_first)
    padded = packed_sequences.pad(_plain, data, rows, outer, value, data.shape[1:])
    return padded, mode.made(packed_sequences.lengths_of(numbers))


def _over_packed(overload: torch._ops.OpOverload) -> Callable[..., Any]:
    def run(mode: NumbersKnown, data: Tensor, sizes: Any, *rest: Any) -> Any:
        numbers = mode.numbers(sizes) if len(rest) == 7 and isinstance(rest[1], (list, tuple)) else None
        if numbers is None:
            return NotImplemented
        return tuple(packed_sequences.recurrent(_plain, overload, data, numbers, *rest))

    return run


_HANDLERS: dict[Any, Callable[..., Any]] = {
    torch._VF._pack_padded_sequence: _pack,
    torch._VF._pad_packed_sequence: _pad,
    **{func: _over_packed(overload) for func, overload in _RECURRENT.items()},
}

__all__ = ["NumbersKnown"]
