"""Programs whose numbers depend on the strides of their arguments.

``y = x.reshape(-1); y.add_(1)`` writes ``x`` where ``x`` is dense, and a copy where it is transposed. A program is
imported for one layout, so one that writes on one side of such an op and reads on the other says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch._prims_common import is_contiguous_or_false
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from torch_tvm.importers.user_code import TORCH, is_users, user_place
from torch_tvm.support.errors import ImportFailed, SourceLocation

BY_LAYOUT = frozenset(
    f"aten::{name}" for name in ("reshape", "contiguous", "flatten", "ravel", "reshape_as", "_reshape_alias")
)
"""Ops that give a view or a copy, whichever the strides allow."""

_ORDERS = (torch.channels_last, torch.channels_last_3d)

BY_STRIDES = frozenset(
    f"aten::{name}" for name in ("as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter")
)
"""Ops that read memory past the shape of their operand."""


@dataclass
class Edge:
    """A tensor made by such an op, what it was made of, and which of both was written since."""

    base: Any
    made: Any
    written: set[bool] = field(default_factory=set)

    def is_made(self, ref: Any) -> bool:
        """Whether a reference of one of both storages leads through the op."""
        if self.base.storage is not self.made.storage:
            return ref.storage is self.made.storage
        while ref is not None and ref is not self.made:
            ref = ref.parent
        return ref is not None


class StrideDependence:
    """Notes reads and writes of storages; ``layout`` is what the program then asks of its arguments."""

    def __init__(self) -> None:
        self.layout = ""
        self._edges: dict[int, list[Edge]] = {}

    def made(self, base: Any, ref: Any) -> None:
        """``ref`` is a view or a copy of ``base``."""
        edge = Edge(base, ref)
        for storage in {id(base.storage), id(ref.storage)}:
            self._edges.setdefault(storage, []).append(edge)

    def written(self, ref: Any) -> None:
        for edge in self._edges.get(id(ref.storage), ()):
            edge.written.add(edge.is_made(ref))

    def moved(self, ref: Any) -> None:
        """The object got another shape in place: its copy has not, which other strides make it itself."""
        for edge in self._edges.get(id(ref.storage), ()):
            if ref in (edge.base, edge.made) and edge.base.meta.dim() == edge.made.meta.dim():
                self.asks("dense")

    def read(self, ref: Any) -> None:
        for edge in self._edges.get(id(ref.storage), ()):
            if (not edge.is_made(ref)) in edge.written:
                self.asks("dense")

    def asks(self, layout: str) -> None:
        """``"dense"``: arguments are contiguous; ``"whole"``: they start at the start of their memory as well."""
        self.layout = max(self.layout, layout)

    def by_strides(self, tensor: torch.Tensor) -> None:
        """An op reads the memory of a tensor by strides: it has to be dense here as well as in eager."""
        if not is_dense(tensor) or tensor.storage_offset() != 0:
            raise ImportFailed(
                "reads the memory of a tensor that is not dense by strides",
                advice="use slices, unfold or indexing; or call .clone(memory_format=torch.contiguous_format) before",
            )
        self.asks("whole")


_EXPANSIONS = frozenset({torch.Tensor.expand, torch.Tensor.expand_as, torch.Tensor.broadcast_to, torch.broadcast_to})
_FILLS = frozenset({torch.Tensor.fill_, torch.Tensor.zero_, torch.Tensor.__setitem__, torch.fill_, torch.zero_})
"""Ops that write a tensor some of whose elements share memory; others raise."""
_QUERIES = frozenset({torch.Tensor.is_contiguous, torch.Tensor.stride, torch.Tensor.storage_offset})
_MAYBE_COPIES = frozenset(
    {
        torch.Tensor.contiguous,
        torch.Tensor.reshape,
        torch.Tensor.reshape_as,
        torch.Tensor.flatten,
        torch.Tensor.ravel,
        torch.reshape,
        torch.flatten,
        torch.ravel,
    }
)
_KEEPS_DENSE = _MAYBE_COPIES | {
    torch.Tensor.view,
    torch.Tensor.view_as,
    torch.Tensor.unflatten,
    torch.Tensor.unsqueeze,
    torch.Tensor.squeeze,
    torch.Tensor.detach,
    torch.Tensor.data.__get__,
    torch.unflatten,
    torch.unsqueeze,
    torch.squeeze,
    torch.atleast_1d,
    torch.atleast_2d,
    torch.atleast_3d,
}
"""Views that are dense where their argument is."""
_TRACERS = tuple(
    TORCH + name
    for name in (
        "export",
        "_export",
        "fx",
        "overrides",
        "utils",
        "_subclasses",
        "_ops",
        "_dynamo",
        "_higher_order_ops",
    )
)


def _covers(x: torch.Tensor, dimension: int, size: int, step: int) -> bool:
    """Whether windows, side by side, are all of a tensor."""
    return step == size and x.dim() > 0 and x.shape[dimension] % size == 0


class LayoutQueries(TorchFunctionMode):
    """Watches a program that runs in Python: ``asked`` says that its own code asks a tensor for its strides,
    ``fills_expanded`` that it fills a view of an expanded one, or writes windows (the lazy device then sets to zero
    what lies between them).

    PyTorch passes over ``contiguous`` of a contiguous tensor; with ``recorded`` it is an op all the same.
    """

    def __init__(self, *, recorded: bool) -> None:
        super().__init__()
        self.asked = self.fills_expanded = False
        self._expanded: list[torch.Tensor] = []
        self._windows: list[torch.Tensor] = []
        self._bent: dict[int, torch.Tensor] = {}
        self._recorded = recorded
        self._written: set[int] = set()
        self._copied: set[int] = set()
        self._copied_views: dict[int, SourceLocation] = {}
        self._bent_copies: dict[int, SourceLocation] = {}
        self._late: SourceLocation | None = None
        self._reordered: set[int] = set()
        self.strided_copy: SourceLocation | None = None
        """Where it addresses memory whose order eager has changed, and the lazy device has not."""
        self._held: list[Any] = []

    @property
    def copies_and_writes(self) -> bool:
        """Whether it changes memory that it also gives to what copies for some strides only."""
        return not self._copied.isdisjoint(self._written)

    @property
    def copies_views(self) -> bool:
        """Whether it makes a tensor contiguous that need not be."""
        return bool(self._copied_views or self._bent_copies)

    @property
    def view_copied_and_written(self) -> SourceLocation | None:
        """Where it makes a view contiguous, or reshapes one that eager has to copy, whose memory it changes."""
        early = next((place for key, place in self._copied_views.items() if key in self._written), None)
        return early or self._late

    def _memory(self, tensor: torch.Tensor) -> int:
        """A number for the memory of a tensor, which is that of its views: in inference mode they do not know their
        base.
        """
        # PyTorch ends the process on the storage of a lazy tensor that is in no functional wrapper.
        has_storage = tensor.device.type != "lazy" or torch._is_functional_tensor(tensor)
        storage = tensor.untyped_storage() if has_storage and tensor.layout == torch.strided else tensor
        self._held.append(storage)  # as long as it is there no other has its number
        return storage._cdata if isinstance(storage, torch.UntypedStorage) else id(storage)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _QUERIES and not isinstance(args[0], torch.nn.Parameter):
            self.asked = self.asked or _is_called_by_user(sys._getframe(1))
        if self._recorded:
            if func is torch.Tensor.contiguous and len(args) == 1:
                return torch.ops.aten.contiguous.default(*args, **kwargs)
            return func(*args, **kwargs)
        self._note(func, args, kwargs)
        result = func(*args, **kwargs)
        if func is torch.Tensor.unfold and not _covers(*args, **kwargs):
            self._windows.append(result)
        self._note_expanded(func, args, result)
        self._note_bent(func, [args, kwargs], result)
        if func in _MAYBE_COPIES:
            self._copied.add(self._memory(result))  # for other strides it is the memory that is copied
        self._note_order(func, args, kwargs, result)
        return result

    def _note_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """Keeps memory that is a copy in another order, and where it is addressed by strides."""
        source = args[0] if args else None
        if not isinstance(source, torch.Tensor) or not isinstance(result, torch.Tensor):
            return
        is_copied = func in _MAYBE_COPIES and id(source) in self._bent
        if is_copied or any(
            each in _ORDERS for each in (*args[1:], *kwargs.values()) if isinstance(each, torch.memory_format)
        ):
            self._reordered.add(self._memory(result))
        name = f"aten::{getattr(func, '__name__', '').partition('.')[0]}"
        if name in BY_STRIDES and self._memory(source) in self._reordered:
            self.strided_copy = self.strided_copy or user_place(sys._getframe(2), "")

    def _note_expanded(self, func: Any, args: Sequence[Any], result: Any) -> None:
        """Keeps what an expansion gave, and views of that."""
        if not args or not isinstance(args[0], torch.Tensor):
            return
        for view in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(view, torch.Tensor) and view._is_view() and view is not args[0]:
                is_larger = func in _EXPANSIONS and view.numel() > args[0].numel()
                if is_larger or _is_among(args[0], self._expanded):
                    self._expanded.append(view)

    def _note_bent(self, func: Any, arguments: Any, result: Any) -> None:
        """Keeps what is not dense in eager: views such as a transposition gives, and what is computed from them."""
        if not isinstance(result, (torch.Tensor, tuple, list)):
            return
        sources = _tensors(arguments)
        shapes = [source.shape for source in sources if id(source) in self._bent]
        memory = {self._memory(source) for source in sources} if func not in _KEEPS_DENSE else set()
        for made in _tensors(result):
            is_view = self._memory(made) in memory and not any(made is source for source in sources)
            if is_view or made.shape in shapes or (shapes and func in _KEEPS_DENSE - _MAYBE_COPIES):
                self._bent[id(made)] = made

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if func in _FILLS and _is_among(args[0], self._expanded):
            self.fills_expanded = True
        if _is_write(func, kwargs):
            written = {self._memory(tensor) for tensor in _tensors([args[:1], kwargs])}
            self._written |= written
            self._late = self._late or next(
                (self._bent_copies[key] for key in written & self._bent_copies.keys()), None
            )
            if args and _is_among(args[0], self._windows):
                self.fills_expanded = True
        if func in _MAYBE_COPIES:
            source = args[0] if args else kwargs["input"]
            key = self._memory(source)
            self._copied.add(key)
            is_view = func is torch.Tensor.contiguous and (source._is_view() or source.is_inference())
            if is_view:
                self._copied_views.setdefault(key, user_place(sys._getframe(2), ""))
            elif id(source) in self._bent:  # what was written before is in eager's copy, too
                self._bent_copies.setdefault(key, user_place(sys._getframe(2), ""))


def _is_among(tensor: Any, known: Sequence[torch.Tensor]) -> bool:
    return any(tensor is each for each in known)


def _tensors(arguments: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]


def _is_write(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function is called that changes a tensor: ``add_``, ``__iadd__``, ``__setitem__``, one with ``out=`` or
    ``inplace=True``.
    """
    name = getattr(func, "__name__", "")
    is_in_place = name.startswith("__i") if name.endswith("__") else name.endswith("_")
    return is_in_place or name == "__setitem__" or kwargs.get("out") is not None or kwargs.get("inplace") is True


def _is_called_by_user(frame: FrameType | None) -> bool:
    """Whether the call that a tracer, or another mode, handles stands in code that is not torch's."""
    while frame is not None and (
        frame.f_code.co_filename.startswith(_TRACERS) or frame.f_code.co_name == "__torch_function__"
    ):
        frame = frame.f_back
    return frame is not None and is_users(frame.f_code.co_filename)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a fake tensor is known to be contiguous."""
    return bool(is_contiguous_or_false(tensor))


__all__ = ["BY_LAYOUT", "BY_STRIDES", "LayoutQueries", "StrideDependence", "is_dense"]
