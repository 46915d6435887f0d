"""Arguments of a module that become weights of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torch_tvm.dialect.emitter import literal_attribute
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import WRITES, TorchModule
from torch_tvm.dialect.types import parse_tensor_type


def bind_weights(module: TorchModule, names: Mapping[int, str]) -> TorchModule:
    """Turn the arguments at the given indices into literals; ``names`` says how the weights are called.

    Their contents are not set: whoever runs the module supplies them. Shapes must be static, of more than one
    element, and the program writes none of these arguments. Changes the module and returns it.
    """
    if not names:
        return module
    function = module.main.operation
    block = function.regions[0].blocks[0]
    context = module.mlir.context
    if module.writes:
        left = [index for index in range(len(block.arguments)) if index not in names]
        writes = [left.index(index) for index in module.writes]
        function.attributes[WRITES] = ir.DenseI64ArrayAttr.get(writes, context=context)
    for index, name in names.items():
        argument = block.arguments[index]
        kind = parse_tensor_type(argument.type)
        assert kind is not None and kind.shape is not None and kind.dtype is not None
        tensor = torch.empty([size or 0 for size in kind.shape], dtype=kind.dtype)
        literal = ir.Operation.create(
            "torch.vtensor.literal",
            results=[argument.type],
            attributes={"value": literal_attribute(tensor, name, context, module.weights)},
            loc=ir.Location.unknown(context),
            ip=ir.InsertionPoint.at_block_begin(block),
        )
        argument.replace_all_uses_with(literal.result)
    for index in sorted(names, reverse=True):
        block.erase_argument(index)
    kind = module.main.type
    inputs = [given for index, given in enumerate(kind.inputs) if index not in names]
    function.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get(inputs, list(kind.results), context=context), context=context
    )
    return TorchModule(module.mlir, module.weights, module.state, module.signature, module.inlined)


__all__ = ["bind_weights"]
