"""The constraints of a program on its unknown sizes: ranges of them, and assertions where an op stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import sympy
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv, statically_known_true
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from torch_tvm.dialect.emitter import Emitter, dialect_name
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.size_conditions import assert_size, bound
from torch_tvm.importers.size_environment import forget, restore, snapshot
from torch_tvm.importers.size_probe import Probe, hints, holds
from torch_tvm.importers.symbols import Range
from torch_tvm.importers.torchscript.signals import OtherSizes
from torch_tvm.importers.torchscript.sizes.size_rules import ALIKE, ruled
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten


class AnySizes(ShapeEnv):
    """A ``ShapeEnv`` whose sizes may be 0: PyTorch's symbols are positive, so that ``min(s, 1)`` would be 1."""

    def create_symbol(self, *args: Any, **kwargs: Any) -> sympy.Expr:
        symbol = super().create_symbol(*args, **{**kwargs, "positive": None})
        if isinstance(symbol, sympy.Symbol):
            self.var_to_range[symbol] = ValueRanges(0, int_oo)
        return symbol


class SizeContext(Protocol):
    """Where sizes are asked for: :class:`~torch_tvm.importers.torchscript.context.Context`."""

    effects: int

    @property
    def emitter(self) -> Emitter: ...

    @property
    def mode(self) -> FakeTensorMode: ...

    @property
    def in_region(self) -> bool: ...

    def failure(self, problem: str, *, subject: str = "") -> Exception: ...


