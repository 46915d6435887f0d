"""The constraints of an op on symbolic sizes, found by running it where a guard does not hold.

A run on fake tensors decides every question about a symbolic size by its hint and leaves the answer as a guard of
the ``ShapeEnv``. Some guards say what the op needs (``x[5]``: at least six), some merely chose a shortcut, and
some needs leave none. So the op is run again, on real tensors where those are small, at sizes around the
constants in its guards and at 0 and 1: where it raises, or gives other sizes than the symbolic run says, a
condition has to keep such sizes out; where it does not, no condition is wanted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

Point = dict[sympy.Symbol, int]

_SMALL = 1 << 16
_LARGEST = 1 << 12
_POINTS = 200
_GRID = 1 << 14
_TRIES = 1000
_ERRORS = (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError, AssertionError)
_WITHOUT_DATA = frozenset(
    f"aten::{name}"
    for name in (
        "_batch_norm_with_update",
        "_batch_norm_with_update_functional",
        "_embedding_bag",
        "_embedding_bag_forward_only",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "_native_batch_norm_legit_no_training",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_weight_norm",
        "_weight_norm_interface",
        "batch_norm",
        "embedding_bag",
        "gru",
        "instance_norm",
        "lstm",
        "mkldnn_rnn_layer",
        "multi_head_attention_forward",
        "native_batch_norm",
        "rnn_relu",
        "rnn_tanh",
    )
)
"""Ops that PyTorch (2.9 to 2.13) does not check: for sizes that do not fit, and some of 0, they end the process."""
_MASKED = frozenset(f"aten::{name}" for name in ("index_put", "index_put_", "_index_put_impl_", "masked_scatter"))
"""Ops whose sizes depend on how much of a mask is true."""


class Probe:
    """One op on arguments with symbolic sizes: ``results`` are those of its symbolic run.

    ``known`` gives the value of every symbol at which the symbolic run made its choices; by default, the arguments do.
    """

    def __init__(
        self,
        function: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        results: Any,
        known: Mapping[sympy.Symbol, int] | None = None,
    ) -> None:
        self.function = function
        self.leaves, self.spec = pytree.tree_flatten((list(args), dict(kwargs)))
        self.expected = [_expressions(leaf) for leaf in pytree.tree_leaves(results)]
        known = _hints_of(self.leaves) if known is None else known
        free: set[sympy.Symbol] = set()
        for leaf in self.leaves:
            for size in _expressions(leaf):
                free |= getattr(size, "free_symbols", set())
        self.symbols = sorted(free, key=str)
        self.hint = {symbol: int(known[symbol]) for symbol in self.symbols if symbol in known}
        name = _name_of(function)
        has_mask = any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in self.leaves)
        is_told = not (may_crash(name) or (has_mask and name in _MASKED))
        self._takes = {True: is_told, False: True}
        self._seen: dict[tuple[int, ...], bool | None] = {}

    def can_tell(self) -> bool:
        """Whether the op runs at the hints, on real tensors or on such without data, as the symbolic run says."""
        if not self.symbols or len(self.hint) < len(self.symbols):
            return False
        kinds = [is_real for is_real, takes in self._takes.items() if takes]
        found = {is_real: self._run(self.hint, is_real) for is_real in kinds}
        self._takes = {is_real: found.get(is_real, False) is not False for is_real in (True, False)}
        return any(found.values())

    def conditions(self, guards: Sequence[Any], known: Sequence[Any], lowest: int = 0) -> list[Any]:
        """The conditions, of ``guards`` and others, that keep out the sizes for which the op is not as recorded.

        ``known`` hold already. Where nothing can be told, all of ``guards``.
        """
        if not self.can_tell():
            return list(guards)
        points = [p for p in self._points(guards, lowest) if all(holds(g, p) for g in known)]
        kept = self._needed(guards, points)
        return [*kept, *self._missing([p for p in points if all(holds(g, p) for g in kept)])]

    def _needed(self, guards: Sequence[Any], points: Sequence[Point]) -> list[Any]:
        """Guards that keep out sizes that do not fit, rather those that keep out nothing else; and where others would
        keep out more that fit than a relation or bound does, that.
        """
        good = [p for p in points if self.fits(p)]
        bad = [p for p in points if self.fits(p) is False]
        exact = [g for g in dict.fromkeys(guards) if all(holds(g, p) for p in good)]
        kept = sorted(exact, key=lambda g: sum(holds(g, p) for p in bad))  # what says most, first
        bad = [p for p in bad if all(holds(g, p) for g in kept)]
        rest = [g for g in dict.fromkeys(guards) if g not in exact]
        equalities = [g for g in rest if isinstance(g, (sympy.Eq, sympy.Or))]  # sizes that meet are taken for equal
        if bad:
            right = [p for p in good if 0 not in p.values()]
            rest += [r for r in self._relations() if holds(r, self.hint) and all(holds(r, p) for p in right)]
            plain = self._bounds([p for p in points if all(holds(g, p) for g in kept)])
            rest += [each for each in plain if isinstance(each, sympy.Ge) and each.rhs == 1]  # "not empty", no other
        while bad and rest:
            gains = {g: sum(not holds(g, p) for p in bad) for g in rest}
            rest = [g for g in rest if gains[g]]
            if not rest:
                break
            costs = {g: sum(not holds(g, p) for p in good) for g in rest}
            equal = [g for g in equalities if g in rest]
            plain = [g for g in rest if not _is_shortcut(g)] or rest
            strongest = (
                max(equal, key=gains.__getitem__)
                if equal
                else min(plain, key=lambda g: (costs[g] / gains[g], -gains[g]))
            )
            left = [p for p in bad if holds(strongest, p)]
            kept, bad, rest = [*kept, strongest], left, [g for g in rest if g is not strongest]
        return kept

    def _missing(self, points: Sequence[Point]) -> list[Any]:
        """Conditions that keep out what is left: on one symbol each, or relations of two where those would say too
        much.
        """
        wrong = [p for p in points if self.fits(p) is False]
        right = [p for p in points if self.fits(p) and 0 not in p.values()]
        plain = self._bounds(points)
        if all(holds(condition, p) for condition in plain for p in right):
            return plain
        found: list[Any] = []
        relations = [r for r in self._relations() if holds(r, self.hint) and all(holds(r, p) for p in right)]
        while wrong and relations:
            strongest = max(relations, key=lambda r: sum(not holds(r, p) for p in wrong))
            left = [p for p in wrong if holds(strongest, p)]
            if len(left) == len(wrong):
                break
            found, wrong = [*found, strongest], left
        found += self._bounds([p for p in points if all(holds(r, p) for r in found)])
        return plain if any(all(holds(c, p) for c in found) for p in wrong) else found

    def _bounds(self, points: Sequence[Point]) -> list[Any]:
        """Conditions on one symbol each, from the points where all others have their hints."""
        found = []
        for symbol in self.symbols:
            values = {}
            for point in points:
                if all(point[s] == self.hint[s] for s in self.symbols if s != symbol):
                    values[point[symbol]] = self.fits(point)
            bad = sorted(value for value, fits in values.items() if fits is False)
            good = sorted(value for value, fits in values.items() if fits)
            if bad:
                found.append(_separates(symbol, bad, good))
        return found

    def _relations(self) -> Iterator[Any]:
        """What an op may ask of two sizes: that they are equal, that the one is no larger, or that it broadcasts."""
        for one, other in itertools.permutations(self.symbols, 2):
            # The op must refuse a larger one, and a smaller other, with all else as it was.
            larger = {**self.hint, one: self.hint[other] + 1}
            smaller = {**self.hint, other: max(self.hint[one] - 1, 0)}
            if self.fits(larger) is not False or self.fits(smaller) is not False:
                continue
            # Where they are just equal it is content, or something else is what it refuses.
            equal = ({**self.hint, one: self.hint[other]}, {**self.hint, other: self.hint[one]})
            if any(self.fits(point) is False for point in equal):
                continue
            same = sympy.Eq(one, other, evaluate=False)
            yield same
            yield sympy.Le(one, other, evaluate=False)
            yield sympy.Or(same, sympy.Eq(one, 1, evaluate=False), evaluate=False)

    # -- where to try ------------------------------------------------------------------------------------

    def _points(self, guards: Sequence[Any], lowest: int) -> list[Point]:
        own = set(self.symbols)
        involved = [s for s in self.symbols if any(s in g.free_symbols for g in guards)]
        candidates = {s: _candidates(s, guards, self.hint[s], lowest) for s in self.symbols}
        points = [{**self.hint, s: value} for s in self.symbols for value in candidates[s]]
        points += [dict.fromkeys(self.symbols, value) for value in range(lowest, 4)]
        points += [
            {**dict.fromkeys(self.symbols, value), s: self.hint[s]} for value in (lowest, 1) for s in self.symbols
        ]
        if len(involved) > 1 and own >= set(involved):
            each = max(2, int(_GRID ** (1 / len(involved))))  # of many symbols, the smallest sizes
            values = itertools.product(*(candidates[s][:each] for s in involved))
            grid = sorted(itertools.islice(values, _GRID), key=lambda values: (max(values), values))[:_POINTS]
            points += [{**self.hint, **dict(zip(involved, values, strict=True))} for values in grid]
        return points

    def fits_example(self) -> bool | None:
        """Whether the op gives the sizes of the symbolic run for those that it had."""
        return self.fits(self.hint) if len(self.hint) == len(self.symbols) else None

    def fits(self, point: Point) -> bool | None:
        """Whether the op gives the sizes of the symbolic run at a point; ``None`` where that cannot be tried."""
        key = tuple(point[s] for s in self.symbols)
        if key not in self._seen:
            found = self._run(point, True) if self._takes[True] else None
            if found is None and self._takes[False]:
                found = self._run(point, False)
            self._seen[key] = found
        return self._seen[key]

    def fitting(self) -> tuple[Point, bool] | None:
        """Other sizes, one or two, for which an op runs that does not at the hints; and whether they are sizes of
        others.

        Tried are other unknown sizes, known ones, both times and by the numbers among the arguments, and small numbers.
        """
        if not self.symbols or len(self.hint) < len(self.symbols) or self.runs(self.hint):
            return None
        tries = iter(range(_TRIES))
        numbers = {leaf for leaf in self.leaves if isinstance(leaf, int) and leaf > 1}
        known = {size for leaf in self.leaves for size in _expressions(leaf) if isinstance(size, int)}
        known |= numbers
        choices = [(_scaled(self.hint.values(), numbers), True), (_scaled(known, numbers), False)]
        for change in self._as_listed():
            if self.runs({**self.hint, **change}):
                return change, False
        for count, (values, are_others) in itertools.product((1, 2), choices):
            for symbols in itertools.combinations(self.symbols, count):
                for chosen in itertools.islice(itertools.product(values, repeat=count), _POINTS):
                    change = dict(zip(symbols, chosen, strict=True))
                    if next(tries, None) is None:
                        break
                    if self.runs({**self.hint, **change}):
                        return change, are_others
        for count, value in itertools.product((1, 2), (*range(2, 9), 1)):
            for symbols in itertools.combinations(self.symbols, count):
                if self.runs({**self.hint, **(change := dict.fromkeys(symbols, value))}):
                    return change, False
        return None

    def _as_listed(self) -> Iterator[Point]:
        """The last sizes of one tensor, or of all, as a list among the arguments has them: ``x.view(4, 5)``."""
        args, kwargs = pytree.tree_unflatten(self.leaves, self.spec)
        lists = [each for each in [*args, *kwargs.values()] if isinstance(each, (list, tuple))]
        for numbers in filter(None, lists):
            together: Point = {}
            for leaf in self.leaves:
                if isinstance(leaf, torch.Tensor) and len(numbers) <= leaf.dim():
                    pairs = zip(_expressions(leaf)[-len(numbers) :], numbers, strict=True)
                    change = {size: n for size, n in pairs if size in self.hint and isinstance(n, int) and n >= 0}
                    together |= change
                    yield change
            yield together

    def runs(self, point: Point) -> bool:
        """Whether the op raises nothing at a point, on real tensors where it takes those and they are small."""
        for is_real in (self._takes[True], False):
            try:
                leaves = [_concrete(leaf, point, is_real) for leaf in self.leaves]
                args, kwargs = pytree.tree_unflatten(leaves, self.spec)
                with torch.no_grad(), self._checked():
                    self.function(*args, **kwargs)
                return True
            except (_Unknown, NotImplementedError):
                continue
            except _ERRORS:
                return False
        return False

    def _run(self, point: Point, is_real: bool) -> bool | None:
        try:
            leaves = [_concrete(leaf, point, is_real) for leaf in self.leaves]
            expected = [[self._expected(size, point) for size in sizes] for sizes in self.expected]
        except (_Unknown, *_ERRORS):
            return None
        if any(size < 0 for leaf in leaves for size in _expressions(leaf)):
            return None
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        try:
            with torch.no_grad(), self._checked():
                result = self.function(*args, **kwargs)
        except NotImplementedError:
            return None
        except _ERRORS:
            return False
        got = [_expressions(leaf) for leaf in pytree.tree_leaves(result)]
        if len(got) != len(expected):
            return False
        return all(
            len(sizes) == len(wanted) and all(n is None or n == size for size, n in zip(sizes, wanted, strict=True))
            for sizes, wanted in zip(got, expected, strict=True)
        )

    def _expected(self, size: Any, point: Point) -> int | None:
        """A size of a result; ``None`` for one that depends on data."""
        is_told = isinstance(size, int) or size.free_symbols <= set(self.symbols)
        return _value(size, point) if is_told else None

    def _checked(self) -> AbstractContextManager[Any]:
        """Of the kernels of attention for CPUs only one checks sizes."""
        is_attention = _name_of(self.function) == "aten::scaled_dot_product_attention"
        return sdpa_kernel(SDPBackend.MATH) if is_attention else nullcontext()


def hints(environment: ShapeEnv) -> Mapping[sympy.Symbol, int]:
    """The value of every symbol at which a ``ShapeEnv`` makes its choices."""
    name = "backed_var_to_val" if hasattr(environment, "backed_var_to_val") else "var_to_val"
    return getattr(environment, name)


def _is_shortcut(guard: Any) -> bool:
    """Whether a guard only keeps out 1, as one does of an op that asks whether to broadcast."""
    return (isinstance(guard, sympy.Ne) and 1 in guard.args) or (isinstance(guard, sympy.Ge) and guard.rhs == 2)


def _hints_of(leaves: Sequence[Any]) -> Mapping[sympy.Symbol, int]:
    sizes = [size for leaf in leaves for size in (leaf.shape if isinstance(leaf, torch.Tensor) else [leaf])]
    environments = [size.node.shape_env for size in sizes if isinstance(size, torch.SymInt)]
    return hints(environments[0]) if environments else {}


def _name_of(function: Any) -> str:
    """The name of an op, and of a function in Python the one that an op for it would have."""
    schema = getattr(function, "_schema", None)
    return f"aten::{getattr(function, '__name__', '')}" if schema is None else schema.name


def may_crash(name: str) -> bool:
    """Whether an op on real tensors of sizes that do not fit may end the process."""
    return name in _WITHOUT_DATA or "_backward" in name


class _Unknown(Exception):
    """A size that the point says nothing of, or an argument that is too large to try."""


def _expressions(leaf: Any) -> list[Any]:
    """The sizes of a leaf: of a tensor all, of a symbolic number itself."""
    if isinstance(leaf, torch.Tensor):
        return [size.node.expr if isinstance(size, torch.SymInt) else int(size) for size in leaf.shape]
    return [leaf.node.expr] if isinstance(leaf, torch.SymInt) else []


def _value(size: Any, point: Point) -> int:
    if isinstance(size, int):
        return size
    if isinstance(size, sympy.Symbol) and size in point:
        return point[size]
    found = size.xreplace({symbol: sympy.Integer(value) for symbol, value in point.items()})
    if not found.is_number:
        raise _Unknown
    return int(found)


def _concrete(leaf: Any, point: Point, is_real: bool) -> Any:
    if isinstance(leaf, torch.SymInt):
        return _value(leaf.node.expr, point)
    if isinstance(leaf, (torch.SymFloat, torch.SymBool)):
        raise _Unknown
    if not isinstance(leaf, torch.Tensor):
        return leaf
    sizes = [_value(size, point) for size in _expressions(leaf)]
    if not is_real:
        return torch.empty(sizes, dtype=leaf.dtype, device="meta")
    if math.prod(sizes) > _SMALL:
        raise _Unknown
    is_float = leaf.dtype.is_floating_point or leaf.dtype.is_complex or leaf.dtype == torch.bool
    return torch.full(sizes, is_float, dtype=leaf.dtype)


def holds(guard: Any, point: Mapping[sympy.Symbol, int]) -> bool:
    """Whether a condition holds at a point, which may say nothing of its symbols."""
    if guard in (sympy.true, sympy.false):
        return bool(guard)
    if not guard.free_symbols <= set(point):
        return True
    try:
        found = guard.xreplace({symbol: sympy.Integer(value) for symbol, value in point.items()})
        return bool(found)
    except (TypeError, ZeroDivisionError, RuntimeError):
        return False


def _candidates(symbol: sympy.Symbol, guards: Sequence[Any], hint: int, lowest: int) -> list[int]:
    """Sizes at which the truth of a guard may change, and 0 and 1."""
    values = {0, 1, hint}
    for guard in guards:
        if symbol not in guard.free_symbols:
            continue
        values |= {2, 3, 4, 5, 6, 8}
        for number in _constants(guard):
            values |= {number - 1, number, number + 1, 2 * number}
    return sorted(value for value in values if lowest <= value <= 1 << 16)


def _scaled(sizes: Iterable[int], factors: Iterable[int]) -> list[int]:
    found = sorted(sizes)
    found += [size * factor for factor in sorted(factors) for size in found]
    found += [size // factor for factor in sorted(factors) for size in found if size % factor == 0]
    return [size for size in dict.fromkeys(found) if 1 < size <= _LARGEST]


def _constants(expression: Any) -> Iterator[int]:
    for number in expression.atoms(sympy.Integer):
        yield abs(int(number))
    for division in expression.atoms(sympy.Mul):
        yield abs(math.prod(int(part) for part in division.args if part.is_Integer))


def _separates(symbol: sympy.Symbol, bad: Sequence[int], good: Sequence[int]) -> Any:
    """The plainest condition on a size that no bad value meets and every good one does, as far as there is one."""
    if not good or bad[-1] < good[0]:
        return sympy.Ge(symbol, bad[-1] + 1, evaluate=False)  # sizes of an export are positive, for sympy
    if good[-1] < bad[0]:
        return sympy.Le(symbol, bad[0] - 1, evaluate=False)
    for factor in range(2, 65 if len(bad) > 1 else 2):
        if all(v % factor for v in bad) and not any(v % factor for v in good):
            return sympy.Eq(sympy.Mod(symbol, factor), 0)
    return sympy.And(*(sympy.Ne(symbol, value, evaluate=False) for value in bad), evaluate=False)


__all__ = ["Probe", "hints", "holds"]
