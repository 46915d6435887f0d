"""Interpreter and compiled code side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tvm.debug.compare import both_results, error_of, limit_of
from torch_tvm.debug.slices import Value, needed, operations, part, tensor_values
from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule


@dataclass(frozen=True)
class Step:
    """An op, the user's line, where in the model, and the error of its result in compiled code;
    ``limit`` is allowed.
    """

    op: str
    location: str
    scope: str
    error: float
    limit: float

    @property
    def is_within(self) -> bool:
        return self.error <= self.limit

    def __str__(self) -> str:
        scope = f" in {self.scope}" if self.scope else ""
        return f"{self.location}: {self.op}: error {self.error:.3g}, allowed {self.limit:.3g}{scope}"


@dataclass(frozen=True)
class Lockstep:
    """``steps`` are the ops in order, ``first`` the first that leaves tolerance, or ``None``.

    With ``only_fused`` each op is right where its result is kept, and ``first`` is where a program that ends there is
    wrong: the fault is in how it is fused.
    """

    steps: tuple[Step, ...]
    first: Step | None = None
    only_fused: bool = False

    def __str__(self) -> str:
        if self.first is None:
            worst = max(self.steps, key=lambda step: step.error / (step.limit or 1.0), default=None)
            text = f"{len(self.steps)} ops, all within tolerance"
            return f"{text}; the largest error: {worst}" if worst else text
        how = "fused with what is before it, " if self.only_fused else ""
        return f"{how}the first op that leaves tolerance is\n  {self.first}"


def lockstep(
    program: Any,
    args: Sequence[Any] | None = None,
    *,
    frontend: str = "auto",
    tolerance: float | None = None,
    target: Any = "auto",
    options: Any = None,
) -> Lockstep:
    """Run a program by the reference interpreter and compiled, and compare the result of every op.

    ``program``, ``frontend``, ``target`` and ``options`` are as in :func:`torch_tvm.compile`; ``args`` are the
    arguments. ``tolerance`` is the error allowed, relative to the largest number of a tensor; by default it depends on
    the dtype. Raises :class:`ImportFailed` and :class:`InvalidInput` as :func:`torch_tvm.compile` does.

    >>> import torch, torch_tvm
    >>> found = torch_tvm.debug.lockstep(lambda x: torch.relu(x) + 1, (torch.ones(3),))
    >>> found.first is None, len(found.steps)
    (True, 2)
    """
    module, flat = imported(program, args, frontend)
    values = tensor_values(module)
    if not values:
        return Lockstep(())
    found, expected = both_results(part(module, values), flat, target, options)
    steps = tuple(_step(module, *each, tolerance) for each in zip(values, found, expected, strict=True))
    first = next((step for step in steps if not step.is_within), None)
    if first is not None:
        return Lockstep(steps, first)
    wrong = _wrong_results(module, flat, tolerance, target, options)
    if wrong is None:
        return Lockstep(steps)
    return Lockstep(steps, _first_end(module, wrong, flat, tolerance, target, options), only_fused=True)


def imported(program: Any, args: Sequence[Any] | None, frontend: str) -> tuple[TorchModule, list[Any]]:
    """The canonical module and its flat arguments, state included."""
    from torch_tvm.driver.compiler import import_program
    from torch_tvm.driver.pipeline import decomposed
    from torch_tvm.passes.pipeline import canonicalize
    from torch_tvm.support.errors import InvalidInput

    found = import_program(program, args, frontend, None).module
    if found is None:
        raise InvalidInput("the module has no method 'forward'", subject="program")
    module = decomposed(canonicalize(found))
    flat = [*module.signature.flatten(tuple(args or ()), {}), *module.state.values()]
    return module, [value.detach().clone() if isinstance(value, torch.Tensor) else value for value in flat]


def _step(module: TorchModule, value: Value, ours: Any, theirs: Any, tolerance: float | None) -> Step:
    operation = operations(module)[value[0]]
    place = view.location(operation)
    name = view.op_name(operation)
    return Step(name, str(place), place.scope, error_of(ours, theirs), limit_of(theirs, tolerance))


def _wrong_results(
    module: TorchModule, flat: Sequence[Any], tolerance: float | None, target: Any, options: Any
) -> Value | None:
    """A result of the program itself that is wrong."""
    values = set(tensor_values(module))
    listed = operations(module)
    position = {operation: index for index, operation in enumerate(listed)}
    returned = []
    for operand in listed[-1].operands:
        source = view.defining_op(operand)
        if source is not None and source in position:
            key = (position[source], list(source.results).index(operand))
            returned += [key] if key in values else []
    if not returned:
        return None
    found, expected = both_results(part(module, returned), flat, target, options)
    for value, ours, theirs in zip(returned, found, expected, strict=True):
        if error_of(ours, theirs) > limit_of(theirs, tolerance):
            return value
    return None


def _first_end(
    module: TorchModule, wrong: Value, flat: Sequence[Any], tolerance: float | None, target: Any, options: Any
) -> Step:
    """The earliest op at which a program that ends there is wrong, by halving."""
    candidates = needed(module, wrong)
    low, high = 0, len(candidates) - 1
    best: Step | None = None
    while low <= high:
        middle = (low + high) // 2
        (ours,), (theirs,) = both_results(part(module, [candidates[middle]]), flat, target, options)
        step = _step(module, candidates[middle], ours, theirs, tolerance)
        if step.is_within:
            low = middle + 1
        else:
            best, high = step, middle - 1
    if best is None:
        (ours,), (theirs,) = both_results(part(module, [wrong]), flat, target, options)
        best = _step(module, wrong, ours, theirs, tolerance)
    return best


__all__ = ["Lockstep", "Step", "imported", "lockstep"]
