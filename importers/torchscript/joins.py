"""Joining what two paths of the program made of a value, and widening what a loop carries.

A structure (tuple, list, object, ...) is walked leaf by leaf: what both sides agree on stays known, the rest
becomes a ``Slot``: a result of ``torch.prim.If``, or a carried value of ``torch.prim.Loop``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_tvm.aten.dtypes import SCALAR_DTYPE, dtype_name
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.values import (
    RUNTIME_TEXT,
    UNINITIALIZED,
    Container,
    DictValue,
    ListValue,
    Maybe,
    ObjectValue,
    RuntimeText,
    Scalar,
    Stack,
    children,
    kind_of,
    maybe_parts,
    rebuild,
)


class Slot:
    """A leaf that is only known at run time: a number of ``kind``, or a tensor like ``meta``.

    ``unknown`` are the axes whose size changes from iteration to iteration; ``row`` is one element of a stacked list.
    """

    __slots__ = ("kind", "meta", "row", "unknown")

    def __init__(self, kind: str, meta: torch.Tensor | None = None, unknown: frozenset[int] = frozenset()) -> None:
        self.kind = kind
        self.meta = meta
        self.unknown = unknown
        self.row: torch.Tensor | None = None

    def type_in(self, ev: Context) -> ir.Type:
        types = ev.emitter.types
        return types.tensor(self.meta) if self.meta is not None else types.parse(f"!torch.{self.kind}")

    def value(self, ev: Context, value: ir.Value, origin: frozenset[int]) -> Any:
        """The TorchScript value behind a result of this slot."""
        if self.meta is not None:
            return ev.recorder.tensor(value, self.meta)
        return ev.scalars.make(self.kind, value, None, origin)


def join_metas(
    ev: Context, a: torch.Tensor, b: torch.Tensor, what: str, unknown: frozenset[int] = frozenset()
) -> torch.Tensor:
    """A fake tensor of the type that both have; sizes that differ, and the ``unknown`` ones, are unknown."""
    if a.dtype != b.dtype:
        raise ev.failure(
            f"{what} is {dtype_name(a.dtype)} on one path and {dtype_name(b.dtype)} on another",
            advice="cast both to one dtype",
        )
    if a.dim() != b.dim():
        raise ev.failure(
            f"{what} has rank {a.dim()} on one path and rank {b.dim()} on another",
            advice="give both paths the same rank, for example with unsqueeze",
        )
    pairs = list(zip(a.shape, b.shape, strict=True))
    same = [axis in unknown or is_same_size(x, y) for axis, (x, y) in enumerate(pairs)]
    if all(same):
        return a
    with ev.mode:
        sizes = [x if equal else unknown_size(ev) for (x, _), equal in zip(pairs, same, strict=True)]
        return torch.empty(sizes, dtype=a.dtype)


def unknown_size(ev: Context) -> torch.SymInt:
    """A size that is only known at run time."""
    size = ev.new_symbol()
    torch._check(size >= 0)
    return size


def is_same_size(x: Any, y: Any) -> bool:
    if isinstance(x, int) and isinstance(y, int):
        return x == y
    return bool(statically_known_true(x == y))


class Joiner:
    """Joins structures pairwise and collects the leaves that need slots.

    ``pairs`` holds per slot the two sides' leaves; ``frozen`` has per side the contents, at the end of that
    path, of the containers that it changed. A list that has different lengths becomes a stack.
    """

    def __init__(self, ev: Context, frozen: tuple[dict[int, Any], dict[int, Any]] = ({}, {})) -> None:
        self.ev = ev
        self.frozen = frozen
        self.slots: list[Slot] = []
        self.pairs: list[tuple[Any, Any]] = []

    def join(self, a: Any, b: Any, what: str) -> Any:
        """A structure whose run-time leaves are ``Hole``s."""
        if a is b:
            return a
        if isinstance(a, Stack) or isinstance(b, Stack):
            return self._stacks(a, b, what)
        if isinstance(a, Maybe) or isinstance(b, Maybe) or ((a is None) != (b is None) and _is_set(a, b)):
            (flag_a, value_a), (flag_b, value_b) = maybe_parts(a), maybe_parts(b)
            return Maybe(self.join(flag_a, flag_b, what), self.join(value_a, value_b, what))
        if isinstance(a, TensorRef) or isinstance(b, TensorRef):
            return self._tensors(a, b, what)
        if kind_of(a) is not None or kind_of(b) is not None:
            return self._numbers(a, b, what)
        if a is UNINITIALIZED or b is UNINITIALIZED:
            return self._uninitialized(a, b, what)
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            return rebuild(a, [self.join(x, y, f"{what}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))])
        if isinstance(a, Container) and type(a) is type(b) and a.children() and b.children():
            return a.rebuild([self.contents(*self._snapshots(a, b), what)])
        if type(a) is type(b) and a == b:
            return a
        if isinstance(a, str) and isinstance(b, str) and a.strip() and b.strip():
            return RuntimeText(RUNTIME_TEXT, self._disagree(a, b, what))
        raise self._disagree(a, b, what)

    def _snapshots(self, a: Container, b: Container) -> tuple[Any, Any]:
        sides = zip((a, b), self.frozen, strict=True)
        first, second = (frozen.get(id(each)) or each.snapshot() for each, frozen in sides)
        return first, second

    def contents(self, a: Any, b: Any, what: str) -> Any:
        """Snapshots of one container after the two paths."""
        if isinstance(a, dict):
            if a.keys() != b.keys():
                raise self.ev.failure(f"{what} has different keys on two run-time paths")
            return {key: self.join(a[key], b[key], f"{what}[{key!r}]") for key in a}
        if isinstance(a, Stack) or isinstance(b, Stack) or len(a) != len(b):
            return self._stacks(a, b, what)
        return [self.join(x, y, f"{what}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))]

    # -- leaves ------------------------------------------------------------------------------------------

    def _slot(self, slot: Slot, a: Any, b: Any) -> Any:
        self.slots.append(slot)
        self.pairs.append((a, b))
        return Hole(len(self.slots) - 1)

    def _tensors(self, a: Any, b: Any, what: str) -> Any:
        present = [leaf for leaf in (a, b) if leaf is not UNINITIALIZED]
        if not all(isinstance(leaf, TensorRef) for leaf in present):
            raise self._disagree(a, b, what)
        meta = present[0].meta
        if len(present) == 2:
            meta = join_metas(self.ev, a.meta, b.meta, what)
        return self._slot(Slot("tensor", meta), a, b)

    def _numbers(self, a: Any, b: Any, what: str) -> Any:
        if a is UNINITIALIZED or b is UNINITIALIZED:
            present = b if a is UNINITIALIZED else a
            return present if not isinstance(present, Scalar) else self._slot(Slot(present.kind), a, b)
        kinds = (kind_of(a), kind_of(b))
        if kinds[0] != kinds[1] or kinds[0] is None:
            raise self._disagree(a, b, what)
        if not isinstance(a, Scalar) and not isinstance(b, Scalar) and repr(a) == repr(b):
            return a
        return self._slot(Slot(kinds[0]), a, b)

    def _uninitialized(self, a: Any, b: Any, what: str) -> Any:
        present, is_first = (b, False) if a is UNINITIALIZED else (a, True)
        if isinstance(present, ListValue) and isinstance(present.items, Stack):
            sides = (present.items, []) if is_first else ([], present.items)
            return ListValue(self._stacks(*sides, what), present.type)
        if isinstance(present, (tuple, list, dict, ListValue, DictValue)):
            return rebuild(present, [self._against_nothing(x, is_first, what) for x in children(present)])
        return present

    def _against_nothing(self, item: Any, is_first: bool, what: str) -> Any:
        return self.join(item, UNINITIALIZED, what) if is_first else self.join(UNINITIALIZED, item, what)

    def _stacks(self, a: Any, b: Any, what: str) -> Stack:
        kind, row = stack_element(self.ev, [a, b], what)
        with self.ev.mode:
            meta = torch.empty([unknown_size(self.ev), *row.shape], dtype=row.dtype)
        slot = Slot("tensor", meta, frozenset({0}))
        slot.row = row
        hole = self._slot(slot, StackLeaf(kind, row, a), StackLeaf(kind, row, b))
        return Stack(kind, hole)

    def _disagree(self, a: Any, b: Any, what: str) -> Exception:
        return self.ev.failure(
            f"{what} is {describe(a)} on one path and {describe(b)} on another, chosen at run time",
            advice="give both paths a value of the same type",
        )


def _is_set(a: Any, b: Any) -> bool:
    """Whether the one of two values that is not ``None`` is a value at all."""
    return (b if a is None else a) is not UNINITIALIZED


class Widener(Joiner):
    """Widens what a loop carries by what one iteration made of it: leaves that change become slots."""

    def __init__(self, ev: Context, frozen: dict[int, Any]) -> None:
        super().__init__(ev, ({}, frozen))
        self.changed = False

    def join(self, a: Any, b: Any, what: str) -> Any:
        if isinstance(a, Slot):
            return self._again(a, b, what)
        if isinstance(a, Stack) and isinstance(a.tensor, Slot):
            return a
        joined = super().join(a, b, what)
        if isinstance(a, Maybe) and isinstance(joined, Maybe):
            return a if joined.flag is a.flag and joined.value is a.value else joined
        return joined

    def contents(self, a: Any, b: Any, what: str) -> Any:
        if isinstance(a, Stack) and (isinstance(a.tensor, Slot) or a is b):
            return a
        return super().contents(a, b, what)

    def _slot(self, slot: Slot, a: Any, b: Any) -> Any:
        self.changed = True
        return slot

    def _again(self, slot: Slot, b: Any, what: str) -> Slot:
        if b is UNINITIALIZED:
            return slot
        if slot.meta is None or not isinstance(b, TensorRef):
            if slot.kind != kind_of(b):
                raise self._disagree(slot, b, what)
            return slot
        meta = join_metas(self.ev, slot.meta, b.meta, what, slot.unknown)
        if meta is slot.meta:
            return slot
        self.changed = True
        pairs = enumerate(zip(slot.meta.shape, b.meta.shape, strict=True))
        return Slot("tensor", meta, slot.unknown | {axis for axis, (x, y) in pairs if not is_same_size(x, y)})


class Hole:
    """Stands for slot number ``index`` inside a joined structure."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class StackLeaf:
    """The elements of a list that have to become one stacked tensor of rows like ``row``."""

    __slots__ = ("items", "kind", "row")

    def __init__(self, kind: str, row: torch.Tensor, items: Any) -> None:
        self.kind = kind
        self.row = row
        self.items = items


