"""What the importers share: tensors with views and in-place updates become value-semantic operations.

A ``Storage`` is a base tensor with its current value; a ``TensorRef`` is that base seen through a chain of
views. Reading a view replays its chain when the base has changed since; writing through a view scatters
the new value back into the base. So the dialect never sees a mutation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from torch_tvm.dialect.emitter import Emitter, dialect_name
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.aliasing import BY_LAYOUT, BY_STRIDES, Aliasing
from torch_tvm.importers.memory_order import note_memory_order
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten

WITHOUT_SIBLING = ("aten::copy_", "aten::fill_diagonal_")
"""In-place ops with no functional form, whose writes the recorder spells out."""
_FILL_DIAGONAL = "write through x.diagonal(), or compile for one size"


class Storage:
    """A base tensor: its current value, how often it was written, and where it came from.

    ``depth`` is the number of open regions when it was made (0 for what belongs to the program itself).
    """

    __slots__ = ("argument", "depth", "meta", "value", "version")

    def __init__(self, value: ir.Value, meta: torch.Tensor, argument: int | None = None) -> None:
        self.value = value
        self.meta = meta
        self.version = 0
        self.depth = 0
        self.argument = argument


@dataclass(frozen=True)
class ViewStep:
    """One view op of a chain: ``overload(parent, *args, **kwargs)`` gave a tensor like ``meta``.

    For a view out of a list result (``unbind``, ``split``), ``index`` says which element.
    """

    overload: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta: torch.Tensor
    metas: tuple[torch.Tensor, ...] = ()
    index: int | None = None


class TensorRef:
    """A tensor of the program being imported; ``meta`` is a fake tensor with its shape, dtype and strides."""

    __slots__ = ("_value", "_version", "meta", "parent", "step", "storage")

    def __init__(
        self,
        storage: Storage,
        meta: torch.Tensor,
        parent: TensorRef | None = None,
        step: ViewStep | None = None,
    ) -> None:
        self.storage = storage
        self.meta = meta
        self.parent = parent
        self.step = step
        self._value: ir.Value | None = None
        self._version = -1


class Recorder:
    """Turns calls of ATen ops on ``TensorRef``s into operations of an :class:`Emitter`."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.aliasing = Aliasing()
        self._written: list[dict[int, tuple[Storage, ir.Value]]] = []
        self._cached: list[list[TensorRef]] = []

    def tensor(self, value: ir.Value, meta: torch.Tensor, argument: int | None = None) -> TensorRef:
        """A fresh base tensor; ``argument`` is its index when it is an argument of the function."""
        ref = TensorRef(Storage(value, meta, argument), meta)
        ref.storage.depth = self.depth
        return ref

    @property
    def depth(self) -> int:
        """How many regions are open."""
        return len(self._written)

    # -- reading and writing -------------------------------------------------------------------------

    def read(self, ref: TensorRef) -> ir.Value:
        """The current value, replaying the view chain when the base has been written since."""
        self.aliasing.read(ref)
        return self._current(ref)

    def _current(self, ref: TensorRef) -> ir.Value:
        if ref.parent is None or ref.step is None:
            return ref.storage.value
        if ref._value is None or ref._version != ref.storage.version:
            self._cache(ref, self._replay(self._current(ref.parent), ref.step))
        assert ref._value is not None
        return ref._value

    def _cache(self, ref: TensorRef, value: ir.Value) -> None:
        ref._value, ref._version = value, ref.storage.version
        if self._cached:
            self._cached[-1].append(ref)

    def _replay(self, parent: ir.Value, step: ViewStep) -> ir.Value:
        metas: list[Any] = [list(step.metas)] if step.index is not None else [step.meta]
        result = self.emitter.call(step.overload, (parent, *step.args), step.kwargs, metas)[0]
        return result[step.index] if step.index is not None else result

    def write(self, ref: TensorRef, value: ir.Value) -> None:
        """Give ``ref`` a new value; every alias sees it."""
        self.aliasing.written(ref)
        self._write(ref, value)

    def _write(self, ref: TensorRef, value: ir.Value) -> None:
        if ref.parent is None or ref.step is None:
            storage = ref.storage
            if self._written and id(storage) not in self._written[-1]:
                self._written[-1][id(storage)] = (storage, storage.value)
            storage.value = value
            storage.version += 1
            return
        self._write(ref.parent, self._scatter(ref.parent, ref.step, value))
        self._cache(ref, value)

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
            for ref in self._cached.pop():
                ref._value, ref._version = None, -1
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
        if overload is torch.ops.aten.kthvalue.default and args[0].meta.dim() == 0:
            # torch-mlir verifies that the dimension is one of none; of one number every order gives the same
            overload, args, kwargs = torch.ops.aten.max.dim, [args[0], 0, False], {}
        schema = overload._schema
        if schema.is_mutable:
            return self._mutate(overload, args, kwargs, metas)
        if schema.name in BY_STRIDES:
            self.aliasing.by_strides(args[0].meta)
        if (each := self._views_of_each(overload, args, metas)) is not None:
            return [each]
        viewed = _viewed_argument(overload, args, kwargs)
        if viewed is not None and _is_view(overload, viewed, metas[0]):
            results = self._view(overload, viewed, args[1:], kwargs, metas[0])
        else:
            values = self.emitter.call(overload, self._values(args), self._values(kwargs), metas)
            note_memory_order(overload, values, _metas(overload, args, kwargs))
            results = [self._wrap(value, meta) for value, meta in zip(values, metas, strict=True)]
        if viewed is not None and schema.name in BY_LAYOUT and isinstance(results[0], TensorRef):
            self.aliasing.made(viewed, results[0])
        return results

    def _views_of_each(
        self, overload: torch._ops.OpOverload, args: Sequence[Any], metas: Sequence[Any]
    ) -> list[Any] | None:
        """The results of an op that makes a view of each tensor of a list, of which its schema says nothing."""
        name = overload._schema.name
        if not args or not isinstance(args[0], (list, tuple)) or not isinstance(metas[0], (list, tuple)):
            return None
        pairs = list(zip(args[0], metas[0], strict=True))
        if overload._schema.overload_name == "Sequence" and name in _UNTOLD_VIEWS:
            one = overload.overloadpacket.default
            return [self.call(one, (ref,), {}, [meta])[0] for ref, meta in pairs]
        if name == "aten::broadcast_tensors" and all(isinstance(n, int) for _, m in pairs for n in m.shape):
            return [self.call(aten.expand.default, (ref, list(m.shape)), {}, [m])[0] for ref, m in pairs]
        return None

    def _values(self, item: Any) -> Any:
        if isinstance(item, TensorRef):
            return self.read(item)
        if isinstance(item, dict):
            return {key: self._values(value) for key, value in item.items()}
        if isinstance(item, (list, tuple)):
            return [self._values(value) for value in item]
        return item

    def _wrap(self, value: Any, meta: Any) -> Any:
        if isinstance(meta, torch.Tensor):
            return self.tensor(value, meta)
        if isinstance(meta, (list, tuple)):
            return [self.tensor(v, m) for v, m in zip(value, meta, strict=True)]
        return value

    def _view(
        self,
        overload: torch._ops.OpOverload,
        base: TensorRef,
        rest: Sequence[Any],
        kwargs: dict[str, Any],
        meta: Any,
    ) -> list[Any]:
        args, kwargs = tuple(self._values(list(rest))), self._values(kwargs)
        if isinstance(meta, torch.Tensor):
            ref = TensorRef(base.storage, meta, base, ViewStep(overload, args, kwargs, meta))
            self._current(ref)
            return [ref]
        metas = tuple(meta)
        refs = [
            TensorRef(base.storage, m, base, ViewStep(overload, args, kwargs, m, metas, index))
            for index, m in enumerate(metas)
        ]
        values = self.emitter.call(overload, (self._current(base), *args), kwargs, [list(metas)])[0]
        for ref, value in zip(refs, values, strict=True):
            self._cache(ref, value)
        return [refs]

    def _mutate(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        metas: Sequence[Any],
    ) -> list[Any]:
        """An in-place or out= op: its functional sibling, then a write to each mutated argument."""
        schema = overload._schema
        bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        bound.update(zip((argument.name for argument in schema.arguments), args, strict=False))
        bound.update(kwargs)
        targets = [
            bound[a.name]
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write and a.name in bound
        ]
        if schema.name == "aten::copy_":
            self._copy_into(targets[0], bound["src"])
            return [targets[0]]
        if schema.name == "aten::fill_diagonal_":
            self._fill_diagonal(targets[0], bound["fill_value"], bound.get("wrap", False))
            return [targets[0]]
        functional, names = functional_sibling(overload)
        inputs = {names[name]: value for name, value in bound.items() if name in names}
        promoted = [_promoted(functional, inputs, target.meta) for target in targets]
        count = len(functional._schema.returns)
        extra = list(metas[: count - len(targets)]) if count > len(targets) else []
        values = self.emitter.call(functional, *self._positional(functional, inputs), [*extra, *promoted])
        note_memory_order(functional, values, _metas(functional, (), inputs), in_place=True)
        for target, meta, value in zip(targets, promoted, values[len(extra) :], strict=True):
            self.write(target, self._cast(value, meta, target.meta.dtype))
        returned = [self._wrap(value, meta) for value, meta in zip(values, extra, strict=False)]
        return [*returned, *targets][: max(1, len(schema.returns))]

    def _positional(
        self, overload: torch._ops.OpOverload, inputs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
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
            value = self.emitter.call(aten.full_like.default, (self._current(target), value), {}, [meta])[0]
        else:
            value = self._cast(value, source.meta, meta.dtype)
            if tuple(source.meta.shape) != tuple(meta.shape):
                sizes = self.sizes(target)
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
        value = self.emitter.call(
            aten.masked_fill.Scalar, (self.read(target), mask, number), {}, [target.meta]
        )[0]
        self.write(target, value)

    def sizes(self, ref: TensorRef) -> list[Any]:
        """The shape of ``ref`` as numbers and, where a size is symbolic, values of type ``!torch.int``."""
        sizes: list[Any] = []
        for axis, size in enumerate(ref.meta.shape):
            if isinstance(size, int):
                sizes.append(size)
            else:
                sizes.append(self.emitter.call(aten.size.int, (self._current(ref), axis), {}, [0])[0])
        return sizes

    # -- the inverse of a view -------------------------------------------------------------------------

    def _scatter(self, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
        name = step.overload._schema.name.split("::")[1]
        inverse = _INVERSES.get(name)
        if inverse is None or (name in _EXPANSIONS and not _is_one_to_one(parent.meta, step.meta)):
            raise ImportFailed(
                "an in-place update through this view cannot be made functional",
                subject=dialect_name(step.overload),
                advice="update a clone, or write to the base tensor with index_put_ or slices",
            )
        return inverse(self, parent, step, value)


def _metas(overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Per argument of the schema the fake tensor that is given for it, or what else is."""
    names = [argument.name for argument in overload._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return [item.meta if isinstance(item := given.get(name), TensorRef) else item for name in names]


def _viewed_argument(
    overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]
) -> TensorRef | None:
    schema = overload._schema
    if not args or not schema.returns or not isinstance(args[0], TensorRef):
        return None
    is_told = schema.returns[0].alias_info is not None or _returns_alias_list(schema)
    return args[0] if is_told or _is_untold_view(overload, args, kwargs) else None


def _returns_alias_list(schema: torch._C.FunctionSchema) -> bool:
    return schema.name in ("aten::chunk", "aten::tensor_split", "aten::unsafe_split", "aten::unsafe_chunk")


def _is_untold_view(overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether the op returns its operand or a view of it, of which its schema says nothing."""
    schema = overload._schema
    returns_view = _UNTOLD_VIEWS.get(schema.name)
    if returns_view is None:
        return False
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False), **kwargs)
    return returns_view(args[0].meta, given)


def _is_off(_: torch.Tensor, given: dict[str, Any]) -> bool:
    return given["train"] is False or given["p"] == 0


def _is_same_shape(meta: torch.Tensor, given: dict[str, Any]) -> bool:
    return list(meta.shape) == list(given["size"])


_UNTOLD_VIEWS: dict[str, Callable[[torch.Tensor, dict[str, Any]], bool]] = {
    **dict.fromkeys(("aten::atleast_1d", "aten::atleast_2d", "aten::atleast_3d"), lambda meta, given: True),
    **dict.fromkeys(
        ("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"),
        _is_off,
    ),
    "aten::sum_to_size": _is_same_shape,
    "aten::type_as": lambda meta, given: meta.dtype == given["other"].meta.dtype,
    "aten::conj_physical": lambda meta, given: not meta.dtype.is_complex,
}

_MAYBE_VIEWS = {"aten::reshape", "aten::contiguous", "aten::to", "aten::flatten", "aten::_reshape_alias"}


def _is_view(overload: torch._ops.OpOverload, base: TensorRef, meta: Any) -> bool:
    """Whether the op really aliases: some only do when strides or dtypes allow it."""
    name = overload._schema.name
    if name.startswith("aten::unsafe_"):
        return False
    if not isinstance(meta, torch.Tensor) or name not in _MAYBE_VIEWS:
        return True
    return meta.untyped_storage()._cdata == base.meta.untyped_storage()._cdata


@lru_cache(maxsize=4096)
def functional_sibling(overload: torch._ops.OpOverload) -> tuple[torch._ops.OpOverload, dict[str, str]]:
    """The op without mutation, and its name for each argument that it takes.

    ``add_.Tensor`` is ``add.Tensor``; ``add.out`` is ``add.Tensor`` without ``out``; ``dropout_(self, …)`` is
    ``dropout(input, …)``; ``__iand__`` is ``__and__``. Raises :class:`ImportFailed` for an op with no sibling.
    """
    schema = overload._schema
    given = [a for a in schema.arguments if not a.is_out]
    for candidate in _functional_candidates(schema, is_out=len(given) < len(schema.arguments)):
        if candidate._schema.is_mutable:
            continue
        names = _renamed(given, candidate._schema.arguments)
        if names is not None:
            return candidate, names
    raise ImportFailed(
        "this op changes its argument in place and has no functional form",
        subject=dialect_name(overload),
        advice="use the form that returns a new tensor",
    )


def _functional_candidates(
    schema: torch._C.FunctionSchema, *, is_out: bool
) -> Iterator[torch._ops.OpOverload]:
    namespace, name = schema.name.split("::")
    base = name if is_out else name.removesuffix("_")
    operator = f"__{name.removeprefix('__i')}" if name.startswith("__i") else base
    for candidate in (base, f"{name}functional", f"{base}_functional", f"_{base}_functional", operator):
        packet = getattr(getattr(torch.ops, namespace), candidate, None)
        if packet is not None:
            yield from (getattr(packet, overload) for overload in packet.overloads())


def _renamed(
    given: Sequence[torch._C.Argument], wanted: Sequence[torch._C.Argument]
) -> dict[str, str] | None:
    """The name of each given argument among those wanted: the same of the same type, or the one in its place."""
    types = {argument.name: str(argument.type) for argument in wanted}
    if {argument.name: str(argument.type) for argument in given} == types:
        return {name: name for name in types}
    if [str(argument.type) for argument in given] == list(types.values()):
        return {argument.name: name for argument, name in zip(given, types, strict=True)}
    return None


def _promoted(overload: torch._ops.OpOverload, inputs: dict[str, Any], target: torch.Tensor) -> torch.Tensor:
    """What the functional op returns where an in-place one returns ``target``: its dtype may be wider."""
    others = [item.meta for item in inputs.values() if isinstance(item, TensorRef)]
    if all(meta.dtype == target.dtype for meta in others):
        return target

    def probe(item: Any) -> Any:
        if isinstance(item, TensorRef):
            return torch.empty([1] * item.meta.dim(), dtype=item.meta.dtype, device="meta")
        return 1 if isinstance(item, ir.Value) else item

    try:
        result = overload(**{name: probe(item) for name, item in inputs.items()})
    except (RuntimeError, TypeError, NotImplementedError):
        return target
    dtype = result.dtype if isinstance(result, torch.Tensor) else target.dtype
    return target if dtype == target.dtype else torch.empty_like(target, dtype=dtype)


_Inverse = Callable[[Recorder, TensorRef, ViewStep, ir.Value], ir.Value]


def _reshape_back(r: Recorder, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
    return r.emitter.call(aten.reshape.default, (value, r.sizes(parent)), {}, [parent.meta])[0]


def _identity(r: Recorder, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
    return value


def _scatter_with(overload: torch._ops.OpOverload) -> _Inverse:
    def scatter(r: Recorder, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
        return r.emitter.call(overload, (r._current(parent), value, *step.args), step.kwargs, [parent.meta])[
            0
        ]

    return scatter


def _is_one_to_one(parent: torch.Tensor, meta: torch.Tensor) -> bool:
    """Whether an expansion adds nothing but dimensions of size 1; eager refuses to write through any other."""
    return tuple(meta.shape[meta.dim() - parent.dim() :]) == tuple(parent.shape) and all(
        size == 1 for size in meta.shape[: meta.dim() - parent.dim()]
    )


def _swap_back(r: Recorder, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
    dims = step.args or (0, 1)
    return r.emitter.call(aten.transpose.int, (value, *dims), {}, [parent.meta])[0]


def _permute_back(r: Recorder, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
    rank = parent.meta.dim()
    order = [d % rank for d in step.args[0]]
    inverse = [order.index(axis) for axis in range(rank)]
    return r.emitter.call(aten.permute.default, (value, inverse), {}, [parent.meta])[0]


def _element(r: Recorder, parent: TensorRef, step: ViewStep, value: ir.Value) -> ir.Value:
    """The inverse of one element of ``unbind``, ``split``, ``chunk`` and their kin."""
    assert step.index is not None
    name = step.overload._schema.name.split("::")[1]
    given = dict(
        zip([a.name for a in step.overload._schema.arguments[1:]], step.args, strict=False), **step.kwargs
    )
    axis = given.get("dim", 0)
    if name == "unbind":
        return r.emitter.call(
            aten.select_scatter.default, (r._current(parent), value, axis, step.index), {}, [parent.meta]
        )[0]
    start = sum(int(meta.shape[axis]) for meta in step.metas[: step.index])
    end = start + int(step.meta.shape[axis])
    return r.emitter.call(
        aten.slice_scatter.default, (r._current(parent), value, axis, start, end), {}, [parent.meta]
    )[0]


_EXPANSIONS = ("expand", "expand_as", "broadcast_to")
_INVERSES: dict[str, _Inverse] = {
    **dict.fromkeys(_EXPANSIONS, _reshape_back),
    **dict.fromkeys(
        (
            "view",
            "reshape",
            "flatten",
            "unflatten",
            "squeeze",
            "unsqueeze",
            "_unsafe_view",
            "view_as",
            "reshape_as",
            "atleast_1d",
            "atleast_2d",
            "atleast_3d",
        ),
        _reshape_back,
    ),
    **dict.fromkeys(("detach", "alias", "contiguous", "to", "lift_fresh", "positive", "_to_copy"), _identity),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _identity),
    **dict.fromkeys(("sum_to_size", "type_as", "conj_physical"), _identity),
    **dict.fromkeys(("t", "transpose", "swapaxes", "swapdims", "numpy_T", "mT"), _swap_back),
    **dict.fromkeys(("unbind", "split", "split_with_sizes", "chunk", "tensor_split"), _element),
    "permute": _permute_back,
    "select": _scatter_with(aten.select_scatter.default),
    "slice": _scatter_with(aten.slice_scatter.default),
    "diagonal": _scatter_with(aten.diagonal_scatter.default),
    "as_strided": _scatter_with(aten.as_strided_scatter.default),
}
