"""Checking the arguments of a call, off the hot path; tensors in the form that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import SCALAR_DTYPE
from torch_tvm.runtime.calls.convention import (
    Argument,
    Convention,
    describe_value,
    evaluate,
    symbols_of,
)
from torch_tvm.runtime.calls.tensors import compact, compact_strides
from torch_tvm.support.errors import InvalidInput

ALIGNMENT = {"cpu": 1, "cuda": 16}
"""Bytes: kernels for a CPU take any address, those for a GPU load up to four floats at once."""

_RESHAPE = "call the compiled module as the example arguments were given"


def flatten(convention: Convention, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The flat arguments of a call, without the fixed; :class:`InvalidInput` if the nesting differs."""
    if convention.in_spec is None:
        if kwargs:
            raise InvalidInput(f"unexpected keyword argument '{next(iter(kwargs))}'", advice=_RESHAPE)
        flat = list(args)
    else:
        flat = _flatten_nested(convention, convention.in_spec, args, kwargs)
    expected = len(convention.arguments) + len(convention.constants)
    if len(flat) != expected:
        raise InvalidInput(f"expected {_count(expected)}, got {len(flat)}{_missing(convention, flat)}")
    for position, fixed in convention.constants.items():
        if not _is_same(flat[position], fixed):
            name = convention.constant_names.get(position, str(position))
            raise InvalidInput(
                f"argument '{name}': is fixed to {_shown(fixed)} by the example arguments, got "
                f"{_shown(flat[position])}",
                advice="compile again with this value",
            )
    return [value for position, value in enumerate(flat) if position not in convention.constants]


def _flatten_nested(
    convention: Convention, in_spec: pytree.TreeSpec, args: Sequence[Any], kwargs: dict[str, Any]
) -> list[Any]:
    wanted_args, wanted_kwargs = pytree.tree_unflatten([0] * in_spec.num_leaves, in_spec)
    parameters = _parameters(convention, wanted_args)
    args, kwargs = _by_position(parameters, args, kwargs)
    if len(args) != len(wanted_args):
        missing = [name or str(place) for place, name in enumerate(parameters)][len(args) :]
        raise InvalidInput(
            f"expected {_count(len(wanted_args), 'positional ')}, got {len(args)}"
            + (f" (missing: {', '.join(missing)})" if missing else ""),
            advice=_RESHAPE,
        )
    for name in kwargs:
        if name not in wanted_kwargs:
            raise InvalidInput(f"unexpected keyword argument '{name}'", advice=_RESHAPE)
    for name in wanted_kwargs:
        if name not in kwargs:
            raise InvalidInput(f"keyword argument '{name}' is missing", advice=_RESHAPE)
    ordered = {name: kwargs[name] for name in wanted_kwargs}
    try:
        return in_spec.flatten_up_to((tuple(args), ordered))
    except ValueError as error:
        names = [f"argument {i}" for i in range(len(args))] + [f"argument '{name}'" for name in ordered]
        for name, given, wanted in zip(
            names, (*args, *ordered.values()), (*wanted_args, *wanted_kwargs.values()), strict=True
        ):
            if pytree.tree_structure(given) != pytree.tree_structure(wanted):
                raise InvalidInput(
                    f"{name}: expected {_nesting(wanted)}, got {_nesting(given)}", advice=_RESHAPE
                ) from error
        raise InvalidInput(str(error), advice=_RESHAPE) from error


def _parameters(convention: Convention, wanted: Sequence[Any]) -> list[str | None]:
    """The names of what was positional in the example; a container has none."""
    remaining = iter(argument.name for argument in convention.arguments)
    names: list[str | None] = []
    position = 0
    for value in wanted:
        count = len(pytree.tree_leaves(value))
        flat = range(position, position + count)
        own = [convention.constant_names.get(p) if p in convention.constants else next(remaining) for p in flat]
        names.append(own[0] if isinstance(value, int) else None)
        position += count
    return names


def _by_position(
    names: Sequence[str | None], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Arguments that were positional in the example may be given by name."""
    wanted = names[len(args) :]
    if not wanted or any(name not in kwargs for name in wanted):
        return args, kwargs
    rest = {name: value for name, value in kwargs.items() if name not in wanted}
    return [*args, *(kwargs[name] for name in wanted if name is not None)], rest


def _count(count: int, kind: str = "") -> str:
    return f"{count} {kind}argument{'' if count == 1 else 's'}"


def _missing(convention: Convention, given: Sequence[Any]) -> str:
    names = [argument.name for argument in convention.arguments]
    if convention.constants or len(given) >= len(names):
        return ""
    return f" (missing: {', '.join(names[len(given) :])})"


def _nesting(value: Any) -> str:
    """``(*, [*, *])``: the containers of a value, with a star for each leaf."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_nesting, value))})"
    if isinstance(value, list):
        return f"[{', '.join(map(_nesting, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_nesting(item)}" for key, item in value.items()) + "}"
    return "*"


