"""The types of LSTM, GRU and RNN results, from their arguments: fake tensors would unroll the time."""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.registry import handles


@handles("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def recurrent(ev: Evaluator, args: list[Any]) -> Any:
    """``aten::lstm.input`` and its kin; the packed-sequence overloads take the general path."""
    overload = ev.overload
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
        raise ev.failure(
            f"expected an input and states of rank 3, got {[x.dim(), *(s.dim() for s in states)]}"
        )
    if any(state.dtype != x.dtype for state in states):
        raise ev.failure(
            "the input and the initial state differ in dtype", advice="cast one to the other's dtype"
        )
