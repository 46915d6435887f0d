"""Where the tensors of a program live: storages, views of them, and the objects that name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir


class Storage:
    """A base tensor: its current value, how often it was written, and where it came from.

    ``depth`` is the number of open regions when it was made (0 for what belongs to the program itself).
    """

    __slots__ = ("argument", "depth", "meta", "value", "version")

    def __init__(self, value: ir.Value | None, meta: torch.Tensor, argument: int | None = None) -> None:
        self.value: Any = value
        self.meta = meta
        self.version = 0
        self.depth = 0
        self.argument = argument


class LiteralStorage(Storage):
    """A tensor of the program (weight, buffer, constant): its literal appears when it is first read."""

    __slots__ = ("_emitter", "_value", "initial", "name", "tensor")

    def __init__(self, emitter: Emitter, tensor: torch.Tensor, name: str, meta: torch.Tensor) -> None:
        self._emitter = emitter
        self._value: Any = None
        self.initial: Any = None
        self.tensor = tensor
        self.name = name
        super().__init__(None, meta)

    @property
    def value(self) -> Any:
        if self._value is None:
            self._value = self.initial = self._emitter.literal(self.tensor, self.name)
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    @property
    def is_read(self) -> bool:
        """Whether the program looked at what it was before the call."""
        return self.initial is not None

    @property
    def is_written(self) -> bool:
        return self._value is not None and self._value is not self.initial


SOURCE = object()


@dataclass(frozen=True)
class ViewStep:
    """One view op of a chain: ``overload(*args, **kwargs)``, with the parent for ``SOURCE``, gave ``meta``.

    ``metas`` are those of all results of the op, ``path`` is the way to this one: its index, and the one
    inside of a list result (``unbind``, ``split``).
    """

    overload: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    metas: tuple[Any, ...]
    path: tuple[int, ...]

    @property
    def name(self) -> str:
        """The op without namespace and overload."""
        name: str = self.overload._schema.name
        return name.split("::")[1]

    @property
    def meta(self) -> torch.Tensor:
        """A fake tensor like the view."""
        return self.pick(self.metas)

    @property
    def rest(self) -> tuple[Any, ...]:
        """The arguments after the first, which is the parent."""
        return self.args[1:]

    def pick(self, results: Sequence[Any]) -> Any:
        """This view among the results of the op."""
        found: Any = results
        for index in self.path:
            found = found[index]
        return found

    def given(self, name: str, default: Any) -> Any:
        """The argument of this name."""
        names = [argument.name for argument in self.overload._schema.arguments]
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}.get(name, default)


class Place:
    """A storage, or a view of another place; ``meta`` is a fake tensor with its shape, dtype and strides."""

    __slots__ = ("meta", "parent", "step", "storage", "value", "version")

    def __init__(
        self,
        storage: Storage,
        meta: torch.Tensor,
        parent: Place | None = None,
        step: ViewStep | None = None,
    ) -> None:
        self.storage = storage
        self.meta = meta
        self.parent = parent
        self.step = step
        self.value: ir.Value | None = None
        self.version = -1

    @property
    def root(self) -> Place:
        """The whole storage."""
        return self if self.parent is None else self.parent.root


class TensorRef:
    """A tensor object of the program being imported. ``x.unsqueeze_(0)`` moves it to another place.

    ``twins`` are all references to the object: ``y = x.contiguous()`` is ``x`` or a copy of it, depending on strides.
    """

    __slots__ = ("made", "place", "twins")

    def __init__(self, place: Place) -> None:
        self.place = self.made = place
        self.twins = [self]

    def twin(self, place: Place) -> TensorRef:
        """Another reference to this object, with a place that is as this one's."""
        other = TensorRef(place)
        self.twins.append(other)
        other.twins = self.twins
        return other

    @property
    def storage(self) -> Storage:
        return self.place.storage

    @property
    def meta(self) -> torch.Tensor:
        """A fake tensor with its shape, dtype and strides."""
        return self.place.meta

    @property
    def is_whole(self) -> bool:
        """Whether it is a storage itself, as it was made."""
        return self.place.parent is None
