"""The calling convention of a program and the values in it as JSON, and back.

What JSON has no form for is a dict of one key: ``{"float": "nan"}``, ``{"dtype": "float32"}``, ``{"tuple": [...]}``.
Classes are named, never made: a reader finds those that the process has imported already, and imports none.
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import SCALAR_DTYPE, dtype_name
from torch_tvm.runtime.calls.convention import OPERATIONS, Argument, Convention, Requirement, Size, SizeExpression
from torch_tvm.support.errors import InvalidInput

# -- values ------------------------------------------------------------------------------------------------


def encode_value(value: Any) -> Any:
    """A Python value that a program has fixed; raises :class:`InvalidInput` for one that has no text."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is complex:
        return {"complex": [encode_value(value.real), encode_value(value.imag)]}
    if type(value) in _SEQUENCES:
        return {_SEQUENCES[type(value)]: [encode_value(item) for item in value]}
    if type(value) is dict:
        return {"dict": [[encode_value(key), encode_value(item)] for key, item in value.items()]}
    for kind, name in _NAMED.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if isinstance(value, type):
        return {"class": _class_name(value)}
    raise InvalidInput(
        f"the program returns or takes a fixed value of type {type(value).__name__}, which a file cannot hold",
        subject="save",
        advice="give and return tensors, numbers, texts and containers of them",
    )


_SEQUENCES: dict[type, str] = {list: "list", tuple: "tuple", torch.Size: "size"}
_NAMED: dict[type, str] = {
    torch.dtype: "dtype",
    torch.device: "device",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}


def decode_value(encoded: Any) -> Any:
    """The value that :func:`encode_value` was given."""
    if not isinstance(encoded, dict):
        return encoded
    ((kind, content),) = encoded.items()
    return _DECODERS[kind](content)


def _torch_constant(kind: type) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        found = getattr(torch, name)
        if not isinstance(found, kind):
            raise ValueError(f"torch.{name} is no {kind.__name__}")
        return found

    return find


_dtype = _torch_constant(torch.dtype)

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": lambda text: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text],
    "complex": lambda parts: complex(*map(decode_value, parts)),
    "list": lambda items: [decode_value(item) for item in items],
    "tuple": lambda items: tuple(decode_value(item) for item in items),
    "size": lambda items: torch.Size(items),
    "dict": lambda items: {decode_value(key): decode_value(item) for key, item in items},
    "dtype": _dtype,
    "device": lambda text: torch.device(text),
    "layout": _torch_constant(torch.layout),
    "memory_format": _torch_constant(torch.memory_format),
    "class": lambda name: _class(name),
}


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> type:
    """A class that the process has imported."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise InvalidInput(
            f"the program takes or returns a {path} of '{module}', which is not imported",
            subject="load",
            advice=f"import {module} before the file is loaded",
        )
    return found


# -- nesting -----------------------------------------------------------------------------------------------


def encode_tree(spec: pytree.TreeSpec | None) -> Any:
    """A nesting of containers; a leaf is ``null``, no nesting is ``"flat"``."""
    return "flat" if spec is None else _encode_node(spec)


def _encode_node(spec: pytree.TreeSpec) -> Any:
    if spec.is_leaf():
        return None
    kind, context = spec.type, spec.context
    children = [_encode_node(child) for child in spec.children()]
    if kind is collections.namedtuple:
        return {"named": _class_name(context), "fields": list(context._fields), "of": children}
    name = _PLAIN_NODES.get(kind) or _class_name(kind)
    return {"node": name, "context": encode_value(context), "of": children}


_PLAIN_NODES: dict[type, str] = {
    tuple: "tuple",
    list: "list",
    dict: "dict",
    collections.OrderedDict: "OrderedDict",
}


def decode_tree(encoded: Any) -> pytree.TreeSpec | None:
    """The nesting that :func:`encode_tree` was given; a named tuple whose class is not imported becomes another."""
    return None if encoded == "flat" else _decode_node(encoded)


def _decode_node(encoded: Any) -> pytree.TreeSpec:
    if encoded is None:
        return pytree.tree_structure(0)
    children = [_decode_node(child) for child in encoded["of"]]
    if "named" in encoded:
        return pytree.TreeSpec(collections.namedtuple, _named_tuple(encoded["named"], encoded["fields"]), children)
    plain = {name: kind for kind, name in _PLAIN_NODES.items()}
    kind = plain.get(encoded["node"]) or _class(encoded["node"])
    if kind not in pytree.SUPPORTED_NODES:
        raise InvalidInput(f"torch knows no container {kind.__name__}", subject="load")
    return pytree.TreeSpec(kind, decode_value(encoded["context"]), children)


def _named_tuple(name: str, fields: Sequence[str]) -> Any:
    try:
        found: Any = _class(name)
    except InvalidInput:
        found = None
    if found is not None and issubclass(found, tuple) and list(getattr(found, "_fields", ())) == list(fields):
        return found
    module, _, path = name.partition(":")
    return collections.namedtuple(path.rpartition(".")[2], fields, module=module)


# -- the convention ------------------------------------------------------------------------------------------


def encode_convention(convention: Convention) -> dict[str, Any]:
    """A calling convention as JSON."""
    return {
        "arguments": [
            {
                "name": argument.name,
                "kind": argument.kind,
                "dtype": dtype_name(argument.dtype),
                "sizes": [_encode_size(size) for size in argument.sizes],
            }
            for argument in convention.arguments
        ],
        "results": [{"number": kind} if isinstance(kind, str) else dtype_name(kind) for kind in convention.results],
        "in_spec": encode_tree(convention.in_spec),
        "out_spec": encode_tree(convention.out_spec),
        "state": convention.state,
        "writes": convention.writes,
        "constants": [
            {
                "position": position,
                "value": encode_value(value),
                "name": convention.constant_names.get(position),
            }
            for position, value in convention.constants.items()
        ],
        "outputs": None
        if convention.outputs is None
        else [None if output is None else [encode_value(output[0])] for output in convention.outputs],
        "layout": convention.layout,
        **encode_demands(convention),
    }


def encode_demands(convention: Convention) -> dict[str, Any]:
    """What a convention asks of the sizes of a call, as JSON."""
    return {
        "ranges": {name: list(bounds) for name, bounds in convention.ranges.items()},
        "requirements": [
            {"condition": _encode_size(item.condition), "message": item.message} for item in convention.requirements
        ],
    }


def decode_demands(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a convention that :func:`encode_demands` was given."""
    return {
        "ranges": {str(name): (int(low), int(high)) for name, (low, high) in encoded["ranges"].items()},
        "requirements": [
            Requirement(_decode_size(item["condition"]), str(item["message"])) for item in encoded["requirements"]
        ],
    }


