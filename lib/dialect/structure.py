"""Two modules side by side: what each computes, without value names, weight names and locations."""

from __future__ import annotations

import difflib
import hashlib
from typing import Any

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import STATE, WRITES, TorchModule


def structure(module: TorchModule) -> list[str]:
    """One line an operation of ``@main``: name, operands, types.

    Constants stand where they are used, weights as a digest of their content, other values as numbers in
    order of definition. Equal lists mean equal programs.
    """
    return _Reader(module).read()


def difference(left: TorchModule, right: TorchModule) -> list[str]:
    """A unified diff of two structures; empty when the modules are the same program."""
    return list(difflib.unified_diff(structure(left), structure(right), "left", "right", lineterm="", n=2))


class _Reader:
    def __init__(self, module: TorchModule) -> None:
        self.module = module
        self.names: dict[ir.Value, str] = {}
        self.lines: list[str] = []
        self.count = 0

    def read(self) -> list[str]:
        main = self.module.main
        block = main.regions[0].blocks[0]
        arguments = [f"{self._name(value)}: {value.type}" for value in block.arguments]
        self.lines.append(f"main({', '.join(arguments)})")
        for key in (WRITES, STATE):
            if key in main.attributes:
                value = main.attributes[key]
                self.lines.append(f"{key} = {len(value) if key == STATE else value}")
        self._block(block, "  ")
        return self.lines

    def _name(self, value: ir.Value) -> str:
        self.names[value] = f"%{self.count}"
        self.count += 1
        return self.names[value]

    def _block(self, block: ir.Block, indent: str) -> None:
        for op in block.operations:
            self._operation(op.operation, indent)

    def _operation(self, operation: ir.Operation, indent: str) -> None:
        name = view.op_name(operation)
        if name.startswith("torch.constant."):
            self.names[operation.results[0]] = _constant_text(view.constant_of_op(operation))
            return
        if name == "torch.vtensor.literal":
            tensor = view.literal(operation, self.module.weights)
            self.names[operation.results[0]] = f"<{_digest(tensor)} {operation.results[0].type}>"
            return
        operands = ", ".join(self.names[operand] for operand in operation.operands)
        if name == "torch.prim.ListConstruct":
            self.names[operation.results[0]] = f"[{operands}]"
            return
        types = ", ".join(str(result.type) for result in operation.results)
        results = ", ".join(self._name(result) for result in operation.results)
        extra = _attributes_text(operation) if name in ("torch.symbolic_int", "torch.bind_symbolic_shape") else ""
        self.lines.append(f"{indent}{results or '()'} = {name}({operands}){extra} : {types}")
        for region in operation.regions:
            for block in region.blocks:
                arguments = ", ".join(f"{self._name(value)}: {value.type}" for value in block.arguments)
                self.lines.append(f"{indent}({arguments}) {{")
                self._block(block, indent + "  ")
                self.lines.append(f"{indent}}}")


def _constant_text(value: Any) -> str:
    return repr(value)


def _attributes_text(operation: ir.Operation) -> str:
    return " {" + ", ".join(f"{key} = {operation.attributes[key]}" for key in sorted(operation.attributes)) + "}"


def _digest(tensor: torch.Tensor) -> str:
    dense = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    raw = dense.view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()[:16]
