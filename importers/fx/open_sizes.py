"""``torch.export`` with dynamic sizes that include 0 and 1, where the program and its ops take those.

Left alone, an export takes every unknown size for two or more: a branch for ``x.size(0) == 0`` is gone without a word,
and ops leave guards that say no more than that a shortcut was not taken. Here nothing is taken for granted. What an op
leaves is tried, as the TorchScript importer does: guards that it does not need go. Guards of the program's own code
stay.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from torch_tvm.importers.size_environment import restore, snapshot
from torch_tvm.importers.size_probe import Probe, hints
from torch_tvm.importers.user_code import TORCH


class OpenSizes(TorchFunctionMode):
    """Tries what ops ask of sizes while a program is exported within :meth:`watching`.

    No size is less than ``least``. ``closed`` says that a size that could be open is not: the program asked for it, or
    PyTorch takes it for a number.
    """

    def __init__(self, least: int = 0) -> None:
        super().__init__()
        self.least = least
        self.closed = False
        self._environment: ShapeEnv | None = None
        self._in_op = False
        self._found: dict[Any, Sequence[Any]] = {}

    @property
    def any_unknown(self) -> bool:
        """Whether the export has had sizes that may vary."""
        return self._environment is not None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, sizes may be 0 and 1, and this mode is on."""
        create, evaluate = ShapeEnv.create_symbol, ShapeEnv.evaluate_expr

        def create_symbol(environment: ShapeEnv, *args: Any, **kwargs: Any) -> sympy.Expr:
            is_size = kwargs.get("positive", True)
            symbol = create(environment, *args, **{**kwargs, "positive": True if self.least else None})
            if isinstance(symbol, sympy.Symbol) and is_size:
                limits = environment.var_to_range[symbol] & ValueRanges(self.least, int_oo)
                # Exports ask for ``Dim(..., min=2)``, so that two is no wish of the user's.
                environment.var_to_range[symbol] = (
                    ValueRanges(self.least, limits.upper) if limits.lower == _SMALLEST else limits
                )
                environment.size_like.add(symbol)
            self._environment = environment
            return symbol

        def evaluate_expr(environment: ShapeEnv, *args: Any, **kwargs: Any) -> Any:
            known = len(environment.guards)
            if isinstance(args[0], (sympy.Eq, sympy.Ne)) and _differ(*args[0].args):
                return sympy.true if isinstance(args[0], sympy.Ne) else sympy.false
            result = evaluate(environment, *args, **kwargs)
            if len(environment.guards) > known and not self._in_op and _is_programs_question():
                self.closed = True
            return result

        ShapeEnv.create_symbol, ShapeEnv.evaluate_expr = create_symbol, evaluate_expr
        try:
            with _config.patch(backed_size_oblivious=True), self:
                yield
        finally:
            ShapeEnv.create_symbol, ShapeEnv.evaluate_expr = create, evaluate

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        environment = self._environment
        is_op = not isinstance(func, torch._ops.HigherOrderOperator) and getattr(func, "__name__", "") != "__get__"
        if environment is None or not is_op:
            return func(*args, **kwargs)
        before, known = snapshot(environment), len(environment.guards)
        self._in_op = True
        try:
            result = func(*args, **kwargs)
        finally:
            self._in_op = False
        guards = [guard.expr for guard in environment.guards[known:]]
        if guards and not _writes(func):
            self._settle(environment, before, guards, Probe(func, args, kwargs, result, hints(environment)))
        return result

    def _settle(self, environment: ShapeEnv, before: dict[str, Any], guards: Sequence[Any], probe: Probe) -> None:
        """Keep what an op needs of its guards. Sizes that it made equal to others, or to numbers, are so in its
        results.
        """
        if len(environment.replacements) > len(before["replacements"]):
            self.closed = self.closed or self._takes_others(environment, before, probe)
        equal = [guard for guard in guards if isinstance(guard, sympy.Eq)]
        others = [guard for guard in guards if not isinstance(guard, sympy.Eq)]
        if not others:
            return
        restore(environment, before)
        for condition in equal:
            environment.evaluate_expr(condition)
        key = (probe.function, _key(probe.leaves), tuple(guards))
        if key not in self._found:
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                known = [guard.expr for guard in environment.guards]
                self._found[key] = probe.conditions(others, [*known, *_in_range(environment.var_to_range)])
        for condition in self._found[key]:
            environment.evaluate_expr(condition)

    def _takes_others(self, environment: ShapeEnv, before: Mapping[str, Any], probe: Probe) -> bool:
        """Whether an op runs for other sizes than those that it made numbers."""
        numbers = {
            symbol: int(value)
            for symbol, value in environment.replacements.items()
            if symbol not in before["replacements"] and value.is_Integer
        }
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return any(
                probe.runs({**probe.hint, symbol: value + more}) for symbol, value in numbers.items() for more in (1, 2)
            )


_SMALLEST = 2
"""What an export takes every size for, or more, when left alone."""


def _differ(one: Any, other: Any) -> bool:
    """Whether one is a multiple of something, and the other a number that is not."""
    if one.is_Integer:
        one, other = other, one
    factor = one.as_coeff_Mul()[0] if one.is_Mul else sympy.Integer(1)
    return other.is_Integer and factor.is_Integer and factor > 1 and int(other) % int(factor) != 0


def _writes(func: Callable[..., Any]) -> bool:
    """Whether an op is in place: its arguments are no more what it was given."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"


def _key(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        (tuple(map(str, leaf.shape)), leaf.dtype) if isinstance(leaf, torch.Tensor) else str(leaf) for leaf in leaves
    )


def _in_range(ranges: Mapping[Any, ValueRanges[Any]]) -> list[Any]:
    return [
        condition
        for symbol, limits in ranges.items()
        for condition in (sympy.Ge(symbol, limits.lower), sympy.Le(symbol, limits.upper))
    ]


def _is_programs_question() -> bool:
    """Whether code of the user's, or of a module of PyTorch's, asks for the value of an expression over sizes."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_SYMBOLIC):
        frame = frame.f_back  # type: ignore[assignment]
    file = frame.f_code.co_filename if frame is not None else TORCH
    return not file.startswith(TORCH) or file.startswith(f"{TORCH}nn{os.sep}")


_SYMBOLIC = (
    __file__,
    f"{TORCH}__init__.py",
    *(os.path.join(TORCH, folder, "") for folder in ("fx/experimental", "utils")),
)
"""Code that stands between a question and its answer."""


__all__ = ["OpenSizes"]
