"""Dicts of the program: evaluated at import, their keys known."""

from __future__ import annotations

from typing import Any

from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers.registry import handles
from torch_tvm.importers.torchscript.values import DictValue, ListValue, Scalar, origins


def _key(ev: Evaluator, key: Any) -> Any:
    if isinstance(key, (Scalar, TensorRef)):
        raise ev.failure("a dict key must be known at import", origin=origins(key))
    return key


def _lookup(ev: Evaluator, target: DictValue, key: Any) -> Any:
    key = _key(ev, key)
    if key not in target.entries:
        raise ev.certain(f"KeyError: {key!r}")
    return target.entries[key]


def dict_handler(ev: Evaluator, name: str, args: list[Any]) -> Any:
    """``aten::<name>`` on a dict."""
    target = args[0]
    if name in ("len", "keys", "values", "items", "copy"):
        return _dict_view(target, name)
    if name == "__getitem__":
        return _lookup(ev, target, args[1])
    if name == "__contains__":
        return _key(ev, args[1]) in target.entries
    if name == "get":
        return target.entries.get(_key(ev, args[1]), args[2] if len(args) > 2 else None)
    return _dict_change(ev, name, target, args)


def _dict_view(target: DictValue, name: str) -> Any:
    entries = target.entries
    if name == "len":
        return len(entries)
    if name == "copy":
        return DictValue(dict(entries), target.type)
    return ListValue(list(getattr(entries, name)()))


def _dict_change(ev: Evaluator, name: str, target: DictValue, args: list[Any]) -> Any:
    ev.touch(target)
    entries = target.entries
    if name == "_set_item":
        entries[_key(ev, args[1])] = args[2]
        return None
    if name == "setdefault":
        return entries.setdefault(_key(ev, args[1]), args[2])
    if name == "update":
        entries.update(args[1].entries)
        return None
    if name == "clear":
        entries.clear()
        return None
    if name == "popitem":
        return entries.popitem()
    if name in ("pop", "Delete"):
        if len(args) < 3 or name == "Delete":
            found = _lookup(ev, target, args[1])
            del entries[args[1]]
            return found if name == "pop" else None
        return entries.pop(_key(ev, args[1]), args[2])
    raise ev.failure(f"dict method '{name}' has no import")


@handles("aten::dict")
def _empty_dict(ev: Evaluator, args: list[Any]) -> DictValue:
    return DictValue({})


def _dict_of_pairs(ev: Evaluator, args: list[Any]) -> DictValue:
    return DictValue({_key(ev, key): item for key, item in ev.items(args[0])})


handles(*(f"aten::dict.{kind}" for kind in ("str", "int", "bool", "float", "complex", "Tensor")))(_dict_of_pairs)


@handles(*(f"aten::dict.Dict_{kind}" for kind in ("str", "int", "bool", "float", "complex", "Tensor")))
def _dict_of_dict(ev: Evaluator, args: list[Any]) -> DictValue:
    return DictValue(dict(args[0].entries), args[0].type)