def _is_same(given: Any, fixed: Any) -> bool:
    if isinstance(given, torch.Tensor) or isinstance(fixed, torch.Tensor):
        return given is fixed
    return type(given) is type(fixed) and (bool(given == fixed) or (given != given and fixed != fixed))


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return describe_value(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class ArgumentCheck:
    """Checks flat arguments against a :class:`Convention` and names the one that does not fit."""

    def __init__(self, convention: Convention, device: str = "cpu") -> None:
        self.convention = convention
        self.device = device

    def __call__(self, flat: Sequence[Any]) -> None:
        """Raise :class:`InvalidInput` for the first argument that does not fit."""
        arguments = self.convention.arguments
        if len(flat) != len(arguments):
            raise InvalidInput(f"expected {_count(len(arguments))}, got {len(flat)}")
        for argument, value in zip(arguments, flat, strict=True):
            problem = self._problem(argument, value)
            if problem:
                raise InvalidInput(f"argument '{argument.name}': {problem}")
        self._check_symbols(arguments, flat)
        self._check_layout(arguments, flat)
        if torch.is_grad_enabled():
            for argument, value in zip(arguments, flat, strict=True):
                if isinstance(value, torch.Tensor) and value.requires_grad:
                    raise InvalidInput(
                        f"argument '{argument.name}': requires grad, which a compiled module does not record",
                        advice='train with torch.compile(model, backend="torch_tvm"), or call under torch.no_grad()',
                    )

    def _problem(self, argument: Argument, value: Any) -> str:
        if argument.kind != "tensor":
            wanted: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,)}
            fits = isinstance(value, wanted[argument.kind])
            fits = fits and not (isinstance(value, bool) and argument.kind != "bool")
            return "" if fits else f"expected {argument.kind}, got {describe_value(value)}"
        if not isinstance(value, torch.Tensor):
            return f"expected {argument}, got {describe_value(value)}"
        where = "" if value.device.type == self.device else f" on {self.device}"
        unreadable = why_unreadable(value)
        if not unreadable and self.convention.in_spec is not None:  # a graph that was traced has no such calls left
            unreadable = why_not_called(value)
        if unreadable:
            return f"expected {argument}{where}, got {unreadable}"
        mismatch = (
            value.device.type != self.device
            or value.dtype != argument.dtype
            or value.dim() != len(argument.sizes)
            or any(isinstance(w, int) and w != s for w, s in zip(argument.sizes, value.shape, strict=True))
        )
        return f"expected {argument}{where}, got {describe_value(value)}" if mismatch else ""

    def _check_layout(self, arguments: Sequence[Argument], flat: Sequence[Any]) -> None:
        layout = self.convention.layout
        for argument, value in zip(arguments, flat, strict=True):
            if argument.kind == "tensor" and not fits_layout(layout, value):
                offsets = " and offsets" if layout == "whole" and value.storage_offset() else ""
                raise InvalidInput(
                    f"argument '{argument.name}': the program gives other numbers for other strides{offsets}"
                    f", and this one has {value.stride()}, offset {value.storage_offset()}",
                    advice="pass a contiguous clone, or use torch.compile, which looks at strides",
                )

    # -- symbolic sizes ------------------------------------------------------------------------------

    def _check_symbols(self, arguments: Sequence[Argument], flat: Sequence[Any]) -> None:
        """Equal and derived sizes, and the range of every symbol."""
        known: dict[str, int] = {}
        origin: dict[str, str] = {}
        dimensions = [
            (argument, axis, wanted, value.shape[axis])
            for argument, value in zip(arguments, flat, strict=True)
            if argument.kind == "tensor"
            for axis, wanted in enumerate(argument.sizes)
            if wanted is not None and not isinstance(wanted, int)
        ]
        for argument, axis, symbol, size in dimensions:
            if not isinstance(symbol, str):
                continue
            place = f"argument '{argument.name}', dimension {axis}"
            if symbol not in known:
                known[symbol], origin[symbol] = size, place
                low, high = self.convention.ranges.get(symbol, (0, size))
                if not low <= size <= high:
                    raise InvalidInput(f"{place}: expected {_range(low, high)}, got {size}")
            elif known[symbol] != size:
                raise InvalidInput(
                    f"{place}: expected {known[symbol]} ({origin[symbol]}), got {size}",
                    advice=_BROADCAST if 1 in (size, known[symbol]) else "",
                )
        for argument, axis, expression, size in dimensions:
            names = symbols_of(expression)
            if all(name in known for name in names):
                wanted = evaluate(expression, known)
                if wanted != size:
                    values = ", ".join(f"{name} = {known[name]} ({origin[name]})" for name in names)
                    raise InvalidInput(
                        f"argument '{argument.name}', dimension {axis}: expected {expression} = {wanted} "
                        f"with {values}, got {size}"
                    )
        for requirement in self.convention.requirements:
            if not evaluate(requirement.condition, known):
                names = symbols_of(requirement.condition)
                raise InvalidInput(
                    f"{requirement.message}: {requirement.condition} does not hold with "
                    + ", ".join(f"{name} = {known[name]} ({origin[name]})" for name in names)
                )


