"""Evaluates a TorchScript graph: what is known at import is computed, what is not is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch._subclasses.fake_tensor import FakeTensorMode

from torch_tvm.importers.recording.recorder import Recorder
from torch_tvm.importers.torchscript.context import IMPORTER, Context
from torch_tvm.importers.torchscript.graph import Code, Instruction
from torch_tvm.importers.torchscript.handlers.containers.lists import Containers
from torch_tvm.importers.torchscript.handlers.objects import Objects
from torch_tvm.support.errors import ImportFailed

Env = dict[int, Any]
Handler = Callable[["Evaluator", list[Any]], Any]
"""Evaluates the instruction that the evaluator is at, with the values of its operands."""


class Handlers(Protocol):
    """What evaluates single instructions: :mod:`torch_tvm.importers.torchscript.handlers.resolve`."""

    def constant(self, ev: Evaluator, value: Any, name: str = "") -> Any: ...

    def control(self, ev: Evaluator, instruction: Instruction, env: Env) -> None: ...

    def resolve(self, instruction: Instruction) -> Handler: ...


class Evaluator(Context):
    """A context that evaluates instructions, with the lists and objects of the program."""

    def __init__(self, handlers: Handlers, recorder: Recorder, mode: FakeTensorMode, importer: str = IMPORTER) -> None:
        super().__init__(recorder, mode, importer)
        self._handlers = handlers
        self.containers = Containers(self)
        self.objects = Objects(self, self.call)

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
                env[instruction.outputs[0]] = self._handlers.constant(self, instruction.constant, instruction.name)
                continue
            self._current = instruction
            if instruction.kind in ("prim::If", "prim::Loop"):
                self.emitter.location = self._mlir_location(instruction)
                self._handlers.control(self, instruction, env)
                continue
            handler = instruction.handler
            if handler is None:
                handler = instruction.handler = self._handlers.resolve(instruction)
            self.emitter.location = self._mlir_location(instruction)
            result = handler(self, [env[number] for number in instruction.inputs])
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


__all__ = ["Env", "Evaluator", "Handler", "Handlers"]
