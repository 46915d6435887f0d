"""``fold-constants``: whatever depends on no argument and no weight is computed once, now.

Before::

    %1 = torch.aten.arange %int3, …
    %2 = torch.aten.mul.Scalar %1, %int2

After::

    %2 = torch.vtensor.literal(dense_resource<folded> : tensor<3xsi64>)

Large results, random ops and ops that fail when run stay as they are. An op that reads nothing of a tensor but
its type (``new_zeros``, ``fill``) is as good as a constant for what comes after it, and stays as it is itself.
A tensor without elements is a constant wherever it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from torch_tvm.aten import calls
from torch_tvm.dialect import view
from torch_tvm.dialect.emitter import literal_attribute
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.types import TensorType, is_value_tensor
from torch_tvm.passes.base import Pass
from torch_tvm.passes.effects import has_effects
from torch_tvm.passes.patterns.rewriting import Rewriter

MAX_ELEMENTS = 1 << 20

_OF_TYPE = frozenset(
    f"torch.aten.{name}"
    for name in "new_zeros new_ones new_full zeros_like ones_like full_like fill.Scalar fill.Tensor zero".split()
)
"""Ops whose result does not depend on the elements of their first operand."""


@dataclass
class FoldConstants(Pass):
    """Evaluate operations whose operands are all constants."""

    max_elements: int = MAX_ELEMENTS

    def run(self, module: TorchModule) -> None:
        """New literals that do not fit inline are added to the weights."""
        for function in view.functions(module.mlir).values():
            for region in function.regions:
                for block in region.blocks:
                    _Folder(module.mlir.context, module.weights, self.max_elements).block(block)


@dataclass
class _Folder:
    context: ir.Context
    weights: dict[str, torch.Tensor]
    max_elements: int
    known: dict[ir.Value, Any] = field(default_factory=dict)

    def block(self, block: ir.Block) -> None:
        folded: list[ir.Operation] = []
        for op in list(block.operations):
            operation = op.operation
            if self._evaluate(operation):
                folded.append(operation)
        for operation in reversed(folded):
            self._replace(operation)
            operation.erase()

    def _evaluate(self, operation: ir.Operation) -> bool:
        """Whether the operation was computed; its results are then in ``known``."""
        name = view.op_name(operation)
        if name.startswith("torch.constant."):
            self.known[operation.results[0]] = view.constant_of_op(operation)
            return False
        if name == "torch.vtensor.literal":
            resource = view.resource_name(operation)
            if resource is None or resource.startswith("folded"):
                self.known[operation.results[0]] = view.literal(operation, self.weights)
            return False
        if name == "torch.prim.ListConstruct":
            if all(operand in self.known for operand in operation.operands):
                self.known[operation.results[0]] = [self.known[operand] for operand in operation.operands]
            return False
        if len(operation.regions) or not operation.results or not name.startswith("torch.aten."):
            return False
        if has_effects(operation) and not calls.is_random(name):
            return False
        if not all(self._is_foldable(result) for result in operation.results):
            return False
        empty = [_empty(result) for result in operation.results]
        if all(value is not _UNKNOWN for value in empty):
            self.known.update(zip(operation.results, empty, strict=True))
            return True
        if not calls.is_pure(name):
            return False
        operands = [self.known[v] if v in self.known else _empty(v) for v in operation.operands]
        if name in _OF_TYPE and operands[0] is _UNKNOWN:
            operands[0] = _any_of_type(operation.operands[0])
            self._run(name, operation, operands)
            return False
        return self._run(name, operation, operands)

    def _is_foldable(self, result: ir.Value) -> bool:
        kind = view.tensor_type(result)
        if kind is None:
            return str(result.type) in ("!torch.int", "!torch.float", "!torch.bool")
        if kind.shape is None or None in kind.shape or kind.dtype is None or kind.dtype.is_complex:
            return False
        count = 1
        for size in kind.shape:
            count *= size or 0
        return count <= self.max_elements

    def _run(self, name: str, operation: ir.Operation, operands: list[Any]) -> bool:
        if any(operand is _UNKNOWN for operand in operands):
            return False
        try:
            with torch.no_grad():
                results = calls.run_op(name, operands)
        except Exception:  # an op that fails here fails, or not, when the program runs
            return False
        values = list(results) if isinstance(results, (list, tuple)) else [results]
        if len(values) != len(operation.results):
            return False
        for result, value in zip(operation.results, values, strict=True):
            if not _fits(value, view.tensor_type(result)):
                return False
        self.known.update(zip(operation.results, values, strict=True))
        return True

    def _replace(self, operation: ir.Operation) -> None:
        """A literal or constant for each result that someone who was not folded reads."""
        rewriter = Rewriter(self.context)
        rewriter.anchor = operation
        for result in operation.results:
            if not view.is_used(result):
                continue
            value = self.known[result]
            if is_value_tensor(result.type):
                replacement = self._literal(rewriter, value.contiguous(), result.type)
            else:
                replacement = rewriter.number(value)
            result.replace_all_uses_with(replacement)

    def _literal(self, rewriter: Rewriter, value: torch.Tensor, kind: ir.Type) -> ir.Value:
        name = "folded"
        while name in self.weights:
            name = f"folded_{len(self.weights)}" if name == "folded" else name + "_"
        attribute = literal_attribute(value, name, self.context, self.weights)
        return rewriter.op("torch.vtensor.literal", [], kind, value=attribute)


_UNKNOWN = object()


def _empty(value: ir.Value) -> Any:
    """The tensor, if it has no elements."""
    kind = view.tensor_type(value)
    return _any_of_type(value) if kind is not None and kind.shape is not None and 0 in kind.shape else _UNKNOWN


def _any_of_type(value: ir.Value) -> Any:
    """A tensor of the type of ``value``, if its sizes are known, without memory for its elements."""
    kind = view.tensor_type(value)
    if kind is None or kind.dtype is None or kind.shape is None or None in kind.shape:
        return _UNKNOWN
    return torch.zeros((), dtype=kind.dtype).expand(kind.shape)


def _fits(value: Any, kind: TensorType | None) -> bool:
    """Whether what an op gave is what the dialect says of its result."""
    if kind is None:
        return True
    return isinstance(value, torch.Tensor) and tuple(value.shape) == kind.shape and value.dtype == kind.dtype
