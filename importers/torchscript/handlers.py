"""Which function evaluates an instruction."""

from __future__ import annotations

from typing import Any

import torch

from torch_tvm.aten.harmless import is_harmless
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
from torch_tvm.importers.torchscript.evaluator import Evaluator, Handler
from torch_tvm.importers.torchscript.graph import Instruction
from torch_tvm.importers.torchscript.prims import constant, control
from torch_tvm.importers.torchscript.values import RUNTIME_TEXT, DictValue, RuntimeText


def resolve(instruction: Instruction) -> Handler:
    """Which function evaluates this kind of instruction."""
    kind, overload = instruction.kind, instruction.overload
    if kind in prims.HANDLERS:
        return prims.HANDLERS[kind]
    if instruction.qualified in containers.HANDLERS:
        own = containers.HANDLERS[instruction.qualified]
        return lambda ev, i, args: own(ev, args)
    for table in (special.HANDLERS, recurrent.HANDLERS, optimised.HANDLERS):
        if kind in table or instruction.qualified in table:
            return table[kind if kind in table else instruction.qualified]
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


__all__ = ["constant", "control", "resolve"]
