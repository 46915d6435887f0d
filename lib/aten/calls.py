"""One op on Python values: through ``torch.ops``, or in Python where ``torch.ops`` takes no such values."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from torch_tvm.aten import side_effects
from torch_tvm.aten.functional_forms import SUFFIX, functional_form
from torch_tvm.support.errors import UnsupportedOp


def packet_of(name: str) -> torch._ops.OpOverloadPacket | None:
    """All overloads of an op, by its name in a schema (``aten::add``); None where PyTorch has no such op."""
    namespace, _, base = name.partition("::")
    found = getattr(getattr(torch.ops, namespace), base, None) if namespace and base else None
    return found if isinstance(found, torch._ops.OpOverloadPacket) else None


def overloads_of(name: str) -> list[torch._ops.OpOverload]:
    """The overloads of an op, by its name in a schema: none where PyTorch has no such op."""
    packet = packet_of(name)
    return [getattr(packet, overload) for overload in packet.overloads()] if packet else []


def overload_of(name: str) -> torch._ops.OpOverload | None:
    """The op behind a name such as ``aten::add.Tensor``, ``torch.aten.add.Tensor``,
    ``torch.valsem.aten.bernoulli.float`` or ``ns.op``; None where PyTorch has none."""
    plain = name.removeprefix("torch.").removeprefix("valsem.").replace("::", ".", 1)
    namespace, _, rest = plain.partition(".")
    base, _, overload = rest.partition(".")
    found = getattr(packet_of(f"{namespace}::{base}"), overload or "default", None)
    if isinstance(found, torch._ops.OpOverload):
        return found
    writes = overload_of(f"{namespace}.{base.removesuffix(SUFFIX)}.{overload}") if base.endswith(SUFFIX) else None
    return functional_form(writes) if writes is not None and writes._schema.is_mutable else None


def run_op(name: str, operands: Sequence[Any]) -> list[Any]:
    """Run one op on Python values (tensors, numbers, lists, ``None``): its results, zero-copy."""
    result = callable_for(name)(*operands)
    if result is None:
        return []
    return list(result) if isinstance(result, tuple) else [result]


@cache
def callable_for(name: str, stage: str = "reference interpreter") -> Callable[..., Any]:
    """A function of an op's operands, in order, that gives its result: a tuple when there are several.

    Raises :class:`UnsupportedOp` in ``stage`` when neither PyTorch nor this file has the op.
    """
    short = name.removeprefix("torch.")
    if short in _PYTHON_OPS:
        return _PYTHON_OPS[short]
    found = overload_of(short)
    if found is None:
        raise UnsupportedOp(
            "this PyTorch has no such operator",
            subject=name,
            stage=stage,
            advice="import the package that registers the operator first",
        )
    return with_keywords(found, found)


def with_keywords(overload: torch._ops.OpOverload, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, called as this op is, as a function of operands in order: those that are
    keywords by their names.
    """
    arguments = overload._schema.arguments
    positional = sum(not argument.kwarg_only for argument in arguments)
    if positional == len(arguments):
        return function
    keywords = [argument.name for argument in arguments[positional:]]

    def call(*operands: Any) -> Any:
        return function(*operands[:positional], **dict(zip(keywords, operands[positional:], strict=False)))

    return call


@cache
def is_pure(name: str) -> bool:
    """Whether an op of this name may run at compile time: it gives its results and does nothing else."""
    short = name.removeprefix("torch.")
    if short in _PYTHON_OPS:
        return short not in _IMPURE
    found = overload_of(short)
    return found is not None and side_effects.is_pure(found)


@cache
def may_be_named(name: str) -> bool:
    """Whether a module from a file may run this op."""
    short = name.removeprefix("torch.")
    found = None if short in _PYTHON_OPS else overload_of(short)
    return short in _PYTHON_OPS or found is None or side_effects.may_be_named(found)


@cache
def is_random(name: str) -> bool:
    """Whether an op draws from a generator, so that neither its order nor its number of calls may change."""
    found = overload_of(name)
    base = name.removeprefix("torch.").removeprefix("valsem.").partition(".")[2].partition(".")[0]
    return base in _DRAWING or (found is not None and torch.Tag.nondeterministic_seeded in found.tags)


