"""Handlers of TorchScript's instructions, each registered where it stands: one decorator, one signature."""

from __future__ import annotations

from collections.abc import Callable

from torch_tvm.importers.torchscript.evaluator import Handler
from torch_tvm.importers.torchscript.graph import Instruction

_BY_NAME: dict[str, Handler] = {}
_OF_TENSORS: dict[str, Handler] = {}


def handles(*names: str, of_tensor: bool = False) -> Callable[[Handler], Handler]:
    """Evaluate ``prim::Kind``, ``aten::name.overload`` or, for all overloads, ``aten::name``, by ``handler(ev, args)``.

    ``of_tensor`` is for a question that an op with a tensor as its first operand asks of it; ops of other operands
    that have the name are evaluated by their schema. A name that is registered twice is a bug.
    """
    table = _OF_TENSORS if of_tensor else _BY_NAME

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name not in table, name
            table[name] = handler
        return handler

    return register


def find(instruction: Instruction) -> Handler | None:
    """The handler of an instruction, whatever its operands are."""
    return _BY_NAME.get(instruction.qualified) or _BY_NAME.get(instruction.kind)


def find_of_tensor(instruction: Instruction) -> Handler | None:
    """The handler of a question of a tensor."""
    overload = instruction.overload
    if overload is None or not any("Tensor" in str(a.type) for a in overload._schema.arguments[:1]):
        return None
    return _OF_TENSORS.get(instruction.kind)


__all__ = ["find", "find_of_tensor", "handles"]
