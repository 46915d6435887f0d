"""Parts of a Torch dialect module as modules of their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import func, ir
from torch_tvm.dialect.module import Signature, TorchModule

Value = tuple[int, int]
"""A result of a top-level operation: the operation's position in the entry function, and which result it is."""


def tensor_values(module: TorchModule) -> list[Value]:
    """The tensors that the entry function computes, in order; constants and weights are none."""
    found = []
    for index, operation in enumerate(operations(module)[:-1]):
        name = view.op_name(operation)
        if name == "torch.vtensor.literal" or name.startswith("torch.constant."):
            continue
        for number, result in enumerate(operation.results):
            kind = view.tensor_type(result)
            if kind is not None and kind.shape is not None and kind.dtype is not None:
                found.append((index, number))
    return found


def operations(module: TorchModule) -> list[ir.Operation]:
    """The top-level operations of the entry function, its return last."""
    return [each.operation for each in module.main.regions[0].blocks[0].operations]


def needed(module: TorchModule, value: Value) -> list[Value]:
    """The tensors that a value depends on, in order, the value itself last."""
    listed = operations(module)
    position = {operation: index for index, operation in enumerate(listed)}
    seen: set[int] = set()
    waiting = [value[0]]
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        for inner in [listed[index], *view.walk(listed[index])]:
            for operand in inner.operands:
                source = view.defining_op(operand)
                if source in position:
                    waiting.append(position[source])
    return [each for each in tensor_values(module) if each[0] in seen]


def part(module: TorchModule, results: Sequence[Value], arguments: Collection[Value] = ()) -> TorchModule:
    """The module that computes ``results`` and takes ``arguments``, after its own arguments, instead of computing them.

    It has flat arguments and results, no state and no writes: those are arguments and results like others.
    """
    fresh = TorchModule.read(module.bytecode(), "-", needs_state=False)
    fresh.admitted = module.admitted
    main, listed = fresh.main.operation, operations(fresh)
    block = main.regions[0].blocks[0]
    with main.context, ir.Location.unknown():
        for index, number in sorted(arguments):
            value = listed[index].results[number]
            value.replace_all_uses_with(block.add_argument(value.type, listed[index].location))
        returned = [listed[index].results[number] for index, number in results]
        listed[-1].erase()
        with ir.InsertionPoint(block):
            func.ReturnOp(returned)
        for operation in reversed(listed[:-1]):
            if not any(view.is_used(result) for result in operation.results):
                operation.erase()
        kind = ir.FunctionType.get([a.type for a in block.arguments], [value.type for value in returned])
        main.attributes["function_type"] = ir.TypeAttr.get(kind)
    for name in [getattr(each, "name", each) for each in main.attributes]:
        if name.startswith("torch_tvm.") or name == "arg_attrs":
            del main.attributes[name]
    fresh.signature, fresh.state = Signature(), {}
    return TorchModule.read(fresh.bytecode(), "-", needs_state=False)


def used_arguments(module: TorchModule) -> list[int]:
    """Positions of the arguments that something reads."""
    block = module.main.regions[0].blocks[0]
    return [index for index, argument in enumerate(block.arguments) if view.is_used(argument)]


def without_unused_arguments(module: TorchModule) -> TorchModule:
    """The module that takes only what it reads."""
    keep = set(used_arguments(module))
    fresh = TorchModule.read(module.bytecode(), "-", needs_state=False)
    main = fresh.main.operation
    block = main.regions[0].blocks[0]
    for index in reversed(range(len(block.arguments))):
        if index not in keep:
            block.erase_argument(index)
    with main.context:
        results = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value).results
        kind = ir.FunctionType.get([argument.type for argument in block.arguments], results)
        main.attributes["function_type"] = ir.TypeAttr.get(kind)
    return TorchModule.read(fresh.bytecode(), "-", needs_state=False)


__all__ = [
    "Value",
    "needed",
    "operations",
    "part",
    "tensor_values",
    "used_arguments",
    "without_unused_arguments",
]