def draws(overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call takes numbers from a generator: a dropout outside training, or of probability 0, does not."""
    if torch.Tag.nondeterministic_seeded not in overload.tags:
        return False
    name, arguments = overload._schema.name, overload._schema.arguments
    given = {argument.name: argument.default_value for argument in arguments}
    given |= {**dict(zip(given, args, strict=False)), **kwargs}
    switches = ["dropout_p", "dropout", "training", "train"]
    if name.endswith("dropout") and name != "aten::native_dropout":  # that one draws a mask of ones
        switches.append("p")
    return not any(isinstance(given.get(switch), (int, float)) and given[switch] == 0 for switch in switches)


_DRAWING = frozenset("bernoulli uniform normal_functional exponential geometric cauchy log_normal random".split())
"""Ops that draw and whose tags, in some form of them, do not say so."""


# -- ops on Python values that torch.ops cannot take (generic lists, strings, None) ---------------------


def _set_item(items: list[Any], index: int, value: Any) -> list[Any]:
    items[index] = value
    return items


def _mutated(method: str) -> Callable[..., list[Any]]:
    def apply(items: list[Any], *operands: Any) -> list[Any]:
        getattr(items, method)(*operands)
        return items

    return apply


def _slice(items: Any, start: int | None, end: int | None, step: int) -> Any:
    return items[slice(start, end, step)]


def _new_tensor(data: Any, dtype: int | None, device: Any, requires_grad: bool) -> torch.Tensor:
    found = torch.tensor(data)
    return found if dtype is None else torch.ops.aten.to.dtype(found, dtype)


def _dictionary(*keys_then_values: Any) -> dict[Any, Any]:
    half = len(keys_then_values) // 2
    return dict(zip(keys_then_values[:half], keys_then_values[half:], strict=True))


def _raise(message: str, *_: Any) -> None:
    raise RuntimeError(message)


def runtime_assert(condition: bool, message: str = "runtime assertion failed") -> None:
    if not condition:
        raise RuntimeError(message)


def _format(template: str, *values: Any) -> str:
    filled = iter(values)
    return re.sub(r"\{\}", lambda _: str(next(filled)), template)


def _bernoulli(tensor: torch.Tensor, p: float, generator: None) -> torch.Tensor:
    return torch.empty_like(tensor).bernoulli_(p)


def _as_strided(x: torch.Tensor, size: Any, stride: Any, offset: int | None = None) -> torch.Tensor:
    """A module has no strides: it addresses the elements in their order."""
    dense = x.contiguous()
    return dense.as_strided(size, stride, dense.storage_offset() + (offset or 0))


_PYTHON_OPS: dict[str, Callable[..., Any]] = {
    "aten.as_strided": _as_strided,
    "aten.__is__": operator.is_,
    "aten.__isnot__": operator.is_not,
    "aten.__not__": operator.not_,
    "aten.__getitem__.t": operator.getitem,
    "aten.__getitem__.Dict_str": operator.getitem,
    "aten.__contains__.str": operator.contains,
    "aten.__contains__.str_list": operator.contains,
    "aten.__contains__.int_list": operator.contains,
    "aten._set_item.t": _set_item,
    "aten._set_item.str": _set_item,
    "aten.append.t": _mutated("append"),
    "aten.insert.t": _mutated("insert"),
    "aten.extend.t": _mutated("extend"),
    "aten.add.t": operator.add,
    "aten.mul.left_t": operator.mul,
    "aten.slice.t": _slice,
    "aten.len.t": len,
    "aten.len.str": len,
    "aten.list.t": list,
    "aten.keys.str": lambda mapping: list(mapping),
    "aten.get.default_str": lambda mapping, key, default: mapping.get(key, default),
    "aten.format": _format,
    "aten.warn": lambda message, level: warnings.warn(message, stacklevel=2),
    "aten.tensor": _new_tensor,
    "aten.view": torch.ops.aten.reshape.default,  # a value has no strides that could forbid it
    "prim.RaiseException": _raise,
    "prim.unchecked_cast": lambda value: value,
    "prim.Uninitialized": lambda: None,
    "prim.ListUnpack": list,
    "prim.TupleUnpack": list,
    "prim.TupleIndex": operator.getitem,
    "prim.tolist": lambda tensor, *_: tensor.tolist(),
    "prim.Print": print,
    "prim.ListConstruct": lambda *items: list(items),
    "prim.DictConstruct": _dictionary,
    "runtime.assert": runtime_assert,
    "valsem.aten.bernoulli.float": _bernoulli,
    "derefine": lambda value: value,
    "tensor_static_info_cast": lambda value: value,
    "copy.to_vtensor": torch.clone,
    "copy.to_tensor": torch.clone,
    "overwrite.tensor.contents": lambda value, target: target.copy_(value) and None,
}

_IMPURE = frozenset(
    "aten._set_item.t aten._set_item.str aten.append.t aten.insert.t aten.extend.t aten.warn prim.Print "
    "prim.RaiseException runtime.assert overwrite.tensor.contents valsem.aten.bernoulli.float".split()
)
"""Those of these ops that do more than give a result, or another one each time."""

__all__ = [
    "callable_for",
    "is_pure",
    "is_random",
    "may_be_named",
    "overload_of",
    "run_op",
    "runtime_assert",
    "with_keywords",
]
