"""``Weights``: the weights of a compiled module as the program has them, and as its kernels read them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import tvm_ffi

from torch_tvm.runtime.calls.arguments import (
    dense,
    why_unreadable,
)
from torch_tvm.runtime.calls.convention import describe_value
from torch_tvm.runtime.calls.tensors import array_item, as_torch, memory_ranges, shares_memory, snapshot
from torch_tvm.runtime.code import Code
from torch_tvm.runtime.library import DeviceProgram
from torch_tvm.runtime.threads import configure_threads
from torch_tvm.runtime.weights.weights_program import run_weights_program
from torch_tvm.support.attributes import TRANSFORM_PARAMS
from torch_tvm.support.errors import InvalidInput


class Weights:
    """The weights of a compiled module: the originals by name, and what the kernels read.

    ``packed`` is the tuple that the module's own ``main_transform_params`` made of the originals, once.
    ``tensors`` are snapshots: nobody else can change them. With ``pack=False`` there are none; ``borrow`` packs
    tensors of the caller, then and whenever they change.
    """

    def __init__(self, code: Code, tensors: Mapping[str, torch.Tensor], *, pack: bool = True) -> None:
        self._code = code
        self.tensors = {name: snapshot(t) if pack else t for name, t in tensors.items()}
        self.packed = self._pack(self._placed) if pack else None

    @classmethod
    def loaded(cls, code: Code, tensors: Mapping[str, torch.Tensor], packed: Sequence[torch.Tensor] | None) -> Weights:
        """Weights from a file, over its memory: the originals, on the meta device where they are not in it, and what
        was packed of them, or ``None`` where that is still to do.
        """
        weights = cls(code, tensors, pack=False)
        if packed is None:
            weights.packed = weights._pack(weights._placed)
        elif tensors:
            placed = weights._placed(list(packed))
            weights.packed = tvm_ffi.convert(placed) if code.lifted else placed
        return weights

    def packed_tensors(self) -> list[torch.Tensor] | None:
        """What kernels read, ``None`` where nothing is packed."""
        if self.packed is None:
            return None
        if isinstance(self._code.library, DeviceProgram):
            return self._code.library.fetched(self.packed)
        return (
            [as_torch(array_item(self.packed, i)) for i in range(len(self.packed))]
            if self._code.lifted
            else self.packed
        )

    def absent(self) -> list[str]:
        """Names of originals that a file did not have."""
        return [name for name, tensor in self.tensors.items() if tensor.is_meta]

    def _pack(
        self,
        owned: Callable[[list[torch.Tensor]], list[torch.Tensor]],
        changed: Collection[str] | None = None,
    ) -> Any:
        """``owned`` moves tensors to where kernels read them.

        With names in ``changed``, what was packed of the other weights stays, where that can be told.
        """
        code = self._code
        if not self.tensors or (code.obstacle and not (code.program and code.device == "cpu")):
            return None
        kept = None if changed is None or isinstance(code.library, DeviceProgram) else self.packed_tensors()
        if changed is None or kept is None:
            return self._resident(owned(self._made(None)))
        made = self._made([index for index, name in enumerate(self.tensors) if name in changed])
        fresh = iter(owned([tensor for tensor in made if tensor is not None]))
        pairs = zip(made, kept, strict=True)
        return self._resident([before if tensor is None else next(fresh) for tensor, before in pairs])

    def _made(self, changed: Collection[int] | None) -> list[Any]:
        """What kernels read; with positions in ``changed``, ``None`` for what is made of other weights, where that can
        be told.
        """
        code, weights = self._code, list(self.tensors.values())
        if code.program:
            return run_weights_program(code.program, weights, changed)
        if code.lifted:
            vm = code.new_vm()
            configure_threads()
            packed = vm[TRANSFORM_PARAMS](self._placed(weights))
            return [as_torch(code.item(packed, index)) for index in range(len(packed))]
        return [weight if changed is None or index in changed else None for index, weight in enumerate(weights)]

    def _resident(self, tensors: list[torch.Tensor]) -> Any:
        """Packed weights in the form of ``main``'s arguments: on the device, as one array, or as they are."""
        code = self._code
        if isinstance(code.library, DeviceProgram):
            return code.library.resident(tensors)
        return tvm_ffi.convert(tensors) if code.lifted else tensors

    def _placed(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        return [dense(tensor, 64).to(self._code.device) for tensor in tensors]

    def _apart(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors where kernels read them, none in memory of an original weight."""
        held = memory_ranges([tensor.detach() for tensor in self.tensors.values()])
        placed = self._placed(tensors)
        return [tensor.clone() if shares_memory(tensor, held) else tensor for tensor in placed]

    def replaced(self, values: Mapping[str, torch.Tensor]) -> Weights:
        """These weights with some exchanged, packed anew; ``values`` belong to the new ones."""
        fresh = copy.copy(self)
        fresh.tensors = {name: values.get(name, tensor) for name, tensor in self.tensors.items()}
        if fresh.absent():
            raise InvalidInput(
                f"the file that the module was loaded from has no '{fresh.absent()[0]}' as it was before it was packed",
                subject="load_state_dict",
                advice="give all weights, or save the module with originals=True",
            )
        fresh.packed = fresh._pack(fresh._placed, values)
        return fresh

    def borrow(self, values: Mapping[str, torch.Tensor], changed: Collection[str] | None = None) -> None:
        """Pack tensors that the caller may change or drop later: they are not held.

        ``changed`` are those that differ from what was borrowed last, by default all. Raises :class:`InvalidInput` for
        one of another dtype or shape.
        """
        for name, wanted in self.tensors.items():
            value = values.get(name, wanted)
            if value.shape != wanted.shape or value.dtype != wanted.dtype:
                raise InvalidInput(f"weight '{name}': expected {describe_value(wanted)}, got {describe_value(value)}")
        fresh = copy.copy(self)
        fresh.tensors = {name: values.get(name, tensor) for name, tensor in self.tensors.items()}
        self.packed = fresh._pack(fresh._apart, changed)

    def share(self, known: dict[str, torch.Tensor]) -> None:
        """Hold the snapshots of ``known`` in place of equal ones; what it lacks is added to it."""
        for name, tensor in self.tensors.items():
            other = known.setdefault(name, tensor)
            if is_like(tensor, other) and torch.equal(tensor, other):
                self.tensors[name] = other


def is_like(value: Any, wanted: torch.Tensor) -> bool:
    """Whether a value is a readable tensor of the same type."""
    return (
        isinstance(value, torch.Tensor)
        and not why_unreadable(value)
        and value.shape == wanted.shape
        and value.dtype == wanted.dtype
    )


__all__ = ["Weights", "is_like"]
