"""Which function evaluates an instruction."""

from __future__ import annotations

from typing import Any

from torch_tvm.aten.side_effects import is_harmless
from torch_tvm.importers.torchscript.evaluator import Evaluator, Handler
from torch_tvm.importers.torchscript.graph import Instruction
from torch_tvm.importers.torchscript.handlers import (
    nested,
    optimised,
    prims,
    quantized,
    quantized_recurrent,
    queries,
    recurrent,
    special,
    tensors,
)
from torch_tvm.importers.torchscript.handlers.containers import dicts, known
from torch_tvm.importers.torchscript.handlers.prims import constant, control
from torch_tvm.importers.torchscript.handlers.registry import find, find_of_tensor
from torch_tvm.importers.torchscript.values import RUNTIME_TEXT, DictValue, RuntimeText

_REGISTER = (known, dicts, nested, optimised, prims, quantized, quantized_recurrent, queries, recurrent, special)
"""Imported for the handlers in them."""


def resolve(instruction: Instruction) -> Handler:
    """Which function evaluates this kind of instruction."""
    known = find(instruction)
    if known is not None:
        return known
    overload = instruction.overload
    if overload is None:
        return _unknown
    if not is_harmless(overload):
        return _reaches_out
    if "Dict(" in str(overload._schema.arguments[:1]):
        return _dict_op
    query = find_of_tensor(instruction)
    if query is not None:
        return query
    returns = " ".join(str(r.type) for r in overload._schema.returns)
    takes = " ".join(str(a.type) for a in overload._schema.arguments)
    if instruction.kind == "aten::len" and takes == "str":
        return _text_length
    if "Tensor" not in returns and "Tensor" not in takes:
        return _scalar_op
    return _tensor_op


def _tensor_op(ev: Evaluator, args: list[Any]) -> Any:
    return tensors.call(ev, ev.overload, args)


def _dict_op(ev: Evaluator, args: list[Any]) -> Any:
    return dicts.dict_handler(ev, ev.overload._schema.name.split("::")[1], args)


def _scalar_op(ev: Evaluator, args: list[Any]) -> Any:
    if args and isinstance(args[0], DictValue):
        return _dict_op(ev, args)
    return prims.wrap(ev.scalars.call(ev.overload, [prims.unwrap(ev, arg) for arg in args]))


def _text_length(ev: Evaluator, args: list[Any]) -> Any:
    """``len(text)``; of text that only run time knows no more than what ``if text:`` asks, ``len(text) > 0``."""
    uses = [use.user for use in ev.instruction.node.output().uses()]
    asks = all(user.kind() == "aten::gt" and user.inputsAt(1).toIValue() == 0 for user in uses)
    if isinstance(args[0], RuntimeText) and args[0] == RUNTIME_TEXT and asks:
        return 1
    return _scalar_op(ev, args)


def _reaches_out(ev: Evaluator, args: list[Any]) -> Any:
    raise ev.failure("this op reads or changes more than its operands", advice="do it outside of the compiled program")


def _unknown(ev: Evaluator, args: list[Any]) -> Any:
    kind = ev.instruction.kind
    if optimised.is_optimised(kind):
        raise ev.failure("this op was put there by an optimisation pass", advice=optimised.ADVICE)
    raise ev.failure("this TorchScript node has no import")


__all__ = ["constant", "control", "resolve"]