_BROADCAST = (
    "unknown sizes that meet in an op are taken for equal; where one of them is 1 and is to be broadcast, "
    "compile with that size given as 1"
)
_NO_DISPATCH = torch.Tensor.__torch_dispatch__


def fits_layout(layout: str, value: torch.Tensor) -> bool:
    """Whether a tensor lies in memory as a program asks, whose ``layout`` is that of :class:`Convention`."""
    return not layout or (value.is_contiguous() and (layout != "whole" or value.storage_offset() == 0))


def why_not_called(value: torch.Tensor) -> str:
    """What a tensor is whose class gives calls a meaning of their own; empty for others."""
    own = type(value).__torch_function__
    inherited = getattr(own, "__func__", None) is torch.Tensor.__torch_function__.__func__
    if inherited or own is torch._C._disabled_torch_function_impl:
        return ""
    return f"a {type(value).__name__}, whose __torch_function__ compiled code does not call"


def why_unreadable(value: torch.Tensor) -> str:
    """What a tensor is whose numbers no kernel can read at one address; empty for others."""
    if hasattr(type(value), "__tensor_flatten__") or type(value).__torch_dispatch__ is not _NO_DISPATCH:
        return f"a {type(value).__name__}, which is no plain torch.Tensor"
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        return "a tensor of torch.func (vmap, grad, jvp, functionalize)"
    if value.is_nested or value.layout != torch.strided or value.device.type == "meta":
        return describe_value(value)
    if value._is_zerotensor():
        return ""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(value).tangent is not None:
        return "a dual tensor of forward-mode differentiation"
    return "" if value.data_ptr() or not value.numel() else "a tensor whose memory was freed"


def _range(low: int, high: int) -> str:
    return f"a size of at least {low}" if high >= 2**62 else f"a size from {low} to {high}"


def as_kernel_argument(argument: Argument, value: Any, alignment: int = 1) -> torch.Tensor:
    """A checked value as the tensor that ``main`` takes: dense, aligned, without lazy sign or conjugate."""
    if argument.kind != "tensor":
        return torch.tensor(value, dtype=SCALAR_DTYPE[argument.kind])
    return dense(value, alignment)


def dense(value: torch.Tensor, alignment: int = 1) -> torch.Tensor:
    """``value`` contiguous and aligned, complex numbers as pairs of reals; itself when it is so already."""
    value = value.detach()
    if value._is_zerotensor():
        value = value.clone()
    value = as_reals(value) if value.is_complex() else value.resolve_neg()
    value = compact(value.contiguous())
    return value.clone() if value.data_ptr() % alignment else value


def as_reals(value: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs of reals, a view where it can be one.

    No complex kernel of PyTorch reads them: those of complex128 end the process at an address that is no multiple of
    16.
    """
    if not value.is_conj():
        return torch.view_as_real(value).resolve_neg()
    pairs = torch.view_as_real(value.conj()).resolve_neg().clone()
    pairs[..., 1].neg_()
    return pairs


def is_kernel_ready(value: Any, alignment: int = 1) -> bool:
    """Whether ``dense`` would return ``value`` as it is."""
    return not isinstance(value, torch.Tensor) or (
        value.is_contiguous()
        and not value.is_neg()
        and not value._is_zerotensor()
        and not value.is_complex()
        and value.data_ptr() % alignment == 0
        and (value.numel() > 0 or list(value.stride()) == compact_strides(value.shape))
    )


__all__ = [
    "ALIGNMENT",
    "ArgumentCheck",
    "as_kernel_argument",
    "as_reals",
    "dense",
    "fits_layout",
    "flatten",
    "is_kernel_ready",
    "why_not_called",
    "why_unreadable",
]
