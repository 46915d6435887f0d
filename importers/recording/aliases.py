"""Aliasing of results with arguments of an op: what its schema says, and what it does not say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_tvm.importers.recording.storages import TensorRef

Path = tuple[int, ...]

# Ops that give a view, or a copy where strides or dtypes ask for one: the fake result tells.
_MAYBE_VIEWS = {
    f"aten::{name}"
    for name in (
        "_autocast_to_reduced_precision",
        "_reshape_alias",
        "contiguous",
        "flatten",
        "ravel",
        "reshape",
        "reshape_as",
        "resolve_conj",
        "resolve_neg",
        "to",
        "unflatten",
    )
}
# Outside training these return their argument; PyTorch's decomposition, which fake tensors see, copies it.
_DROPOUTS = {f"aten::{name}" for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")}
# Ops that give their very argument back where there is nothing to do: what is done to the object is done to both.
_RETURN_ARGUMENT = _DROPOUTS | {
    f"aten::{name}"
    for name in (
        "_autocast_to_full_precision",
        "_autocast_to_reduced_precision",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "broadcast_tensors",
        "conj",
        "contiguous",
        "flatten",
        "positive",
        "real",
        "resolve_conj",
        "resolve_neg",
        "to",
        "type_as",
    )
}


def is_argument(overload: torch._ops.OpOverload, argument: torch.Tensor, meta: torch.Tensor) -> bool:
    """Whether a result, like ``meta``, that shares the memory of ``argument`` is that object itself."""
    if overload._schema.name not in _RETURN_ARGUMENT or argument.dim() != meta.dim():
        return False
    # real() and conj() of complex numbers show others in the same memory
    if argument.dtype != meta.dtype or argument.is_conj() != meta.is_conj():
        return False
    pairs = zip(argument.shape, meta.shape, strict=True)
    return all(bool(statically_known_true(a == b)) for a, b in pairs)


def aliased(overload: torch._ops.OpOverload, args: Sequence[Any], meta: torch.Tensor, path: Path) -> Path | None:
    """The way to the tensor in ``args`` that the result at ``path``, like ``meta``, is a view of, if any."""
    schema = overload._schema
    first = isinstance(args[0], TensorRef) if args else False
    if first and schema.name in _DROPOUTS and (args[1] == 0 or args[2] is False):
        return (0,)
    if first and is_always_alias(schema, path[0]):
        return (0,)
    if schema.name.endswith("_copy"):  # the fake copy of a constant may lie in the constant's memory
        return None
    sharing = [place for place, ref in _tensors(args) if shares_memory(ref.meta, meta)]
    same = [place for place in sharing if place[1:] == path[1:]]
    return next(iter(same or sharing), None)


def is_always_alias(schema: torch._C.FunctionSchema, result: int = 0) -> bool:
    """Whether the result is in the memory of the first argument, whatever strides and dtypes are."""
    annotated = bool(schema.returns) and schema.returns[result].alias_info is not None
    return annotated and schema.name not in _MAYBE_VIEWS


def _tensors(args: Sequence[Any]) -> Iterator[tuple[Path, TensorRef]]:
    for index, item in enumerate(args):
        if isinstance(item, TensorRef):
            yield (index,), item
        elif isinstance(item, (list, tuple)):
            yield from (((index, i), each) for i, each in enumerate(item) if isinstance(each, TensorRef))


def shares_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two fake tensors of one run lie in the same memory."""
    try:
        return a.untyped_storage()._cdata == b.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse
        return False


def at(args: Sequence[Any], path: Path) -> TensorRef:
    """The tensor that :func:`aliased` found."""
    found: Any = args
    for index in path:
        found = found[index]
    assert isinstance(found, TensorRef)
    return found
