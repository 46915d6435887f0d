"""Evaluates a TorchScript graph: what is known at import is computed, what is not is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from torch_tvm.dialect.harmless import is_harmless
from torch_tvm.dialect.locations import to_mlir
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recorder import Recorder
from torch_tvm.importers.storages import TensorRef
from torch_tvm.importers.torchscript import (
    containers,
    dicts,
    optimised,
    prims,
    queries,
    recurrent,
    special,
    tensors,
)
from torch_tvm.importers.torchscript.containers import Containers
from torch_tvm.importers.torchscript.graph import Code, Instruction
from torch_tvm.importers.torchscript.objects import Objects
from torch_tvm.importers.torchscript.scalars import Scalars
from torch_tvm.importers.torchscript.signals import CertainError, Specialise
from torch_tvm.importers.torchscript.sizes import Sizes
from torch_tvm.importers.torchscript.values import (
    RUNTIME_TEXT,
    Container,
    DictValue,
    RuntimeText,
    next_serial,
)
from torch_tvm.importers.user_code import is_users
from torch_tvm.support.errors import ImportFailed, SourceLocation

IMPORTER = "torchscript"
Env = dict[int, Any]
Handler = Callable[["Evaluator", Instruction, list[Any]], Any]


class Evaluator:
    """The state of one import: recorder, journal of container changes, and where in the program we are."""

    def __init__(self, recorder: Recorder, mode: FakeTensorMode, importer: str = IMPORTER) -> None:
        self.importer = importer
        self.recorder = recorder
        self.emitter = recorder.emitter
        self.mode = mode
        self.scalars = Scalars(self)
        self.containers = Containers(self)
        self.objects = Objects(self)
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

    # -- evaluation ------------------------------------------------------------------------------------

    def run(self, code: Code, env: Env) -> None:
        """Evaluate the instructions of a block in ``env`` (value number to value)."""
        try:
            self._run(code, env)
        except ImportFailed as error:
            if error.location is not None:
                raise
            raise self.failure(error.problem, subject=error.subject, advice=error.advice) from None

    def _run(self, code: Code, env: Env) -> None:
        for instruction in code.instructions:
            if instruction.kind == "prim::Constant":
                env[instruction.outputs[0]] = prims.constant(self, instruction.constant, instruction.name)
                continue
            self._current = instruction
            handler = instruction.handler
            if handler is None:
                handler = instruction.handler = _resolve(instruction)
            self.emitter.location = self._mlir_location(instruction)
            if handler is prims.control:
                prims.control(self, instruction, env)
                continue
            result = handler(self, instruction, [env[number] for number in instruction.inputs])
            if len(instruction.outputs) == 1:
                env[instruction.outputs[0]] = result
            elif instruction.outputs:
                env.update(zip(instruction.outputs, result, strict=True))

    def call(self, code: Code, args: list[Any], scope: str | None = None) -> Any:
        """Evaluate a function; several returned values come back as a tuple."""
        caller = self._current
        if len(self._callers) > 200:
            raise self.failure("calls nest too deeply: recursion cannot be imported")
        if caller is not None:
            self._callers.append(caller)
        self._scopes.append(self._scopes[-1] if scope is None else scope)
        try:
            env: Env = dict(zip(code.parameters, args, strict=True))
            self.run(code, env)
        finally:
            self._scopes.pop()
            if caller is not None:
                self._callers.pop()
            self._current = caller
        results = [env[number] for number in code.returns]
        return results[0] if len(results) == 1 else tuple(results)

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
            found = to_mlir(
                SourceLocation(place[0], place[1], self._scopes[-1], self.importer), self.emitter.context
            )
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

    def share(self, ref: TensorRef, outer: list[TensorRef]) -> None:
        """``ref`` may be one of the tensors ``outer`` itself, so writing to it would be ambiguous."""
        self._shared[id(ref.storage)] = (ref.storage, outer)

    def refuse_shared(self, ref: TensorRef) -> None:
        """Raise when an in-place update of ``ref`` cannot be told from an update of another tensor."""
        if id(ref.storage) in self._shared:
            raise self.failure(
                "this tensor is updated in place, and on one run-time path it is another tensor of the "
                "program",
                advice="update a clone of it",
            )

    def certain(self, message: str) -> CertainError:
        return CertainError(message, self.location())


def _resolve(instruction: Instruction) -> Handler:
    """Which function evaluates this kind of instruction."""
    kind, overload = instruction.kind, instruction.overload
    if kind in prims.HANDLERS:
        return prims.HANDLERS[kind]
    if instruction.qualified in containers.HANDLERS:
        own = containers.HANDLERS[instruction.qualified]
        return lambda ev, i, args: own(ev, args)
    for table in (special.HANDLERS, recurrent.HANDLERS, optimised.HANDLERS):
        if kind in table:
            return table[kind]
    if overload is None:
        return _unknown
    if not is_harmless(overload):
        return _reaches_out
    if "Dict(" in str(overload._schema.arguments[:1]):
        name = kind.split("::")[1]
        return lambda ev, i, args: dicts.dict_handler(ev, name, args)
    if kind in queries.HANDLERS and any("Tensor" in str(a.type) for a in overload._schema.arguments[:1]):
        query = queries.HANDLERS[kind]
        return lambda ev, i, args: query(ev, args)
    returns = " ".join(str(r.type) for r in overload._schema.returns)
    takes = " ".join(str(a.type) for a in overload._schema.arguments)
    if kind == "aten::len" and takes == "str":
        return _text_length
    if "Tensor" not in returns and "Tensor" not in takes:
        return lambda ev, i, args: _scalar_op(ev, overload, args)
    return lambda ev, i, args: tensors.call(ev, overload, args)


def _scalar_op(ev: Evaluator, overload: torch._ops.OpOverload, args: list[Any]) -> Any:
    if args and isinstance(args[0], DictValue):
        return dicts.dict_handler(ev, overload._schema.name.split("::")[1], args)
    return prims.wrap(ev.scalars.call(overload, [prims.unwrap(ev, arg) for arg in args]))


def _text_length(ev: Evaluator, instruction: Instruction, args: list[Any]) -> Any:
    """``len(text)``; of text that only run time knows no more than what ``if text:`` asks, ``len(text) > 0``."""
    uses = [use.user for use in instruction.node.output().uses()]
    asks = all(user.kind() == "aten::gt" and user.inputsAt(1).toIValue() == 0 for user in uses)
    if isinstance(args[0], RuntimeText) and args[0] == RUNTIME_TEXT and asks:
        return 1
    assert instruction.overload is not None
    return _scalar_op(ev, instruction.overload, args)


def _reaches_out(ev: Evaluator, instruction: Instruction, args: list[Any]) -> Any:
    raise ev.failure(
        "this op reads or changes more than its operands", advice="do it outside of the compiled program"
    )


def _unknown(ev: Evaluator, instruction: Instruction, args: list[Any]) -> Any:
    kind = instruction.kind
    if optimised.is_optimised(kind):
        raise ev.failure("this op was put there by an optimisation pass", advice=optimised.ADVICE)
    raise ev.failure("this TorchScript node has no import")