def stack_element(ev: Context, sides: list[Any], what: str) -> tuple[str, torch.Tensor]:
    """What one element of a list is that has a run-time length: its kind and a fake tensor like it."""
    for side in sides:
        if isinstance(side, Stack):
            with ev.mode:
                return side.kind, torch.empty(side.tensor.meta.shape[1:], dtype=side.tensor.meta.dtype)
    items = [item for side in sides for item in side]
    if all(isinstance(item, TensorRef) for item in items):
        return _tensor_element(ev, items, what)
    kinds = {kind_of(item) for item in items}
    if len(kinds) != 1 or None in kinds:
        raise ev.failure(
            f"{what} has a length that is only known at run time, and its elements are neither tensors nor numbers"
        )
    kind = kinds.pop() or "int"
    dtype = SCALAR_DTYPE[kind]
    with ev.mode:
        return kind, torch.empty((), dtype=dtype)


def _tensor_element(ev: Context, items: list[TensorRef], what: str) -> tuple[str, torch.Tensor]:
    first = items[0].meta
    for item in items[1:]:
        same = first.dim() == item.meta.dim() and first.dtype == item.meta.dtype
        if not same or not all(is_same_size(x, y) for x, y in zip(first.shape, item.meta.shape, strict=True)):
            raise ev.failure(
                f"{what} has a length that is only known at run time, and its tensors differ in shape or dtype",
                advice="append tensors of one shape",
            )
    return "tensor", first


