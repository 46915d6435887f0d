"""The state of evaluating a TorchScript graph: the recorder, numbers and sizes, containers that changed, and places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torch_tvm.dialect.locations import to_mlir
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.recorder import Recorder
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.torchscript.graph import Instruction
from torch_tvm.importers.torchscript.scalars import Scalars
from torch_tvm.importers.torchscript.signals import CertainError, Specialise
from torch_tvm.importers.torchscript.sizes.demands import Sizes
from torch_tvm.importers.torchscript.values import Container, ListValue, next_serial
from torch_tvm.importers.user_code import is_users
from torch_tvm.support.errors import ImportFailed, SourceLocation

IMPORTER = "torchscript"


class Context:
    """The state of one import: recorder, journal of container changes, and where in the program we are."""

    def __init__(self, recorder: Recorder, mode: FakeTensorMode, importer: str = IMPORTER) -> None:
        self.importer = importer
        self.recorder = recorder
        self.emitter = recorder.emitter
        self.mode = mode
        self.scalars = Scalars(self)
        self.sizes = Sizes(self)
        self.grad_enabled: bool = True
        self.effects = 0
        self._journal: list[dict[int, tuple[Container, Any]]] = []
        self._since: list[int] = []
        self._shared: dict[int, Any] = {}
        self._callers: list[Instruction] = []
        self._scopes: list[str] = [""]
        self._current: Instruction | None = None
        self._locations: dict[tuple[str, int, str], ir.Location] = {}

    def fake_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A fake tensor like ``tensor``; ``FakeTensorMode.from_tensor`` is far slower."""

        def make() -> torch.Tensor:
            meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            return FakeTensor(self.mode, meta, torch.device("cpu"))

        return self.sizes.unguarded(make)

    def new_symbol(self) -> torch.SymInt:
        shape_env = self.mode.shape_env
        assert shape_env is not None
        return shape_env.create_unbacked_symint()

    def items(self, value: ListValue) -> list[Any]:
        """The elements of a list whose length is known."""
        if not isinstance(value.items, list):
            raise self.failure(
                "this list's length is only known at run time; here it must be known at import",
                advice="use torch.stack, torch.cat, len, indexing or append on it",
            )
        return value.items

    # -- the journal -----------------------------------------------------------------------------------

    def touch(self, container: Container) -> None:
        """Call before a container changes."""
        if self._journal and container.serial < self._since[-1] and id(container) not in self._journal[-1]:
            self._journal[-1][id(container)] = (container, container.snapshot())

    @property
    def in_region(self) -> bool:
        """Whether a run-time branch or loop body is being recorded."""
        return bool(self._journal)

    @contextmanager
    def region(self) -> Iterator[tuple[dict[int, Any], dict[int, Any]]]:
        """Storages and containers changed inside, with what they were; both are restored at the end."""
        changed: dict[int, tuple[Container, Any]] = {}
        self._journal.append(changed)
        self._since.append(next_serial())
        grad_enabled = self.grad_enabled
        try:
            with self.recorder.region() as written, self.sizes.region():
                yield written, changed
        finally:
            self._journal.pop()
            self._since.pop()
            self.grad_enabled = grad_enabled
            for container, before in changed.values():
                container.restore(before)

    # -- places and errors -----------------------------------------------------------------------------

    @property
    def scope(self) -> str:
        return self._scopes[-1]

    def place(self, instruction: Instruction | None = None) -> tuple[str, int]:
        """The innermost file and line of the user's own, else of whatever is known."""
        innermost = instruction or self._current
        chain = [*self._callers, innermost] if innermost is not None else list(self._callers)
        places = [each.place for each in reversed(chain) if each.place[0]]
        own = [place for place in places if is_users(place[0])]
        return (own or places or [("", 0)])[0]

    def at(self, instruction: Instruction) -> None:
        """What follows belongs to ``instruction``, whose blocks have been evaluated."""
        self._current = instruction
        self.emitter.location = self._mlir_location(instruction)

    def location(self) -> SourceLocation:
        file, line = self.place()
        return SourceLocation(file, line, self._scopes[-1], self.importer)

    def _mlir_location(self, instruction: Instruction) -> ir.Location:
        place = instruction.place
        if not is_users(place[0]):
            place = self.place(instruction)
        key = (*place, self._scopes[-1])
        found = self._locations.get(key)
        if found is None:
            found = to_mlir(SourceLocation(place[0], place[1], self._scopes[-1], self.importer), self.emitter.context)
            self._locations[key] = found
        return found

    def failure(
        self, problem: str, *, subject: str = "", advice: str = "", origin: frozenset[int] = frozenset()
    ) -> Exception:
        """The error for something that cannot be imported here.

        With ``origin``, user arguments whose values would decide it, a request to import again with those
        values fixed.
        """
        if not subject and self._current is not None:
            subject = f"torch.{self._current.qualified.replace('::', '.')}"
        error = ImportFailed(problem, subject=subject, location=self.location(), advice=advice)
        return Specialise(origin, error) if origin else error

    def specialised(self, error: ImportFailed, origin: frozenset[int]) -> Exception:
        """``error``, or the request to import again with the user arguments ``origin`` fixed."""
        return Specialise(origin, error) if origin else error

    @property
    def instruction(self) -> Instruction:
        """The one that is evaluated."""
        assert self._current is not None
        return self._current

    @property
    def overload(self) -> torch._ops.OpOverload:
        """The op that is evaluated."""
        assert self.instruction.overload is not None
        return self.instruction.overload

    def share(self, ref: TensorRef, outer: list[TensorRef]) -> None:
        """``ref`` may be one of the tensors ``outer`` itself, so writing to it would be ambiguous."""
        self._shared[id(ref.storage)] = (ref.storage, outer)

    def refuse_shared(self, ref: TensorRef) -> None:
        """Raise when an in-place update of ``ref`` cannot be told from an update of another tensor."""
        if id(ref.storage) in self._shared:
            raise self.failure(
                "this tensor is updated in place, and on one run-time path it is another tensor of the program",
                advice="update a clone of it",
            )

    def certain(self, message: str) -> CertainError:
        return CertainError(message, self.location())


__all__ = ["IMPORTER", "Context"]
