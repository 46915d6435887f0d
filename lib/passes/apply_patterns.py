"""``apply-patterns``: the canonicalization patterns, which leave one op for each concept.

Before::

    %1 = torch.aten.flatten.using_ints %0, %int1, %int-1 : … -> !torch.vtensor<[2,12],f32>
    %2 = torch.aten.dropout %1, %p, %false
    %3 = torch.aten.t %w

After::

    %1 = torch.aten.view %0, [2, 12]
    %3 = torch.aten.permute %w, [1, 0]
"""

from __future__ import annotations

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.passes.patterns import ops, parts, shape  # noqa: F401  (they fill the table)
from torch_tvm.passes.patterns.rewriting import Rewriter, argument_index, schema_of
from torch_tvm.passes.patterns.table import PATTERNS


class ApplyPatterns(Pass):
    """Replace each op that has a canonicalization pattern by what the canonical op set has for it."""

    def run(self, module: TorchModule) -> None:
        rewriter = Rewriter(module.mlir.context)
        for operation in view.walk(module.mlir):
            name = view.op_name(operation)
            _drop_placement(rewriter, operation, name)
            pattern = PATTERNS.get(name)
            if pattern is None:
                continue
            rewriter.anchor = operation
            replacement = pattern(rewriter, operation)
            if replacement is None or any(view.is_used(result) for result in list(operation.results)[1:]):
                continue
            operation.results[0].replace_all_uses_with(replacement)
            operation.erase()


_NUMBERS = {"!torch.int": "si64", "!torch.float": "f64"}


def compare_with_tensors(root: ir.Module) -> None:
    """Where nobody knows a dtype yet, a number to compare with becomes a tensor.

    See :func:`torch_tvm.passes.patterns.ops.compared_number` for what torch-mlir makes of the number.
    """
    rewriter = Rewriter(root.context)
    for operation in view.walk(root):
        name = view.op_name(operation)
        if name not in ops.COMPARISONS:
            continue
        rewriter.anchor = operation
        tensor, number = operation.operands
        element, known = _NUMBERS.get(str(number.type)), view.tensor_type(tensor)
        if element is None or (known is not None and known.dtype is not None):
            continue
        wanted = rewriter.types.parse(f"!torch.vtensor<[],{element}>")
        operands = [tensor, rewriter.op("torch.prim.NumToTensor.Scalar", [number], wanted)]
        replacement = rewriter.op(name.replace(".Scalar", ".Tensor"), operands, operation.results[0].type)
        operation.results[0].replace_all_uses_with(replacement)
        operation.erase()


_PLACEMENT = ("device", "layout", "pin_memory", "memory_format")


def _drop_placement(r: Rewriter, op: ir.Operation, name: str) -> None:
    """Where a tensor lies is the target's business: device, layout and pinning become ``none``."""
    if not name.startswith("torch.aten.") or schema_of(name) is None:
        return
    for argument in _PLACEMENT:
        index = argument_index(name, argument)
        if index is None or index >= len(op.operands):
            continue
        if view.is_constant(op.operands[index]) and view.constant(op.operands[index]) is not None:
            schema = schema_of(name)
            if schema is not None and schema.arguments[index].type.kind() == "OptionalType":
                r.anchor = op
                op.operands[index] = r.none()