@dataclass
class Sizes:
    """The unknown sizes of one program: where each is found, and what is known of it."""

    context: SizeContext
    places: dict[sympy.Symbol, tuple[ir.Value, int]] = field(default_factory=dict)
    ranges: dict[sympy.Symbol, Range] = field(default_factory=dict)
    _settled: int = 0

    @property
    def environment(self) -> ShapeEnv:
        found = self.context.mode.shape_env
        assert found is not None
        return found

    def add(self, value: ir.Value, meta: torch.Tensor) -> None:
        """An argument of the program with unknown sizes."""
        self.context.mode.cache_enabled = False  # a cached result comes without its guards
        for axis, size in enumerate(meta.shape):
            if isinstance(size, torch.SymInt):
                self.places[size.node.expr] = (value, axis)
                self.ranges[size.node.expr] = Range()
                self.environment.var_to_range[size.node.expr] = ValueRanges(0, int_oo)
        self.environment.guards.clear()  # what making the fake tensor asked holds for no call
        self.environment.axioms.clear()
        forget(self.environment)

    # -- one op --------------------------------------------------------------------------------------------

    def run(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an op on fake tensors, and demand what it needs of the sizes."""
        if not self.places:
            return function(*args, **kwargs)
        environment = self.environment
        self._take_over()
        before = snapshot(environment)
        known = len(environment.guards)
        try:
            result, guards = self._first_run(function, args, kwargs)
        except (RuntimeError, IndexError, ValueError, AssertionError) as error:
            restore(environment, before)
            with unset_fake_temporarily():
                probe = Probe(function, args, kwargs, None, hints(environment))
                raise self._other_sizes(probe, str(error)) or error from None
        is_pointwise = torch.Tag.pointwise in getattr(function, "tags", ())
        if not guards and is_pointwise:
            return result
        earlier = [guard.expr for guard in environment.guards[:known]]
        if guards:
            restore(environment, before)
        with unset_fake_temporarily():
            probe = Probe(function, args, kwargs, result, hints(environment))
            other = self._other_sizes(probe, "the op does not take these sizes")
            if other is not None:
                raise other
            conditions = probe.conditions(guards, [*earlier, *self._in_range()])
        for condition in conditions:
            environment.evaluate_expr(condition)
        for condition in conditions:
            self._demand(condition, _name(function).removeprefix("torch."))
        self._settled = len(environment.guards)
        return result

    def _first_run(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """The result at the sizes' examples, and what was assumed of them."""
        environment = self.environment
        known = len(environment.guards)
        found = self.unguarded(lambda: ruled(function, args, kwargs))
        if found is None:
            with enable_python_dispatcher():  # without, some ops compute their sizes in C++, of numbers
                result = ALIKE.get(function, function)(*args, **kwargs)
            return result, [guard.expr for guard in environment.guards[known:]]
        wrong = [guard for guard in found[1] if not holds(guard, hints(environment))]
        if wrong:
            raise RuntimeError(f"the op needs {wrong[0]} of the unknown sizes: give those that are known")
        return found

    def _other_sizes(self, probe: Probe, problem: str) -> OtherSizes | None:
        """The request to import again with examples of sizes that this op takes, if there are any."""
        found = probe.fitting()
        if found is None:
            return None
        same = self.environment.replacements
        sizes = {}
        for symbol, (value, axis) in self.places.items():
            wanted = found[0].get(same.get(symbol, symbol))
            if wanted is not None:
                sizes[ir.BlockArgument(value).arg_number, axis] = wanted
        cause = self.context.failure(problem.strip().split("\n")[0], subject=_name(probe.function))
        assert isinstance(cause, ImportFailed)
        return OtherSizes(sizes, not found[1], cause) if sizes else None

    def demand(self, condition: Any, what: str) -> None:
        """Have a condition hold where the program is."""
        self._take_over()
        self.environment.evaluate_expr(condition)
        self._demand(condition, what)
        self._settled = len(self.environment.guards)

    def unguarded(self, make: Callable[[], Any]) -> Any:
        """``make()``, which describes something that holds for every size."""
        if not self.places:
            return make()
        self._take_over()
        before = snapshot(self.environment)
        result = make()
        restore(self.environment, before)
        return result

    def _take_over(self) -> None:
        """Demand what was assumed without an op: the program asked for a property of a tensor."""
        for guard in self.environment.guards[self._settled :]:
            self._demand(guard.expr, "this program")
        self._settled = len(self.environment.guards)

    @contextmanager
    def region(self) -> Iterator[None]:
        """What a branch assumes holds in the branch."""
        if not self.places:
            yield
            return
        self._take_over()
        before = snapshot(self.environment)
        try:
            yield
        finally:
            restore(self.environment, before)
            self._settled = len(self.environment.guards)

    def final_ranges(self) -> dict[sympy.Symbol, Range]:
        """The range of each size, those of sizes that turned out equal as one."""
        self._take_over()
        found: dict[sympy.Symbol, Range] = {}
        for symbol, known in self.ranges.items():
            final = self.environment.replacements.get(symbol, symbol)
            same = found.setdefault(final, Range())
            same.lower, same.upper = max(same.lower, known.lower), min(same.upper, known.upper)
        return found

    def _in_range(self) -> list[Any]:
        return [
            condition
            for symbol, known in self.ranges.items()
            for condition in (sympy.Ge(symbol, known.lower), sympy.Le(symbol, known.upper))
        ]

    def _demand(self, condition: Any, what: str) -> None:
        """A bound of a size everywhere is its range; anything else is asserted here."""
        ev = self.context
        limits = bound(condition)
        if limits is not None and limits[0] in self.ranges and not ev.in_region:
            symbol, low, high = limits
            known = self.ranges[symbol]
            known.lower = max(known.lower, low)
            known.upper = min(known.upper, high) if high >= 0 else known.upper
            return
        if not condition.free_symbols <= set(self.places):
            return
        if isinstance(condition, sympy.Eq) and not ev.in_region:
            if condition.xreplace(self.environment.replacements) == sympy.true:
                return  # the sizes have one symbol now
        try:
            assert_size(ev.emitter, condition, self._value, f"{what} does not take these sizes")
            ev.effects += 1
        except ValueError as error:
            raise ev.failure(f"the program needs {condition} of its sizes, and {error}") from None

    def told(self, size: Any) -> Any:
        """A size as a number or a value of the program; ``None`` for one that no argument has."""
        if isinstance(size, int):
            return size
        return self._value(size.node.expr) if size.node.expr in self.places else None

    def _value(self, symbol: sympy.Symbol) -> ir.Value:
        value, axis = self.places[symbol]
        return self.context.emitter.call(aten.size.int, (value, axis), {}, [0])[0]


def _name(function: Any) -> str:
    """The name in the dialect of an op, or of a function in Python that stands for one."""
    return dialect_name(function) if hasattr(function, "_schema") else f"torch.aten.{function.__name__}"


# -- slices ------------------------------------------------------------------------------------------------


def slice_sizes(meta: torch.Tensor, dim: int, start: Any, end: Any, step: int) -> list[Any] | None:
    """The shape of a slice whatever the size is; ``None`` where the axis is of known size or a bound of any sign."""
    axis = dim % max(meta.dim(), 1)
    size = meta.shape[axis] if meta.dim() else 0
    if isinstance(size, int) or step < 1:
        return None
    first, last = _clamped(0 if start is None else start, size), _clamped(_END if end is None else end, size)
    if first is None or last is None:
        return None
    count = last if isinstance(first, int) and first == 0 else torch.sym_max(last - first, 0)
    count = _settled(count if step == 1 else (count + (step - 1)) // step)
    return [*meta.shape[:axis], count, *meta.shape[axis + 1 :]]


_END = 2**62


def _clamped(position: Any, size: torch.SymInt) -> Any:
    """A bound of a slice as a position in ``[0, size]``; ``None`` where nobody knows its sign."""
    if isinstance(position, int):
        if position >= _END:
            return size
        return (
            0
            if position == 0
            else (
                _settled(torch.sym_min(position, size)) if position > 0 else _settled(torch.sym_max(size + position, 0))
            )
        )
    if not statically_known_true(position >= 0):
        return None
    return position if statically_known_true(position <= size) else torch.sym_min(position, size)


def _settled(size: Any) -> Any:
    """A size as a number where the ranges of its symbols leave but one."""
    if not isinstance(size, torch.SymInt):
        return size
    limits = size.node.shape_env.bound_sympy(size.node.expr)
    return int(limits.lower) if limits.lower == limits.upper else size


__all__ = ["AnySizes", "Sizes", "slice_sizes"]
