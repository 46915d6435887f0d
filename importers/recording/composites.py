"""Ops on lists of tensors as the ops on single tensors that PyTorch's own composite kernels make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.interface import Recording
from torch_tvm.importers.recording.storages import TensorRef

_KERNEL = "CompositeExplicitAutograd"


def is_of_lists(overload: torch._ops.OpOverload) -> bool:
    """Whether an op is one of ``_foreach_add`` and its kin, and PyTorch has a kernel that takes it apart."""
    name = overload._schema.name
    return name.startswith("aten::_foreach_") and torch._C._dispatch_has_kernel_for_dispatch_key(
        overload.name(), _KERNEL
    )


def parts_of(
    recorder: Recording, overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]
) -> list[Any] | None:
    """The results of an op on lists, after its parts were recorded; ``None``, and nothing recorded, for one that reads
    numbers of tensors or takes a number that only run time knows.
    """
    leaves = pytree.tree_leaves((list(args), kwargs))
    if any(isinstance(leaf, ir.Value) for leaf in leaves):
        return None
    fakes = {id(leaf): leaf.meta.detach() for leaf in leaves if isinstance(leaf, TensorRef)}
    known = {id(fakes[id(leaf)]): leaf for leaf in leaves if isinstance(leaf, TensorRef)}
    given = pytree.tree_map(lambda leaf: fakes.get(id(leaf), leaf), (list(args), dict(kwargs)))
    calls: list[_Call] = []
    try:
        with torch.no_grad(), _Calls(calls):
            results = overload._op_dk(getattr(torch._C.DispatchKey, _KERNEL), *given[0], **given[1])
    except Exception:  # a number of a tensor is asked for
        return None
    for call in calls:
        call.record(recorder, known)
    if not overload._schema.returns:
        return []
    return [pytree.tree_map(lambda leaf: known.get(id(leaf), leaf), results)]


class _Call:
    """A call of an op on fake tensors, and what it gave."""

    def __init__(self, overload: torch._ops.OpOverload, args: Any, kwargs: Any, results: Any) -> None:
        self.overload, self.args, self.kwargs, self.results = overload, args, kwargs, results

    def record(self, recorder: Recording, known: dict[int, TensorRef]) -> None:
        """Record the call on what stands for the fake tensors in ``known``, and add what stands for its results."""
        refs: Callable[[Any], Any] = lambda leaf: known.get(id(leaf), leaf)
        args, kwargs = pytree.tree_map(refs, (list(self.args), dict(self.kwargs)))
        is_single = len(self.overload._schema.returns) == 1
        metas = [self.results] if is_single else list(self.results or ())
        recorded = recorder.call(self.overload, args, kwargs, metas)
        for meta, ref in zip(pytree.tree_leaves(metas), pytree.tree_leaves(recorded), strict=True):
            if isinstance(meta, torch.Tensor):
                known[id(meta)] = ref


class _Calls(TorchDispatchMode):
    """Collects the calls of ops."""

    def __init__(self, calls: list[_Call]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.calls.append(_Call(func, args, kwargs or {}, results))
        return results


__all__ = ["is_of_lists", "parts_of"]
