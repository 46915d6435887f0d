"""The calling convention of a module: how a Python call becomes flat arguments, and flat results a value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.support.errors import InvalidInput


@dataclass
class Signature:
    """How a Python call becomes the arguments of ``@main`` and its results a Python value.

    The function takes the flattened user arguments, then the state tensors (attribute ``torch_tvm.state``
    names them). It returns the flattened user results, then new values for the arguments whose indices
    attribute ``torch_tvm.writes`` lists; the caller copies each into its argument.
    ``in_spec`` is the pytree of ``(args, kwargs)``, ``out_spec`` that of the result; ``None`` means flat.
    ``constants`` gives the flat positions of user arguments that were fixed at import (Python values) and
    are no function arguments; ``outputs`` gives per flat result either ``None`` (the next function result)
    or ``(value,)`` for a result that is a Python constant.
    """

    in_spec: pytree.TreeSpec | None = None
    out_spec: pytree.TreeSpec | None = None
    names: list[str] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    outputs: list[tuple[Any] | None] | None = None

    def flatten(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """The flat function arguments of a call, without state; :class:`InvalidInput` if it does not fit."""
        if self.in_spec is None:
            if kwargs:
                raise InvalidInput(f"unexpected keyword arguments: {', '.join(kwargs)}")
            leaves = list(args)
        else:
            leaves, spec = pytree.tree_flatten((tuple(args), self._in_order(kwargs)))
            if spec != self.in_spec:
                raise InvalidInput(
                    "the call does not have the nesting that was imported: "
                    f"expected {_shape_of(self.in_spec)}, got {_shape_of(spec)}",
                    advice="pass arguments nested as the example arguments were",
                )
        for index, value in self.constants.items():
            if index < len(leaves) and not _same(leaves[index], value):
                raise InvalidInput(
                    f"{self.name_of(index)} was fixed to {value!r} at import, got {leaves[index]!r}",
                    advice="import the program again with this value",
                )
        return [leaf for index, leaf in enumerate(leaves) if index not in self.constants]

    def name_of(self, index: int) -> str:
        """How error messages call the user argument at a flat position."""
        return f"argument '{self.names[index]}'" if index < len(self.names) else f"argument {index}"

    def _in_order(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert self.in_spec is not None
        wanted = pytree.tree_unflatten(list(range(self.in_spec.num_leaves)), self.in_spec)[1]
        return {key: kwargs[key] for key in wanted} if set(wanted) == set(kwargs) else kwargs

    def unflatten(self, results: Sequence[Any]) -> Any:
        """The Python value of a call, from the function's user results in order."""
        if self.outputs is not None:
            remaining = iter(results)
            results = [next(remaining) if output is None else output[0] for output in self.outputs]
        if self.out_spec is None:
            return results[0] if len(results) == 1 else tuple(results)
        return pytree.tree_unflatten(list(results), self.out_spec)

    # -- as text -----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """One line of JSON. A container type without a serialised name, or a constant that is no plain value,
        has no text form; then the field ``lost`` says why and what is left calls and returns flat values.
        """
        lost: list[str] = []
        outputs: list[list[Any] | None] | None = None
        if self.outputs is not None:
            outputs = [None if output is None else [_encode(output[0], lost)] for output in self.outputs]
        data: dict[str, Any] = {
            "in": _dump_spec(self.in_spec, lost),
            "out": _dump_spec(self.out_spec, lost),
            "names": self.names,
            "constants": {str(index): _encode(value, lost) for index, value in self.constants.items()},
            "outputs": outputs,
        }
        if lost:
            data = {"names": self.names, "lost": lost}
        return json.dumps(data, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Signature:
        """The inverse of :meth:`to_json`; :class:`InvalidInput` for anything else."""
        try:
            data = json.loads(text)
            outputs = data.get("outputs")
            return Signature(
                in_spec=_load_spec(data.get("in")),
                out_spec=_load_spec(data.get("out")),
                names=[str(name) for name in data.get("names", [])],
                constants={int(index): _decode(value) for index, value in data.get("constants", {}).items()},
                outputs=None if outputs is None else [None if o is None else (_decode(o[0]),) for o in outputs],
            )
        except Exception as error:  # json, pytree and torch each have their own for text that is none of theirs
            raise InvalidInput(
                f"the text of the calling convention is damaged: {error}",
                subject="torch_tvm.signature",
                advice="remove the attribute to call the module with flat arguments",
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]


def _shape_of(spec: pytree.TreeSpec) -> str:
    args, kwargs = pytree.tree_unflatten(["*"] * spec.num_leaves, spec)
    parts = [*map(str, args), *(f"{key}={value}" for key, value in kwargs.items())]
    return f"({', '.join(parts)})".replace("'*'", "*")


def _same(given: Any, fixed: Any) -> bool:
    if isinstance(given, torch.Tensor) or isinstance(fixed, torch.Tensor):
        return given is fixed
    both_nan = given != given and fixed != fixed
    return type(given) is type(fixed) and (bool(given == fixed) or both_nan)


def _dump_spec(spec: pytree.TreeSpec | None, lost: list[str]) -> Any:
    """Plain containers are written plainly, with 0 for a leaf; others as PyTorch serialises them."""
    if spec is None:
        return None
    try:
        return _plain(pytree.tree_unflatten([0] * spec.num_leaves, spec))
    except TypeError:
        pass
    try:
        return {"pytree": pytree.treespec_dumps(spec)}
    except NotImplementedError as error:
        lost.append(str(error))
        return None


def _plain(tree: Any) -> Any:
    if type(tree) is tuple:
        return {"tuple": [_plain(item) for item in tree]}
    if type(tree) is list:
        return [_plain(item) for item in tree]
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _plain(item) for key, item in tree.items()}}
    if type(tree) is int:
        return 0
    raise TypeError(f"{type(tree).__name__} is no plain container")


def _load_spec(data: Any) -> pytree.TreeSpec | None:
    if data is None:
        return None
    if isinstance(data, dict) and "pytree" in data:
        _check_registered(json.loads(data["pytree"])[1])
        return pytree.treespec_loads(data["pytree"])
    return pytree.tree_flatten(_tree(data))[1]


_FACTORIES = frozenset({"bool", "dict", "float", "int", "list", "set", "str", "tuple"})


def _check_registered(node: Any) -> None:
    """Refuse a text whose containers would make pytree import a module: enums as keys, factories of a defaultdict."""
    context = node["context"]
    decoded = json.loads(context) if isinstance(context, str) and context[:1] in "[{" else context
    factory = decoded.get("default_factory_module") if isinstance(decoded, dict) else None
    if factory is not None and (factory != "builtins" or decoded["default_factory_name"] not in _FACTORIES):
        raise ValueError(f"a container made by {factory}.{decoded['default_factory_name']}")
    if _has_enum(decoded):
        raise ValueError("a container with an enum for a key")
    for child in node["children_spec"]:
        _check_registered(child)


def _has_enum(value: Any) -> bool:
    if isinstance(value, dict):
        return "__enum__" in value or any(map(_has_enum, value.values()))
    return isinstance(value, list) and any(map(_has_enum, value))


def _tree(data: Any) -> Any:
    if isinstance(data, list):
        return [_tree(item) for item in data]
    if isinstance(data, dict):
        ((kind, items),) = data.items()
        if kind == "tuple":
            return tuple(_tree(item) for item in items)
        return {key: _tree(item) for key, item in items.items()}
    return 0


_NAMED = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def _encode(value: Any, lost: list[str]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for kind, python_type in _NAMED.items():
        if isinstance(value, python_type):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    lost.append(f"a constant of type {type(value).__name__} has no text form")
    return None


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    if kind == "device":
        return torch.device(text)
    if kind == "complex":
        return complex(*text)
    found = getattr(torch, text)
    if not isinstance(found, _NAMED[kind]):
        raise ValueError(f"'{text}' is no {kind}")
    return found
