"""From what users call a target to a TVM target."""

from __future__ import annotations

from typing import Any

import tvm

from torch_tvm.backends import backend_named, backend_of
from torch_tvm.backends.backend import parse_target
from torch_tvm.quick_imports import register_devices
from torch_tvm.schedules.target import host_target
from torch_tvm.support.errors import InvalidInput


def resolve_target(target: Any) -> tvm.target.Target:
    """``"auto"`` is this host, a kind (``"llvm"``, ``"cuda"``, …) what it has of that; or a dict, a TVM target, its
    JSON.

    A dict of an LLVM target may describe the processor in the words of :class:`CpuModel` as well
    (``{"kind": "llvm", "mcpu": "znver4", "num-cores": 16, "l2": "1M"}``). Where it names this machine's processor, what
    it leaves out of caches and cores is that of this machine.

    Raises :class:`InvalidInput` for anything else, and for CUDA without a GPU and without an ``arch``.
    """
    if isinstance(target, str) and target.lstrip().startswith("{"):
        target = parse_target(target)
    if isinstance(target, tvm.target.Target):
        return backend_of(target).checked(target)
    if target == "auto":
        return host_target()
    options = target if isinstance(target, dict) else {"kind": target}
    kind = options.get("kind")
    backend = backend_named(kind) if isinstance(kind, str) else None
    if backend is not None:
        if backend.device != "cpu":
            register_devices()
        return backend.complete(options)
    if isinstance(target, dict):
        parsed = parse_target(target)
        return backend_of(parsed).complete(target)
    raise InvalidInput(
        f"unknown target {target!r}",
        subject="target",
        advice='use "auto", "llvm", "cuda", a dict like {"kind": "llvm", "mcpu": "znver4"} or a tvm Target',
    )


__all__ = ["resolve_target"]
