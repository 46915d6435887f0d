"""What the importers share: tensors with views and in-place updates become value-semantic operations.

Reading a view replays its chain when the base has changed since; writing through a view scatters the new value
back into the base. So the dialect never sees a mutation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils import _pytree as pytree

from torch_tvm.aten.calls import draws
from torch_tvm.dialect import view
from torch_tvm.dialect.emitter import Emitter, dialect_name
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording import (
    aliases,
    composites,
    custom_writes,
    fake_results,
    hidden_writes,
    inverses,
)
from torch_tvm.importers.recording.argument_strides import BY_LAYOUT, BY_STRIDES, StrideDependence
from torch_tvm.importers.recording.functional_siblings import functional_sibling
from torch_tvm.importers.recording.memory_order import note_memory_order
from torch_tvm.importers.recording.number_ranges import check_numbers
from torch_tvm.importers.recording.storages import SOURCE, Place, Storage, TensorRef, ViewStep
from torch_tvm.importers.size_probe import Probe
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten

_FILL_DIAGONAL = "write through x.diagonal(), or compile for one size"


class Recorder:
    """Turns calls of ATen ops on ``TensorRef``s into operations of an :class:`Emitter`."""

    def __init__(self, emitter: Emitter, *, is_guarded: bool = False) -> None:
        """``is_guarded`` says that the program is only ever called with the strides of its arguments now."""
        self.emitter = emitter
        self.is_guarded = is_guarded
        self.strides = StrideDependence()
        self._written: list[dict[int, tuple[Storage, ir.Value]]] = []
        self._cached: list[list[Place]] = []

    def tensor(self, value: ir.Value, meta: torch.Tensor, argument: int | None = None) -> TensorRef:
        """A fresh base tensor; ``argument`` is its index when it is an argument of the function."""
        return self.whole(Storage(value, meta, argument))

    def whole(self, storage: Storage) -> TensorRef:
        """A new object for all of a storage, which belongs to the regions that are open."""
        storage.depth = self.depth
        return TensorRef(Place(storage, storage.meta))

    @property
    def depth(self) -> int:
        """How many regions are open."""
        return len(self._written)

    # -- reading and writing -------------------------------------------------------------------------

    def read(self, ref: TensorRef) -> ir.Value:
        """The current value, replaying the view chain when the base has been written since."""
        self.strides.read(ref.place)
        return self.value(ref.place)

    def value(self, place: Place) -> ir.Value:
        """What :meth:`read` gives for a tensor at ``place``; the program itself does not read it."""
        if place.parent is None or place.step is None:
            return place.storage.value
        if place.value is None or place.version != place.storage.version:
            args, kwargs = self.replayed(place.step, self.value(place.parent))
            results = self.emitter.call(place.step.overload, args, kwargs, place.step.metas)
            self._cache(place, place.step.pick(results))
        assert place.value is not None
        return place.value

    def replayed(self, step: ViewStep, parent: ir.Value) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a view op with another value for the parent."""
        replace = lambda item: parent if item is SOURCE else item
        args = [[replace(item) for item in arg] if isinstance(arg, list) else replace(arg) for arg in step.args]
        return tuple(args), step.kwargs

    def _cache(self, place: Place, value: ir.Value) -> None:
        place.value, place.version = value, place.storage.version
        if self._cached:
            self._cached[-1].append(place)

    def write(self, ref: TensorRef, value: ir.Value) -> None:
        """Give ``ref`` a new value; every alias sees it."""
        self.strides.written(ref.place)
        self._write(ref.place, value)

    def write_storage(self, storage: Storage, value: ir.Value) -> None:
        """Give all of a storage a new value."""
        self.strides.written(Place(storage, storage.meta))
        self._write_storage(storage, value)

    def _write_storage(self, storage: Storage, value: ir.Value) -> None:
        if self._written and id(storage) not in self._written[-1]:
            self._written[-1][id(storage)] = (storage, storage.value)
        storage.value = value
        storage.version += 1

    def _write(self, place: Place, value: ir.Value) -> None:
        if place.parent is None or place.step is None:
            self._write_storage(place.storage, value)
            return
        self._write(place.parent, inverses.scatter(self, place.parent, place.step, value))
        if place.step.name not in inverses.EXPANSIONS:  # there other elements may have changed as well
            self._cache(place, value)

    @contextmanager
    def region(self) -> Iterator[dict[int, tuple[Storage, ir.Value]]]:
        """Collects the storages written inside, each with its value before, and restores them at the end.

        The caller reads the values after from the storages before the context ends.
        """
        written: dict[int, tuple[Storage, ir.Value]] = {}
        self._written.append(written)
        self._cached.append([])
        try:
            yield written
        finally:
            self._written.pop()
            for place in self._cached.pop():
                place.value, place.version = None, -1
            for storage, before in written.values():
                storage.value = before
                storage.version += 1

    # -- calls -----------------------------------------------------------------------------------------

    def call(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        metas: Sequence[Any],
    ) -> list[Any]:
        """Record one op. ``metas`` holds a fake tensor, a list of them or a scalar per schema result.

        Returns a ``TensorRef``, a list of them, or an ``ir.Value`` per schema result.
        """
        if overload is aten.kthvalue.default and args[0].meta.dim() == 0:
            # torch-mlir verifies that the dimension is one of none; of one number every order gives the same.
            overload, args, kwargs = aten.max.dim, [args[0], 0, False], {}
        if overload is aten.count_nonzero.default and args[0].meta.dim() == 0:
            args, kwargs = [args[0], None], {}
        if overload is aten.pow.Tensor_Scalar and isinstance(args[1], bool) and args[0].meta.dtype == torch.bool:
            raise ImportFailed(
                "a power of bools: eager PyTorch gives bools and its fake tensors integers",
                subject=dialect_name(overload),
                advice="use a clone, or torch.ones_like for the power False",
            )
        if composites.is_of_lists(overload):
            parts = composites.parts_of(self, overload, args, kwargs)
            if parts is not None:
                return parts
        _try_without_elements(overload, args, kwargs, metas)
        check_numbers(overload, bound_arguments(overload, args, kwargs), metas)
        name = overload._schema.name
        if name in fake_results.CORRECTIONS:
            metas = fake_results.CORRECTIONS[name](bound_arguments(overload, args, kwargs), metas)
        if name in hidden_writes.HANDLERS:
            results = hidden_writes.HANDLERS[name](self, bound_arguments(overload, args, kwargs))
            if results is not None:
                return results
        if name in RESTRIDES:
            return [self._restride(overload, args, kwargs, metas)]
        if overload._schema.is_mutable:
            return self._mutate(overload, args, kwargs, metas)
        return self._pure(overload, args, kwargs, metas)

    def run(self, overload: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
        """Record an op that the importer adds itself; its results are like what it gives for fake tensors."""
        fakes, named = _fakes(list(args)), _fakes(kwargs)
        with torch.no_grad():
            results = overload(*fakes, **named)
        is_single = len(overload._schema.returns) == 1
        recorded = self.call(overload, args, kwargs, [results] if is_single else list(results))
        return recorded[0] if is_single else recorded

    def _pure(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        metas: Sequence[Any],
    ) -> list[Any]:
        """An op that writes nothing; results may be views of its arguments."""
        name = overload._schema.name
        if overload is aten.as_strided.default:
            args, kwargs = self._from_memory(args, kwargs)
        elif name in BY_STRIDES:
            self.strides.by_strides(args[0].meta)
        sources = {
            path: aliases.aliased(overload, args, meta, path)
            for path, meta in _leaves(metas)
            if isinstance(meta, torch.Tensor)
        }
        viewed = [aliases.at(args, source) for source in sources.values() if source is not None]
        given, named = self._values(list(args), viewed), self._values(kwargs)
        values = self.emitter.call(overload, given, named, metas)
        self._note_draws(overload, args, kwargs, values)

        def wrap(value: Any, meta: Any, *path: int) -> Any:
            if isinstance(meta, (list, tuple)):
                return [wrap(v, m, *path, i) for i, (v, m) in enumerate(zip(value, meta, strict=True))]
            if not isinstance(meta, torch.Tensor):
                return value
            source = sources[path]
            if source is None:
                return self.tensor(value, meta)
            argument = aliases.at(args, source)
            is_argument = aliases.is_argument(overload, argument.meta, meta)
            if is_argument and name not in BY_LAYOUT:
                return argument
            parent = argument.place
            step = ViewStep(overload, tuple(_with_source(given, source)), named, tuple(metas), path)
            place = Place(parent.storage, meta, parent, step)
            self._cache(place, value)
            return argument.twin(place) if is_argument else TensorRef(place)

        results = [wrap(value, meta, i) for i, (value, meta) in enumerate(zip(values, metas, strict=True))]
        if name in BY_LAYOUT:
            self.strides.made(args[0].place, results[0].place)
        return results

    def _note_draws(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        values: Sequence[Any],
        in_place: bool = False,
    ) -> None:
        """Of a call that draws numbers, along which memory it does."""
        if not draws(overload, args, kwargs):
            return
        operands = _metas(overload, args, kwargs)
        if note_memory_order(overload, values, operands, in_place=in_place, is_guarded=self.is_guarded):
            self.strides.asks("dense")

    def _from_memory(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """``as_strided`` addresses the memory behind its argument: all of the storage, as it lies."""
        ref, size, stride = args[0], *args[1:3]
        offset = args[3] if len(args) > 3 else kwargs.get("storage_offset")
        root = TensorRef(ref.place.root)
        self.strides.asks("whole")
        order = sorted(range(root.meta.dim()), key=lambda axis: -int(root.meta.stride(axis)))
        if not root.meta.is_contiguous():
            root = self.run(aten.permute.default, root, order)
        if not root.meta.is_contiguous() or root.meta.storage_offset() != 0:
            raise ImportFailed(
                "the memory of this tensor is not a whole",
                subject="torch.aten.as_strided",
                advice="make it contiguous before as_strided",
            )
        start = ref.meta.storage_offset() if offset is None else offset
        return [root, size, stride, start], {}

    def _values(self, item: Any, viewed: Sequence[TensorRef] = ()) -> Any:
        """Arguments with values for tensors, all of which are read but those that are only ``viewed``."""
        if isinstance(item, TensorRef):
            return self.value(item.place) if item in viewed else self.read(item)
        if isinstance(item, dict):
            return {key: self._values(value, viewed) for key, value in item.items()}
        if isinstance(item, (list, tuple)):
            return [self._values(value, viewed) for value in item]
        return item

    # -- writes ----------------------------------------------------------------------------------------

    def _mutate(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        metas: Sequence[Any],
    ) -> list[Any]:
        """An in-place or out= op: its functional sibling, then a write to each mutated argument."""
        schema = overload._schema
        defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        bound = defaults | bound_arguments(overload, args, kwargs)
        written = (a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
        targets = [bound[name] for name in written if isinstance(bound.get(name), TensorRef)]
        if schema.name == "aten::copy_":
            self._copy_into(targets[0], bound["src"])
            return [targets[0]]
        if schema.name == "aten::fill_diagonal_":
            self._fill_diagonal(targets[0], bound["fill_value"], bound.get("wrap", False))
            return [targets[0]]
        try:
            functional, names = functional_sibling(overload)
        except ImportFailed:
            if custom_writes.is_custom(overload):
                return custom_writes.record_custom_write(self, overload, bound)
            raise
        inputs = {names[name]: value for name, value in bound.items() if name in names}
        count = len(functional._schema.returns)
        extra = list(metas[: count - len(targets)]) if count > len(targets) else []
        has_out = len(names) < len(schema.arguments)
        if has_out:
            self._resize_outputs(targets, metas)
        all_metas = _functional_metas(functional, inputs, extra, targets)
        extra, promoted = all_metas[: len(extra)], all_metas[len(extra) :]
        values = self.emitter.call(functional, *self._positional(functional, inputs), all_metas)
        self._note_draws(functional, (), inputs, values, in_place=True)
        for target, meta, value in zip(targets, promoted, values[len(extra) :], strict=True):
            if not has_out and _may_broadcast(target, inputs.values()):
                value = self.emitter.call(aten.expand.default, (value, self.sizes(target)), {}, [meta])[0]
            self.write(target, self._cast(value, meta, target.meta.dtype))
        returned = [
            self.tensor(value, meta) if isinstance(meta, torch.Tensor) else value
            for value, meta in zip(values, extra, strict=False)
        ]
        return [*returned, *targets][: max(1, len(schema.returns))]

    def _resize_outputs(self, targets: Sequence[TensorRef], metas: Sequence[Any]) -> None:
        """``out=`` tensors of another shape than the result's are given that one, as eager does."""
        for target, meta in zip(targets, metas, strict=False):
            if isinstance(meta, torch.Tensor) and not _same_sizes(meta.shape, target.meta.shape):
                self._resize(target, list(meta.shape))

    def _positional(self, overload: torch._ops.OpOverload, inputs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Bound arguments as positional ones for as long as none is missing."""
        args: list[Any] = []
        rest = dict(inputs)
        for argument in overload._schema.arguments:
            if argument.kwarg_only or argument.name not in rest:
                break
            args.append(self._values(rest.pop(argument.name)))
        return args, self._values(rest)

    def _cast(self, value: ir.Value, meta: torch.Tensor, dtype: torch.dtype) -> ir.Value:
        if meta.dtype == dtype:
            return value
        cast = torch.empty_like(meta, dtype=dtype)
        return self.emitter.call(aten._to_copy.default, (value,), {"dtype": dtype}, [cast])[0]

    def _copy_into(self, target: TensorRef, source: Any) -> None:
        value = self._values(source)
        meta = target.meta
        if not isinstance(source, TensorRef):
            value = self.emitter.call(aten.full_like.default, (self.value(target.place), value), {}, [meta])[0]
        else:
            value = self._cast(value, source.meta, meta.dtype)
            if not _has_shape_of(value, source.meta, meta):
                sizes = self.sizes(target.place)
                value = self.emitter.call(aten.expand.default, (value, sizes), {}, [meta])[0]
        self.write(target, value)

    def _fill_diagonal(self, target: TensorRef, number: Any, wrap: bool) -> None:
        if not all(isinstance(size, int) for size in target.meta.shape):
            raise ImportFailed(
                "the size of the tensor is not known",
                subject="torch.aten.fill_diagonal_",
                advice=_FILL_DIAGONAL,
            )
        shape = [int(size) for size in target.meta.shape]
        where = torch.zeros(shape, dtype=torch.bool).fill_diagonal_(True, wrap)
        mask = self.emitter.literal(where, "diagonal")
        value = self.emitter.call(aten.masked_fill.Scalar, (self.read(target), mask, number), {}, [target.meta])[0]
        self.write(target, value)

    def sizes(self, place: Place | TensorRef) -> list[Any]:
        """The shape of a tensor as numbers and, where a size is symbolic, values of type ``!torch.int``."""
        place = place.place if isinstance(place, TensorRef) else place
        sizes: list[Any] = []
        for axis, size in enumerate(place.meta.shape):
            if isinstance(size, int):
                sizes.append(size)
            else:
                sizes.append(self.emitter.call(aten.size.int, (self.value(place), axis), {}, [0])[0])
        return sizes

    # -- in-place changes of shape ---------------------------------------------------------------------

    def _restride(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        metas: Sequence[Any],
    ) -> TensorRef:
        """``x.unsqueeze_(0)`` and its kin: the same object sees its memory differently from now on."""
        target: TensorRef = args[0]
        name = overload._schema.name
        if name == "aten::detach_":
            return target
        if target.storage.depth < self.depth:
            stem = name.removeprefix("aten::")
            raise ImportFailed(
                f"{stem} inside a run-time branch or loop",
                advice=f"use {stem.removesuffix('_')} and a new name",
            )
        if name == "aten::set_":
            if overload is not aten.set_.source_Tensor:
                raise ImportFailed("only set_ to another tensor is supported", subject=dialect_name(overload))
            self._move(target, self._pure(aten.alias.default, [args[1]], {}, [args[1].meta])[0])
        elif name == "aten::resize_as_":
            self._resize(target, self.sizes(args[1]))
        elif name == "aten::resize_":
            self._resize(target, list(args[1]))
        else:
            functional, _ = functional_sibling(overload)
            self._move(target, self._pure(functional, args, kwargs, metas)[0])
        return target

    def _move(self, target: TensorRef, to: TensorRef) -> None:
        """``target`` sees what ``to`` sees from now on, as do its twins."""
        self.strides.moved(target.place)
        for twin in target.twins:
            twin.place = to.place

    def _resize(self, target: TensorRef, sizes: list[Any]) -> None:
        """The start of the object's memory in another shape; elements that were not there have no value."""
        root, meta = target.place.root, target.meta
        if not all(isinstance(size, int) for size in (*sizes, *root.meta.shape, *meta.shape)):
            raise ImportFailed(
                "resize_ needs sizes that are known when the program is imported",
                subject="torch.aten.resize_",
                advice="create a new tensor",
            )
        if sizes == list(meta.shape):
            return
        needed, present = math.prod(sizes), root.meta.numel() - meta.storage_offset()
        if needed > present and root.meta.numel() > 0:
            raise ImportFailed(
                f"resize_ gives a tensor of {present} elements {needed}: the others have no value",
                subject="torch.aten.resize_",
                advice="create a new tensor",
            )
        if needed > present:
            like = meta.new_empty(sizes)
            zeros = self.emitter.call(aten.zeros.default, (sizes,), {"dtype": meta.dtype}, [like])[0]
            self._move(target, self.tensor(zeros, like))
            return
        strides = list(torch.empty(sizes, device="meta").stride())
        self._move(target, self.run(aten.as_strided.default, target, sizes, strides))


RESTRIDES = {
    f"aten::{name}_"
    for name in (
        "as_strided",
        "detach",
        "resize",
        "resize_as",
        "set",
        "squeeze",
        "swapaxes",
        "swapdims",
        "t",
        "transpose",
        "unsqueeze",
    )
}


def check_in_place(ref: TensorRef, what: str) -> None:
    """Raise when the program gave a tensor of its caller's, or a part of its state, another shape in place."""
    meta, made = ref.meta, ref.made
    same = ref.place is made or (
        ref.storage is made.storage
        and tuple(meta.shape) == tuple(made.meta.shape)
        and meta.stride() == made.meta.stride()
        and meta.storage_offset() == made.meta.storage_offset()
    )
    if not same:
        raise reshaped_in_place(what)


def reshaped_in_place(what: str) -> ImportFailed:
    return ImportFailed(
        f"the program changes the shape, or the memory, of {what} in place",
        advice="give the changed tensor another name: y = x.unsqueeze(0)",
    )


def bound_arguments(overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The given arguments by the names of the schema."""
    return {
        **{argument.name: value for argument, value in zip(overload._schema.arguments, args, strict=False)},
        **kwargs,
    }


def _leaves(metas: Sequence[Any], *path: int) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The results of an op, and those inside of lists, each with the way to it."""
    for index, meta in enumerate(metas):
        if isinstance(meta, (list, tuple)):
            yield from _leaves(meta, *path, index)
        else:
            yield (*path, index), meta


def _metas(overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Per argument of the schema the fake tensor that is given for it, or what else is."""
    given = bound_arguments(overload, args, kwargs)
    names = [argument.name for argument in overload._schema.arguments]
    return [item.meta if isinstance(item := given.get(name), TensorRef) else item for name in names]


def _with_source(given: list[Any], path: tuple[int, ...]) -> Iterator[Any]:
    for index, item in enumerate(given):
        if index != path[0]:
            yield item
        elif len(path) == 1:
            yield SOURCE
        else:
            yield [SOURCE if i == path[1] else each for i, each in enumerate(item)]


def _fakes(item: Any) -> Any:
    """Arguments with a fake tensor for each tensor, and a number for each that only run time knows."""
    if isinstance(item, TensorRef):
        return item.meta
    if isinstance(item, dict):
        return {key: _fakes(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_fakes(value) for value in item]
    return 1 if isinstance(item, ir.Value) else item


def _try_without_elements(
    overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any], metas: Sequence[Any]
) -> None:
    """Refuse a tensor without elements for which the op raises, or gives another shape than fake tensors say.

    The first kernel is ``aten.pixel_unshuffle``, which gives a copy of it.
    """
    if any(isinstance(leaf, ir.Value) for leaf in pytree.tree_leaves((list(args), kwargs))):
        return  # a number that only run time knows
    given, named = _fakes(list(args)), _fakes(kwargs)
    leaves = [leaf for leaf in pytree.tree_leaves((given, named)) if isinstance(leaf, torch.Tensor)]
    # Asking whether an unknown size is 0 would leave a guard.
    empty = [any(isinstance(size, int) and size == 0 for size in leaf.shape) for leaf in leaves]
    if not any(empty):
        return
    has_indices = any(
        not leaf.dtype.is_floating_point and not is_empty for leaf, is_empty in zip(leaves, empty, strict=True)
    )
    if has_indices or overload._schema.is_mutable or torch.Tag.nondeterministic_seeded in overload.tags:
        return  # whether positions are out of range is for the call to say
    if Probe(overload, given, named, list(metas)).fits_example() is False:
        raise ImportFailed(
            "for a tensor without elements, eager PyTorch raises or gives another shape than its fake tensors do",
            subject=dialect_name(overload),
            advice="leave the op out where there are no elements",
        )


def _functional_metas(
    functional: torch._ops.OpOverload, inputs: dict[str, Any], extra: list[Any], targets: Sequence[TensorRef]
) -> list[Any]:
    """What the functional sibling gives: the ``extra`` results, then a new value for each target."""
    count = len(extra)
    metas = [*extra, *(_promoted(functional, inputs, t.meta, count + i) for i, t in enumerate(targets))]
    correction = fake_results.CORRECTIONS.get(functional._schema.name)
    return list(correction(inputs, metas)) if correction else metas


def _promoted(
    overload: torch._ops.OpOverload, inputs: dict[str, Any], target: torch.Tensor, index: int
) -> torch.Tensor:
    """What the functional op returns where an in-place one returns ``target``: its dtype may be another."""

    def probe(item: Any) -> Any:
        if isinstance(item, TensorRef):
            return torch.empty([1] * item.meta.dim(), dtype=item.meta.dtype, device="meta")
        if isinstance(item, (list, tuple)):
            return [probe(each) for each in item]
        return 1 if isinstance(item, ir.Value) else item

    try:
        result = overload(**{name: probe(item) for name, item in inputs.items()})
    except (RuntimeError, TypeError, IndexError, ValueError, ArithmeticError):
        return target
    result = result[index] if isinstance(result, (tuple, list)) else result
    dtype = result.dtype if isinstance(result, torch.Tensor) else target.dtype
    return target if dtype == target.dtype else torch.empty_like(target, dtype=dtype)


def _has_shape_of(value: ir.Value, meta: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether ``value``, like ``meta``, is known to have the shape of ``other``."""
    kind = view.tensor_type(value)
    if kind is None or kind.shape is None or None not in kind.shape:
        return tuple(meta.shape) == tuple(other.shape)
    return _same_sizes(meta.shape, other.shape)


def _may_broadcast(target: TensorRef, inputs: Iterable[Any]) -> bool:
    """Whether an op over ``inputs`` may make more of an axis of ``target`` whose size depends on data."""
    for each in inputs:
        if isinstance(each, TensorRef) and each is not target:
            pairs = zip(reversed(target.meta.shape), reversed(each.meta.shape), strict=False)
            if any(free_unbacked_symbols(_symbol(a)) and _symbol(a) != _symbol(b) for a, b in pairs):
                return True
    return False


def _same_sizes(shape: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two shapes are one, also where an op on fake tensors has taken sizes that depend on data for equal."""
    return [_symbol(size) for size in shape] == [_symbol(size) for size in other]


def _symbol(size: Any) -> Any:
    """What a size was called before anything was found out about it."""
    return size.node._expr if isinstance(size, torch.SymInt) else size
