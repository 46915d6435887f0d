"""The reference interpreter: runs a Torch dialect module op by op through ``torch.ops``.

A block is planned once into a list of Python steps over numbered slots, then executed; so a loop pays for its
steps and not for reading MLIR again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torch_tvm.aten.autocast import without_autocast
from torch_tvm.aten.calls import callable_for, runtime_assert
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.support.errors import InvalidInput, SourceLocation, format_message

Slots = dict[int, Any]
Step = Callable[[Slots], None]

__all__ = ["run"]


@without_autocast()
def run(
    mlir: ir.Module,
    entry: str,
    args: Sequence[Any],
    *,
    weights: Mapping[str, torch.Tensor],
    admit: Callable[[str, SourceLocation], None],
) -> list[Any]:
    """Run the function ``entry`` on flat arguments and return its flat results.

    ``admit`` raises for an op that may not run. Raises :class:`UnsupportedOp` for one that PyTorch does not have and
    :class:`InvalidInput` for a wrong count of arguments or a weight without data.
    """
    return _Program(mlir, weights, admit).call(entry, args)


class _Program:
    """The functions of one module, each planned on its first call; literals are read once."""

    def __init__(
        self,
        mlir: ir.Module,
        weights: Mapping[str, torch.Tensor],
        admit: Callable[[str, SourceLocation], None],
    ) -> None:
        self.admit = admit
        self._weights = weights
        self._functions = view.functions(mlir)
        self._plans: dict[str, tuple[_Plan, list[int]]] = {}

    def call(self, name: str, args: Sequence[Any]) -> list[Any]:
        if name not in self._plans:
            function = self._functions[name]
            block = function.regions[0].blocks[0]
            plan = _Plan(self, self._weights)
            self._plans[name] = (plan, plan.block(block))
        plan, arguments = self._plans[name]
        if len(args) != len(arguments):
            raise InvalidInput(f"expected {len(arguments)} flat arguments, got {len(args)}", subject=f"@{name}")
        slots: Slots = dict(zip(arguments, args, strict=True))
        return plan.run(slots)


class _Plan:
    """The steps of one function body; ``values`` numbers the MLIR values of it."""

    def __init__(self, program: _Program, weights: Mapping[str, torch.Tensor]) -> None:
        self._program = program
        self._weights = weights
        self._values: dict[ir.Value, int] = {}
        self._steps: list[Step] = []
        self._yielded: list[int] = []

    def run(self, slots: Slots) -> list[Any]:
        for step in self._steps:
            step(slots)
        return [slots[index] for index in self._yielded]

    def block(self, block: ir.Block) -> list[int]:
        """Plan the operations of a block and return the slots of its arguments."""
        arguments = self._slots(block.arguments)
        for opview in block.operations:
            operation = opview.operation
            name = view.op_name(operation)
            if name in _TERMINATORS:
                self._yielded = self._slots(operation.operands)
            elif name not in _IGNORED:
                plan = _REGION_OPS.get(name, _Plan._generic)
                self._steps.append(_located(plan(self, operation), operation, name))
        return arguments

    def _slots(self, values: Sequence[ir.Value]) -> list[int]:
        return [self._values.setdefault(value, len(self._values)) for value in values]

    def _nested(self, block: ir.Block) -> tuple[_Plan, list[int]]:
        inner = _Plan(self._program, self._weights)
        inner._values = self._values
        return inner, inner.block(block)

    def _generic(self, operation: ir.Operation) -> Step:
        inputs, outputs = self._slots(operation.operands), self._slots(operation.results)
        name = view.op_name(operation)
        if name.startswith("torch.constant."):
            return _store(outputs, view.constant_of_op(operation))
        self._program.admit(name, view.location(operation))
        function = callable_for("torch.aten._int_mm" if _is_int_mm(operation, name) else name)
        if len(outputs) == 1:
            target = outputs[0]

            def single(slots: Slots) -> None:
                slots[target] = function(*[slots[i] for i in inputs])

            return single

        def several(slots: Slots) -> None:
            results = function(*[slots[i] for i in inputs])
            if outputs:
                slots.update(zip(outputs, results, strict=True))

        return several

    def _literal(self, operation: ir.Operation) -> Step:
        return _store(self._slots(operation.results), view.literal(operation, self._weights))

    def _unpack(self, operation: ir.Operation) -> Step:
        (source,), outputs = self._slots(operation.operands), self._slots(operation.results)

        def unpack(slots: Slots) -> None:
            if len(slots[source]) != len(outputs):
                raise RuntimeError(f"expected {len(outputs)} elements, got {len(slots[source])}")
            slots.update(zip(outputs, slots[source], strict=True))

        return unpack

    def _tuple(self, operation: ir.Operation) -> Step:
        inputs, (target,) = self._slots(operation.operands), self._slots(operation.results)
        return lambda slots: slots.__setitem__(target, tuple(slots[i] for i in inputs))

    def _assertion(self, operation: ir.Operation) -> Step:
        (condition,), message = self._slots(operation.operands), operation.attributes["message"].value
        return lambda slots: runtime_assert(slots[condition], message)

    def _call(self, operation: ir.Operation) -> Step:
        inputs, outputs = self._slots(operation.operands), self._slots(operation.results)
        callee = ir.FlatSymbolRefAttr(operation.attributes["callee"]).value
        program = self._program
        return lambda slots: slots.update(zip(outputs, program.call(callee, [slots[i] for i in inputs]), strict=True))

    def _if(self, operation: ir.Operation) -> Step:
        (condition,), outputs = self._slots(operation.operands), self._slots(operation.results)
        then, _ = self._nested(operation.regions[0].blocks[0])
        other, _ = self._nested(operation.regions[1].blocks[0])
        return lambda slots: slots.update(zip(outputs, (then if slots[condition] else other).run(slots), strict=True))

    def _loop(self, operation: ir.Operation) -> Step:
        trips, condition, *carried = self._slots(operation.operands)
        outputs = self._slots(operation.results)
        body, (counter, *arguments) = self._nested(operation.regions[0].blocks[0])

        def loop(slots: Slots) -> None:
            values = [slots[i] for i in carried]
            iteration, goes_on = 0, slots[condition]
            while goes_on and iteration < slots[trips]:
                slots[counter] = iteration
                slots.update(zip(arguments, values, strict=True))
                goes_on, *values = body.run(slots)
                iteration += 1
            slots.update(zip(outputs, values, strict=True))

        return loop

    def _calculate(self, operation: ir.Operation) -> Step:
        """``torch.shape.calculate`` and its dtype sibling: the body; the computed shapes are not needed."""
        outputs = self._slots(operation.results)
        body, _ = self._nested(operation.regions[0].blocks[0])
        return lambda slots: slots.update(zip(outputs, body.run(slots), strict=True))


def _is_int_mm(operation: ir.Operation, name: str) -> bool:
    """Whether a product of int8 gives int32: torch-mlir's canonicalisation spells ``_int_mm`` so."""
    if name != "torch.aten.mm":
        return False
    result, operand = view.tensor_type(operation.results[0]), view.tensor_type(operation.operands[0])
    dtypes = (result and result.dtype, operand and operand.dtype)
    return dtypes == (torch.int32, torch.int8)