def describe(value: Any) -> str:
    """A value in an error message."""
    if isinstance(value, TensorRef) or (isinstance(value, Slot) and value.meta is not None):
        return "a tensor"
    kind = value.kind if isinstance(value, Slot) else kind_of(value)
    if kind is not None:
        return f"{'an' if kind == 'int' else 'a'} {kind}"
    names = {ListValue: "a list", DictValue: "a dict", ObjectValue: "an object"}
    return names.get(type(value), "None" if value is None else repr(value) if isinstance(value, str) else "a value")


def fill(structure: Any, replace: Callable[[Any], Any]) -> Any:
    """The structure with every ``Hole`` and ``Slot`` replaced; parts without any stay the same objects."""
    if isinstance(structure, (Hole, Slot)):
        return replace(structure)
    parts = children(structure)
    filled = [fill(part, replace) for part in parts]
    is_same = all(new is old for new, old in zip(filled, parts, strict=True))
    return structure if is_same else rebuild(structure, filled)


def match(pattern: Any, value: Any, frozen: dict[int, Any]) -> Iterator[tuple[Slot, Any]]:
    """Each ``Slot`` of a pattern with the leaf that stands at its place in ``value``."""
    if isinstance(pattern, Slot):
        yield pattern, value
    elif isinstance(pattern, Stack):
        if isinstance(pattern.tensor, Slot):
            yield (
                pattern.tensor,
                value if value is UNINITIALIZED else StackLeaf(pattern.kind, pattern.tensor.row, value),
            )
    elif isinstance(pattern, Maybe):
        flag, inner = maybe_parts(value)
        yield from match(pattern.flag, flag, frozen)
        yield from match(pattern.value, inner, frozen)
    elif isinstance(pattern, Container):
        contents = value
        if isinstance(value, Container):
            contents = frozen.get(id(value))
            contents = value.snapshot() if contents is None else contents
        if pattern is not value:
            for stored in children(pattern):
                yield from match(stored, contents, frozen)
    elif isinstance(pattern, dict):
        for key, item in pattern.items():
            yield from match(item, value if value is UNINITIALIZED else value[key], frozen)
    elif isinstance(pattern, (tuple, list)):
        for index, item in enumerate(pattern):
            yield from match(item, value if value is UNINITIALIZED else value[index], frozen)


def leaves(structure: Any, seen: set[int] | None = None) -> Iterator[TensorRef]:
    """The tensors inside a structure."""
    seen = set() if seen is None else seen
    if isinstance(structure, TensorRef):
        yield structure
        return
    if id(structure) in seen:
        return
    seen.add(id(structure))
    for item in children(structure):
        yield from leaves(item, seen)
