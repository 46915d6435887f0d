"""Lists of the program whose length, or whose index, only run time knows."""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.handlers.containers.pieces import Pieces
from torch_tvm.importers.torchscript.values import ListValue, Scalar, Stack, is_number, kind_of, origins

aten = torch.ops.aten


class Containers:
    """List operations that emit code, for one :class:`Context`."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def length(self, value: ListValue) -> Any:
        if isinstance(value.items, Stack):
            return tensors.size(self.context, value.items.tensor, 0)
        if isinstance(value.items, Pieces):
            return value.items.count(self.context)
        return len(value.items)

    def get(self, value: ListValue, index: Any) -> Any:
        ev = self.context
        if isinstance(value.items, Stack):
            return self._unstacked(value.items, index)
        if isinstance(value.items, Pieces):
            return value.items.get(self.context, index)
        if not isinstance(index, Scalar):
            if not -len(value.items) <= index < len(value.items):
                raise ev.certain("IndexError: list index out of range")
            return value.items[index]
        if value.items and all(is_number(item) for item in value.items):
            return self._number_at(value.items, index)
        if value.items and all(isinstance(item, TensorRef) for item in value.items):
            stack = tensors.stack_of(ev, value.items, "tensor")
            return tensors.call(ev, aten.select.int, [stack.tensor, 0, index])
        raise ev.failure("a list index must be known at import here", origin=index.origin)

    def _unstacked(self, stack: Stack, index: Any) -> Any:
        ev = self.context
        ref = tensors.call(ev, aten.select.int, [stack.tensor, 0, index])
        if stack.kind != "tensor":
            return tensors.element(ev, ref, stack.kind)
        return ref

    def _number_at(self, items: list[Any], index: Scalar) -> Any:
        ev = self.context
        kinds = {kind_of(item) for item in items}
        kind = "float" if "float" in kinds else kinds.pop() or "int"
        values = [ev.scalars.value(item, kind) for item in items]
        types = ev.emitter.types
        sequence = ev.emitter.list_of(values, types.parse(f"!torch.{kind}"))
        value = ev.scalars.op("torch.aten.__getitem__.t", [sequence, ev.scalars.value(index)], kind)
        return ev.scalars.make(kind, value, None, origins([*items, index]))

    def append(self, value: ListValue, item: Any) -> None:
        ev = self.context
        ev.touch(value)
        if isinstance(value.items, list):
            value.items = [*value.items, item]
            return
        stack = value.items
        row = tensors.stack_of(ev, [item], stack.kind).tensor
        value.items = Stack(stack.kind, tensors.call(ev, aten.cat.default, [ListValue([stack.tensor, row]), 0]))


__all__ = ["Containers"]
