"""Compiled code and the tools that record what a program does: they do not see into it.

A call under ``make_fx``, ``torch.jit.trace`` or ``torch.export`` would leave its result in the graph as a constant. A
call refuses them; ``torch.compile`` is told to leave a compiled module out of its graphs, which it can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from torch_tvm.support.errors import InvalidInput

TRACED = "dispatch_modes() or is_included(pre_dispatch) or tracing_state() is not None"
"""Source of the test whether something may record the call, over :func:`traced_names`."""

_KEYS = torch._C._TorchDispatchModeKey
_RECORDERS = {
    _KEYS.PROXY: "make_fx or torch.export",
    _KEYS.FAKE: "FakeTensorMode",
    _KEYS.FUNCTIONAL: "AOTAutograd",
}


def traced_names() -> dict[str, Any]:
    """What the source of ``TRACED`` refers to."""
    return {
        "dispatch_modes": torch._C._len_torch_dispatch_stack,
        "forward_ad": forward_ad,
        "is_included": torch._C._dispatch_tls_is_dispatch_key_included,
        "pre_dispatch": torch._C.DispatchKey.PreDispatch,
        "tracing_state": torch._C._get_tracing_state,
    }


def refuse_recording() -> None:
    """Raise :class:`InvalidInput` where the call would end in a graph as a constant.

    Other modes of dispatch, such as ``FlopCounterMode``, see nothing of the call and may be on.
    """
    recorder = _recorder()
    if recorder:
        raise InvalidInput(
            f"compiled code is called under {recorder}, which cannot record it",
            subject="call",
            advice="trace the original program; compile what comes of that with torch_tvm.compile",
        )


def is_recorded() -> bool:
    """Whether something records what the thread does, in Python or below it."""
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return bool(_recorder()) or modes > 0 or forward_ad._current_level >= 0


def _recorder() -> str:
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace"
    if torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PreDispatch):
        return _RECORDERS[_KEYS.PROXY]
    return next((name for key, name in _RECORDERS.items() if torch._C._get_dispatch_mode(key) is not None), "")


def hide_from_dynamo(function: Callable[..., Any]) -> None:
    """``torch.compile`` breaks its graph at the function and runs it, and what it calls, as it is."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = "it is compiled by torch_tvm"  # type: ignore[attr-defined]
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))


__all__ = ["TRACED", "hide_from_dynamo", "is_recorded", "refuse_recording", "traced_names"]