def decode_convention(encoded: Mapping[str, Any]) -> Convention:
    """The convention that :func:`encode_convention` was given.

    Raises some error for a text that is none: callers take any for a damaged file.
    """
    constants = encoded["constants"]
    return Convention(
        arguments=[_decode_argument(argument) for argument in encoded["arguments"]],
        results=[
            _number_kind(kind["number"]) if isinstance(kind, dict) else _dtype(kind) for kind in encoded["results"]
        ],
        in_spec=decode_tree(encoded["in_spec"]),
        out_spec=decode_tree(encoded["out_spec"]),
        state=_texts(encoded["state"]),
        writes=_integers(encoded["writes"]),
        constants={int(item["position"]): decode_value(item["value"]) for item in constants},
        constant_names={int(item["position"]): str(item["name"]) for item in constants if item["name"] is not None},
        outputs=None
        if encoded["outputs"] is None
        else [None if output is None else (decode_value(output[0]),) for output in encoded["outputs"]],
        layout={"": "", "dense": "dense", "whole": "whole"}[encoded["layout"]],
        **decode_demands(encoded),
    )


def _decode_argument(encoded: Mapping[str, Any]) -> Argument:
    kind = encoded["kind"]
    if kind != "tensor":
        _number_kind(kind)
    sizes = tuple(_decode_size(size) for size in encoded["sizes"])
    return Argument(str(encoded["name"]), kind, _dtype(encoded["dtype"]), sizes)


def _number_kind(kind: Any) -> str:
    if kind not in SCALAR_DTYPE:
        raise ValueError(f"'{kind}' is no kind of number")
    return str(kind)


def _texts(items: Sequence[Any]) -> list[str]:
    return [str(item) for item in items]


def _integers(items: Sequence[Any]) -> list[int]:
    return [int(item) for item in items]


def _encode_size(size: Size | None) -> Any:
    if isinstance(size, SizeExpression):
        return [size.operation, _encode_size(size.left), _encode_size(size.right)]
    return size if size is None or isinstance(size, str) else int(size)


def _decode_size(encoded: Any) -> Any:
    if isinstance(encoded, list):
        operation, left, right = encoded
        if operation not in OPERATIONS:
            raise ValueError(f"'{operation}' is no operation on sizes")
        return SizeExpression(operation, _decode_size(left), _decode_size(right))
    if encoded is None or isinstance(encoded, str):
        return encoded
    return int(encoded)


__all__ = [
    "decode_convention",
    "decode_demands",
    "decode_tree",
    "decode_value",
    "encode_convention",
    "encode_demands",
    "encode_tree",
    "encode_value",
]
