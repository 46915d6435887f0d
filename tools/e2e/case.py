"""A case is a program, its calls, and the frontends that are expected not to take it.

A function of tensors, or a class of a module, becomes one by ``@case`` and the shapes of its arguments:

>>> from torch_tvm.tools.e2e.case import CASES, case
>>> @case("3x4", "4:i64", refused={"lazy": "why"})
... def sums_of_both(x, y):
...     return x.sum() + y.sum()
>>> CASES.pop("sums_of_both").frontends
('fx', 'torchscript', 'lazy', 'dynamo')
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from torch_tvm.support.errors import InvalidInput
from torch_tvm.tools.inputs.tensors import parse_spec, random_tensor
from torch_tvm.tools.opinfo.samples import difference

FRONTENDS = ("fx", "torchscript", "lazy", "dynamo")
CONFIGS = ("compiled", "interpreter", "opencl", "cuda")
Compare = Callable[[Any, tuple[torch.Tensor, ...]], None]


@dataclass
class Program:
    """What a case runs.

    ``calls`` are the arguments of one call after the other, the first are the example arguments. ``dynamic_shapes`` has
    the dimensions of each argument that vary. With ``scripted`` the TorchScript frontend scripts it, otherwise it
    traces. ``compare(results, args)`` raises ``AssertionError`` for wrong results; without it eager PyTorch runs
    beside, and the arguments that a call changes are compared as well.
    """

    module: nn.Module
    calls: Sequence[tuple[torch.Tensor, ...]]
    dynamic_shapes: Sequence[Mapping[int, Any]] | None = None
    scripted: bool = False
    compare: Compare | None = None


@dataclass(frozen=True)
class Case:
    """``refused`` says of frontends why they do not take the program (yet); one that does all the same is a failure.

    ``words`` is what ``--filter`` looks at besides the name. ``run`` replaces the run of ``program``, for cases that
    have a way of their own; it is given the frontend and whether ops may run in PyTorch, and returns a verdict and its
    reason.
    """

    name: str
    program: Callable[[], Program] | None
    suite: str = "ours"
    frontends: tuple[str, ...] = FRONTENDS
    refused: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    run: Callable[[str, bool], tuple[str, str]] | None = None


CASES: dict[str, Case] = {}
"""What ``@case`` has registered, by name."""


def case(
    *specs: str,
    sizes: Sequence[int] = (),
    calls: int = 2,
    scripted: bool = False,
    frontends: Sequence[str] = FRONTENDS,
    refused: Mapping[str, str] | None = None,
    name: str = "",
) -> Callable[[Any], Any]:
    """Register a function of tensors, or a class of a module, as a case.

    ``specs`` are the shapes of its arguments as in ``3x4:f32`` (random values), with the letter ``n`` for a size that
    varies: then ``sizes`` are its values, the first is that of the example. Otherwise the program is called ``calls``
    times, with other values each time.
    """

    def register(made: Any) -> Any:
        key = name or made.__name__
        if key in CASES:
            raise ValueError(f"two cases are named '{key}'")

        def program() -> Program:
            torch.manual_seed(0)
            module = made() if isinstance(made, type) else _Function(made)
            every = [arguments(specs, size, index) for index, size in enumerate(sizes or [0] * calls)]
            shapes = [_varying(spec) for spec in specs] if sizes else None
            return Program(module.eval(), every, shapes, scripted)

        CASES[key] = Case(key, program, frontends=tuple(frontends), refused=refused or {})
        return made

    return register


def arguments(specs: Sequence[str], n: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Random tensors of these shapes, with ``n`` for the letter."""
    return tuple(
        random_tensor(parse_spec(re.sub(r"\bn\b|(?<=x)n|n(?=x)", str(n), spec))[0], 1000 * seed + index)
        for index, spec in enumerate(specs)
    )


def _varying(spec: str) -> dict[int, Any]:
    sizes = spec.partition(":")[0].split("x")
    return {axis: torch.export.Dim.AUTO for axis, size in enumerate(sizes) if size == "n"}


class _Function(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def function_of(module: nn.Module) -> Any:
    """The function that a module calls, which can be scripted; any other module is itself."""
    return module.function if isinstance(module, _Function) else module


def assert_like(ours: Any, eager: Any, what: str) -> None:
    """Raise where nesting, dtypes, shapes or numbers are not those of eager."""
    if (mine := pytree.tree_structure(ours)) != (theirs := pytree.tree_structure(eager)):
        raise AssertionError(f"{what}: nesting {mine}, eager's is {theirs}")
    wrong = difference(ours, eager)
    if wrong:
        raise AssertionError(f"{what} {wrong} (ours for eager's)")


def checked_choice(given: str, known: Sequence[str], option: str) -> list[str]:
    """A list separated by commas, each of it known."""
    found = [item.strip() for item in given.split(",") if item.strip()]
    for item in found:
        if item not in known:
            raise InvalidInput(f"unknown '{item}'", subject=option, advice=f"known: {', '.join(known)}")
    if not found:
        raise InvalidInput("nothing is named", subject=option, advice=f"known: {', '.join(known)}")
    return list(dict.fromkeys(found))


__all__ = [
    "CASES",
    "CONFIGS",
    "FRONTENDS",
    "Case",
    "Program",
    "arguments",
    "assert_like",
    "case",
    "checked_choice",
    "function_of",
]
