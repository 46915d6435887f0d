"""Attributes of a module that its ``forward`` changes: what an importer that runs ``forward`` once must not miss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

Attributes = dict[tuple[str, str], Any]
_ABSENT = object()
_MAX_ITEMS = 1024


def of_module(module: torch.nn.Module) -> Attributes:
    """Attributes, parameters and buffers by path of the module and name; of lists and dicts a copy, so that changes
    show.
    """
    own = set(vars(torch.nn.Module()))
    return {
        (path, name): _copied(value)
        for path, each in module.named_modules()
        for table in (vars(each), each._parameters, each._buffers)
        for name, value in table.items()
        if name not in own and not isinstance(value, torch.nn.Module)
    }


def is_registered(module: torch.nn.Module, key: tuple[str, str]) -> bool:
    """Whether it is a parameter or a buffer."""
    owner = module.get_submodule(key[0])
    return key[1] in owner._parameters or key[1] in owner._buffers


def changes(before: Attributes, after: Attributes) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Attributes that differ between two snapshots of a module: value before and after. New ones are left out."""
    found = {}
    for key, value in after.items():
        earlier = before.get(key, _ABSENT)
        if earlier is not _ABSENT and not _is_same(earlier, value):
            found[key] = (earlier, value)
    return found


def assign(module: torch.nn.Module, values: Mapping[tuple[str, str], Any]) -> None:
    """Give attributes their values."""
    for (path, name), value in values.items():
        _table(module.get_submodule(path), name)[name] = _copied(value)


def forget_new(module: torch.nn.Module, before: Attributes) -> None:
    """Delete the attributes that were not there before."""
    for path, name in of_module(module):
        if (path, name) not in before:
            del _table(module.get_submodule(path), name)[name]


def _table(owner: torch.nn.Module, name: str) -> dict[str, Any]:
    tables: tuple[dict[str, Any], ...] = (owner._parameters, owner._buffers)
    return next((table for table in tables if name in table), vars(owner))


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in an attribute."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def with_zeros(value: Any) -> Any:
    """The value with real zeros for the tensors in it, which belong to a run that is over."""
    if isinstance(value, torch.Tensor):
        return torch.zeros([int(size) for size in value.shape], dtype=value.dtype)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(with_zeros(item) for item in value)
    if isinstance(value, dict):
        return {key: with_zeros(item) for key, item in value.items()}
    return value


def _copied(value: Any) -> Any:
    if type(value) is list and len(value) <= _MAX_ITEMS:
        return [_copied(item) for item in value]
    if type(value) is dict and len(value) <= _MAX_ITEMS:
        return {key: _copied(item) for key, item in value.items()}
    return value


def _is_same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_is_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_is_same(value, b[key]) for key, value in a.items())
    if isinstance(a, (bool, int, float, complex, str, bytes)):
        return bool(a == b) or (a != a and b != b)
    return a is b
