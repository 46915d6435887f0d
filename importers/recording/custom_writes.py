"""Ops of a user's library that write their arguments: they are recorded in a form that gives new values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.aten.functional_forms import functional_form, returned_arguments, written_arguments
from torch_tvm.importers.recording.interface import Recording
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.support.errors import ImportFailed


def is_custom(overload: torch._ops.OpOverload) -> bool:
    """Whether the op is none of PyTorch's."""
    return overload.namespace not in ("aten", "prim", "prims", "quantized", "inductor", "_c10d_functional")


def record_custom_write(r: Recording, overload: torch._ops.OpOverload, bound: dict[str, Any]) -> list[Any]:
    """Call the op's value form on the arguments ``bound``, and write what it gives; the op's results."""
    targets = [ref for name in written_arguments(overload) for ref in _tensors(bound.get(name))]
    _refuse_shared(overload, targets, _tensors(list(bound.values())))
    form = functional_form(overload)
    keywords = {a.name for a in form._schema.arguments if a.kwarg_only}
    given = [bound[a.name] for a in form._schema.arguments if a.name not in keywords]
    values = r.run(form, *given, **{name: bound[name] for name in keywords})
    fresh = values[: len(values) - len(targets)]
    for target, value in zip(targets, values[len(fresh) :], strict=True):
        r.write(target, r.read(value))
    left = iter(fresh)
    of = returned_arguments(overload)
    is_list = [str(result.type) != "Tensor" for result in overload._schema.returns]
    if any(is_list) and len([name for name in of if name is None]) == 1:
        return [fresh if name is None else bound[name] for name in of]
    return [next(left) if name is None else bound[name] for name in of]


def _tensors(item: Any) -> list[TensorRef]:
    return [leaf for leaf in pytree.tree_leaves(item) if isinstance(leaf, TensorRef)]


def _refuse_shared(overload: torch._ops.OpOverload, written: Sequence[TensorRef], given: Sequence[TensorRef]) -> None:
    """An op that writes memory which it also reads as another argument sees its own writes there, copies do not."""
    for target in written:
        if sum(each.place.storage is target.place.storage for each in given) > 1:
            raise ImportFailed(
                "the op writes memory that two of its arguments share",
                subject=overload._schema.name.replace("::", "."),
                advice="pass a clone of one",
            )


__all__ = ["is_custom", "record_custom_write"]