def _store(outputs: list[int], value: Any) -> Step:
    (target,) = outputs
    return lambda slots: slots.__setitem__(target, value)


def _located(step: Step, operation: ir.Operation, name: str) -> Step:
    """``step``, whose errors name the op and the user's line; PyTorch's own kind of error is kept."""
    place = view.location(operation)

    def run_step(slots: Slots) -> None:
        try:
            step(slots)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            if getattr(error, "_torch_tvm_located", False) or type(error).__module__ != "builtins":
                raise
            text = format_message(str(error), subject=name, location=place, stage="reference interpreter")
            located = type(error)(text)
            located._torch_tvm_located = True  # type: ignore[union-attr]
            raise located from error

    return run_step


_TERMINATORS = {
    "func.return",
    "torch.prim.If.yield",
    "torch.prim.Loop.condition",
    "torch.shape.calculate.yield",
    "torch.dtype.calculate.yield",
}
_IGNORED = {"torch.symbolic_int", "torch.bind_symbolic_shape"}
_REGION_OPS: dict[str, Callable[[_Plan, ir.Operation], Step]] = {
    "func.call": _Plan._call,
    "torch.vtensor.literal": _Plan._literal,
    "torch.tensor.literal": _Plan._literal,
    "torch.prim.If": _Plan._if,
    "torch.prim.Loop": _Plan._loop,
    "torch.prim.ListUnpack": _Plan._unpack,
    "torch.prim.TupleUnpack": _Plan._unpack,
    "torch.prim.TupleConstruct": _Plan._tuple,
    "torch.runtime.assert": _Plan._assertion,
    "torch.shape.calculate": _Plan._calculate,
    "torch.dtype.calculate": _Plan._calculate,
}
