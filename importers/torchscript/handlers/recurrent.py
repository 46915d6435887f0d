"""The types of LSTM, GRU and RNN results, from their arguments: fake tensors would unroll the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.aten import packed_sequences
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import KnownTensor


@handles("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def recurrent(ev: Evaluator, args: list[Any]) -> Any:
    """``aten::lstm.input`` and its kin, and their forms for packed sequences of known lengths."""
    overload = ev.overload
    if overload._overloadname == "data":
        return _over_packed(ev, overload, args)
    if overload._overloadname != "input" or not isinstance(args[0].meta, torch.Tensor):
        return tensors.call(ev, overload, args)
    is_lstm = overload._schema.name == "aten::lstm"
    states = [ref.meta for ref in (ev.items(args[1]) if is_lstm else [args[1]])]
    x, directions = args[0].meta, 2 if args[7] else 1
    _check(ev, x, states)
    sizes = [x.shape[0], x.shape[1], states[0].shape[-1] * directions]
    with ev.mode:
        metas = [torch.empty(list(meta.shape), dtype=x.dtype) for meta in states]
        output = torch.empty(sizes, dtype=x.dtype)
    return tensors.call(ev, overload, args, [output, *metas])


def _check(ev: Evaluator, x: torch.Tensor, states: list[torch.Tensor]) -> None:
    if x.dim() != 3 or any(state.dim() != 3 for state in states):
        raise ev.failure(f"expected an input and states of rank 3, got {[x.dim(), *(s.dim() for s in states)]}")
    if any(state.dtype != x.dtype for state in states):
        raise ev.failure("the input and the initial state differ in dtype", advice="cast one to the other's dtype")


# -- packed sequences ---------------------------------------------------------------------------------------


@handles("aten::_pack_padded_sequence")
def _pack(ev: Evaluator, args: list[Any]) -> Any:
    """``aten::_pack_padded_sequence(Tensor input, Tensor lengths, bool batch_first) -> (Tensor, Tensor)``"""
    x, lengths, batch_first = args
    numbers = _numbers(ev, lengths, "lengths")
    rows = _checked(ev, lambda: packed_sequences.packed_rows(numbers, x.meta.shape[:2], batch_first))
    sizes = packed_sequences.batch_sizes_of(numbers)
    return packed_sequences.pack(ev.recorder.run, x, _tensor(ev, rows)), _tensor(ev, sizes)


@handles("aten::_pad_packed_sequence")
def _pad(ev: Evaluator, args: list[Any]) -> Any:
    """``aten::_pad_packed_sequence(Tensor data, Tensor batch_sizes, bool batch_first, Scalar padding_value, …)``"""
    data, sizes, batch_first, value, total = args
    numbers = _numbers(ev, sizes, "batch_sizes")
    rows = _checked(ev, lambda: packed_sequences.padded_rows(numbers, batch_first, total))
    outer = packed_sequences.padded_sizes(numbers, len(rows), batch_first)
    row_shape = list(data.meta.shape[1:])
    padded = packed_sequences.pad(ev.recorder.run, data, _tensor(ev, rows), outer, value, row_shape)
    return padded, _tensor(ev, packed_sequences.lengths_of(numbers))


def _over_packed(ev: Evaluator, overload: torch._ops.OpOverload, args: list[Any]) -> Any:
    data, sizes, states, params, *rest = args
    whole = getattr(torch.ops.aten, overload._schema.name.split("::")[1]).input
    given = ev.items(states) if whole is torch.ops.aten.lstm.input else states
    numbers = _numbers(ev, sizes, "batch_sizes")
    return tuple(packed_sequences.recurrent(ev.recorder.run, whole, data, numbers, given, ev.items(params), *rest))


def _numbers(ev: Evaluator, tensor: Any, name: str) -> list[int]:
    """The elements of a tensor, which have to be known."""
    known = tensor.known if isinstance(tensor, KnownTensor) else None
    if known is None:
        raise ev.failure(
            f"packed sequences compile where their lengths are known, and '{name}' is computed",
            advice="make the lengths constants, or mask a padded sequence",
        )
    return [int(item) for item in known.tolist()]


def _checked(ev: Evaluator, rows: Callable[[], list[int]]) -> list[int]:
    try:
        return rows()
    except ValueError as error:
        raise ev.failure(str(error)) from None


def _tensor(ev: Evaluator, numbers: list[int]) -> Any:
    return tensors.known_tensor(ev, torch.tensor(numbers, dtype=torch.int64))
