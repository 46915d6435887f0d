"""The ops of PyTorch that compute what an in-place or ``out=`` op does, and write nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from torch_tvm.aten.calls import overloads_of
from torch_tvm.dialect.emitter import dialect_name
from torch_tvm.support.errors import ImportFailed

WITHOUT_SIBLING = frozenset(
    f"aten::{name}_" for name in ("copy", "detach", "fill_diagonal", "resize", "resize_as", "set")
)
"""In-place ops with no functional form, which the recorder spells out."""


@lru_cache(maxsize=4096)
def functional_sibling(overload: torch._ops.OpOverload) -> tuple[torch._ops.OpOverload, dict[str, str]]:
    """The op without mutation, and its name for each argument that it takes.

    ``add_.Tensor`` is ``add.Tensor``; ``add.out`` is ``add.Tensor`` without ``out``; ``dropout_(self, …)`` is
    ``dropout(input, …)``; ``__iand__`` is ``__and__``. Raises :class:`ImportFailed` for an op with no sibling.
    """
    schema = overload._schema
    given = [a for a in schema.arguments if not a.is_out]
    for candidate in _functional_candidates(schema, is_out=len(given) < len(schema.arguments)):
        if candidate._schema.is_mutable:
            continue
        names = _renamed(given, candidate._schema.arguments)
        if names is not None:
            return candidate, names
    raise ImportFailed(
        "this op changes its argument in place and has no functional form",
        subject=dialect_name(overload),
        advice="use the form that returns a new tensor",
    )


def _functional_candidates(schema: torch._C.FunctionSchema, *, is_out: bool) -> Iterator[torch._ops.OpOverload]:
    namespace, name = schema.name.split("::")
    base = name if is_out else name.removesuffix("_")
    operator = f"__{name.removeprefix('__i')}" if name.startswith("__i") else base
    for candidate in (base, f"{name}functional", f"{base}_functional", f"_{base}_functional", operator):
        yield from overloads_of(f"{namespace}::{candidate}")


def _renamed(given: Sequence[torch._C.Argument], wanted: Sequence[torch._C.Argument]) -> dict[str, str] | None:
    """The name of each given argument among those wanted: the same of the same type, or the one in its place."""
    types = {argument.name: str(argument.type) for argument in wanted}
    if {argument.name: str(argument.type) for argument in given} == types:
        return {name: name for name in types}
    if [str(argument.type) for argument in given] == list(types.values()):
        return {argument.name: name for argument, name in zip(given, types, strict=True)}
    return None


__all__ = ["WITHOUT_SIBLING", "functional_sibling"]
