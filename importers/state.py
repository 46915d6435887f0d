"""State: the tensors of a program that it changes become arguments and results of its function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import STATE, WRITES
from torch_tvm.importers.recording.recorder import Recorder, check_in_place
from torch_tvm.importers.recording.storages import SOURCE, LiteralStorage, Place, TensorRef, ViewStep
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten
Named = tuple[str, torch.Tensor]
Brought = tuple[str, torch.Tensor, TensorRef]


class StateArguments:
    """Turns literals into arguments of the function whose block is ``block``, once the program was recorded."""

    def __init__(self, emitter: Emitter, block: ir.Block) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._emitter = emitter
        self._block = block
        self._writes: list[tuple[int, ir.Value]] = []
        self._replaced: dict[ir.Value, ir.Value] = {}

    def add(self, name: str, tensor: torch.Tensor, meta: torch.Tensor, literal: ir.Value | None = None) -> int:
        """The index of a new argument for ``tensor``, which takes the place of its ``literal``."""
        argument = self._block.add_argument(self._emitter.types.tensor(meta), self._emitter.location)
        if literal is not None:
            self._replaced[literal] = argument
        self.tensors[name] = tensor
        return len(self._block.arguments) - 1

    def add_storage(self, storage: LiteralStorage) -> int:
        """The index of a new argument for a tensor that the program brings along."""
        return self.add(storage.name, storage.tensor, storage.meta, storage.initial)

    def write(self, index: int, value: ir.Value) -> None:
        """``value`` is the new value of the argument of this index."""
        self._writes.append((index, value))

    def add_written(self, recorder: Recorder, found: Sequence[Brought]) -> None:
        """Arguments for the tensors that the program wrote, themselves or through another one: (name, tensor, what
        it is).

        Raises :class:`SharedMemory` where they share memory and it has not been told of.
        """
        storages = {id(ref.storage): ref.storage for _, _, ref in found}
        literals = [storage for storage in storages.values() if isinstance(storage, LiteralStorage)]
        for name, _, ref in found:
            check_in_place(ref, f"'{name}'")
        demand_owners(literals)
        for storage in literals:
            if storage.is_written:
                self.write(self.add_storage(storage), storage.value)
        for name, tensor, ref in found:
            is_written = isinstance(ref.storage, LiteralStorage) and ref.storage.is_written
            if is_written and name not in self.tensors:
                value = recorder.read(ref)
                self.write(self.add(name, tensor, ref.meta), value)

    def finish(self, function: ir.Operation, results: Sequence[ir.Value], weights: dict[str, torch.Tensor]) -> None:
        """Return ``results`` and the new values from the function; what became an argument is no weight."""
        context = self._emitter.context
        recorded = [*results, *(value for _, value in self._writes)]
        values = [self._replaced.get(value, value) for value in recorded]
        self._emitter.location = ir.Location.unknown(context)
        self._emitter.op("func.return", values, [])
        for literal, argument in self._replaced.items():
            literal.replace_all_uses_with(argument)
            literal.owner.erase()
        inputs = [argument.type for argument in self._block.arguments]
        kind = ir.FunctionType.get(inputs, [value.type for value in values], context=context)
        function.attributes["function_type"] = ir.TypeAttr.get(kind, context=context)
        describe(function, list(self.tensors), [index for index, _ in self._writes])
        changed = {id(tensor) for tensor in self.tensors.values()}
        for table in (weights, self._emitter.inlined):
            for name in [name for name, tensor in table.items() if id(tensor) in changed]:
                del table[name]


def describe(function: ir.Operation, state: Sequence[str], writes: Sequence[int]) -> None:
    """Note on a function which arguments are state, and which arguments its last results are written to."""
    context = function.context
    if state:
        names = [ir.StringAttr.get(name, context) for name in state]
        function.attributes[STATE] = ir.ArrayAttr.get(names, context=context)
    if writes:
        function.attributes[WRITES] = ir.DenseI64ArrayAttr.get(list(writes), context=context)


# -- tensors that share memory -----------------------------------------------------------------------------


class SharedMemory(Exception):
    """The program writes tensors whose memory others of its tensors share.

    It has to be imported again, with each of them as a view of the tensor that :func:`memory_behind` gives.
    """

    def __init__(self, owners: Mapping[int, Named]) -> None:
        super().__init__()
        self.owners = dict(owners)


def demand_owners(storages: Iterable[LiteralStorage]) -> None:
    """Raise :class:`SharedMemory` when one of the storages was written and another one lies in the same memory."""
    groups: dict[int, list[LiteralStorage]] = {}
    for storage in storages:
        groups.setdefault(address(storage.tensor), []).append(storage)
    shared = {
        where: memory_behind([(each.name, each.tensor) for each in group])
        for where, group in groups.items()
        if len(group) > 1 and any(each.is_written for each in group)
    }
    if shared:
        raise SharedMemory(shared)


def address(tensor: torch.Tensor) -> int:
    """Where the memory of a tensor begins, or its own number where it has none."""
    return tensor.untyped_storage().data_ptr() or id(tensor)


def memory_behind(tensors: Sequence[Named]) -> Named:
    """The one of the tensors that holds all others, or the memory of all of them as a tensor with one axis."""
    if len({tensor.dtype for _, tensor in tensors}) > 1:
        raise ImportFailed(
            f"{', '.join(name for name, _ in tensors)} share memory that the program writes, in several dtypes",
            advice="give each its own memory: self.b = self.a.clone()",
        )
    spans = [_span(tensor) for _, tensor in tensors]
    low, high = min(start for start, _ in spans), max(end for _, end in spans)
    for (name, tensor), span in zip(tensors, spans, strict=True):
        if span == (low, high) and tensor.is_contiguous():
            return name, tensor
    name, tensor = tensors[0]
    return f"{name}.memory", tensor.detach().as_strided((high - low,), (1,), low)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """First and last element, plus one, of the memory that a tensor reads."""
    start = tensor.storage_offset()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1 if tensor.numel() else 0)


def view_of(owner: TensorRef, memory: torch.Tensor, tensor: torch.Tensor, meta: torch.Tensor) -> TensorRef:
    """``tensor``, which ``meta`` is like, as a view of ``owner``, which stands for the tensor ``memory`` around it."""
    if owner.meta is meta:
        return owner
    placed = tensor.storage_offset() - memory.storage_offset()
    args = (SOURCE, list(tensor.shape), list(tensor.stride()), placed)
    step = ViewStep(aten.as_strided.default, args, {}, (meta,), (0,))
    if (tensor.shape, tensor.stride(), placed) == (memory.shape, memory.stride(), 0):
        step = ViewStep(aten.alias.default, (SOURCE,), {}, (meta,), (0,))
    return TensorRef(Place(owner.storage, meta, owner.place, step))
