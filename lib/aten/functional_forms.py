"""Functional forms of users' ops that write their arguments; PyTorch's own ops come with theirs."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree

SUFFIX = "_values"
"""What the name of such a form ends with: ``ns::scale_`` has ``ns::scale__values``."""

_libraries: dict[str, torch.library.Library] = {}


@cache
def functional_form(overload: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """The op ``ns::name_values`` of the same arguments: a list of the op's results that are no arguments of it, and
    then of what the op would leave in those that it writes (lists one by one, ``None`` left out).

    It copies those, and calls the op.
    """
    namespace, name = overload._schema.name.split("::")
    library = _libraries.setdefault(namespace, torch.library.Library(namespace, "FRAGMENT"))
    arguments = re.sub(r"Tensor\([^)]*\)", "Tensor", str(overload._schema).partition("(")[2].rpartition(" -> ")[0])
    own = overload._overloadname if overload._overloadname != "default" else ""
    library.define(f"{name}{SUFFIX}{own and '.' + own}({arguments} -> Tensor[]")

    def values(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
        names = [argument.name for argument in overload._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        written = {name: dense_copy(given.get(name)) for name in written_arguments(overload)}
        results = overload(**_named(overload, {**given, **written}))
        results = results if isinstance(results, tuple) else (results,)
        fresh = [r for r, of in zip(results, returned_arguments(overload), strict=False) if of is None]
        found = pytree.tree_leaves([fresh, list(written.values())])
        return [each for each in found if each is not None]

    library.impl(f"{name}{SUFFIX}{own and '.' + own}", values, "CompositeExplicitAutograd")
    packet = getattr(getattr(torch.ops, namespace), name + SUFFIX)
    form: torch._ops.OpOverload = getattr(packet, overload._overloadname)
    return form


def written_arguments(overload: torch._ops.OpOverload) -> list[str]:
    """Names of the arguments that the op writes, in order."""
    arguments = overload._schema.arguments
    return [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]


def returned_arguments(overload: torch._ops.OpOverload) -> list[str | None]:
    """For each result, the argument that it is."""
    sets = {
        label: argument.name
        for argument in overload._schema.arguments
        if argument.alias_info is not None
        for label in argument.alias_info.before_set
    }
    infos = [result.alias_info for result in overload._schema.returns]
    return [next((sets.get(label) for label in info.before_set), None) if info else None for info in infos]


def dense_copy(item: Any) -> Any:
    """A contiguous copy of a tensor, or of each in a list; anything else as it is."""
    if isinstance(item, (list, tuple)):
        return [dense_copy(each) for each in item]
    return item.clone(memory_format=torch.contiguous_format) if isinstance(item, torch.Tensor) else item


def _named(overload: torch._ops.OpOverload, given: dict[str, Any]) -> dict[str, Any]:
    return {argument.name: given[argument.name] for argument in overload._schema.arguments if argument.name in given}


__all__ = ["SUFFIX", "dense_copy", "functional_form", "returned_arguments", "written_arguments"]
