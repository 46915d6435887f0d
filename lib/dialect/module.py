"""``TorchModule``: one canonical Torch dialect module with its weights, state and calling convention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import TensorType

STATE = "torch_tvm.state"
WRITES = "torch_tvm.writes"


@dataclass
class Signature:
    """How a Python call becomes the arguments of ``@main`` and its results a Python value.

    The function takes the flattened user arguments, then the state tensors (attribute ``torch_tvm.state``
    names them). It returns the flattened user results, then new values for the arguments whose indices
    attribute ``torch_tvm.writes`` lists; the caller copies each into its argument.
    ``in_spec`` is the pytree of ``(args, kwargs)``, ``out_spec`` that of the result; ``None`` means flat.
    ``constants`` gives the flat positions of user arguments that were fixed at import (Python values) and
    are no function arguments; ``outputs`` gives per flat result either ``None`` (the next function result)
    or ``(value,)`` for a result that is a Python constant.
    """

    in_spec: pytree.TreeSpec | None = None
    out_spec: pytree.TreeSpec | None = None
    names: list[str] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    outputs: list[tuple[Any] | None] | None = None


class TorchModule:
    """A PyTorch program as a Torch dialect module.

    ``mlir`` is the module, ``weights`` the tensors behind its ``dense_resource`` literals by name, ``state``
    the live tensors of mutable buffers by name (order of the function attribute ``torch_tvm.state``).
    """

    def __init__(
        self,
        mlir: ir.Module,
        weights: dict[str, torch.Tensor],
        state: dict[str, torch.Tensor] | None = None,
        signature: Signature | None = None,
    ) -> None:
        self.mlir = mlir
        self.weights = weights
        self.state = state or {}
        self.signature = signature or Signature()
        self._versions = {name: tensor._version for name, tensor in weights.items() if not tensor.is_inference()}

    def __str__(self) -> str:
        return str(self.mlir)

    @property
    def main(self) -> ir.OpView:
        """The entry function: ``@main``, or the only public function."""
        functions = [op for op in self.mlir.body.operations if op.operation.name == "func.func"]
        named = [op for op in functions if ir.StringAttr(op.attributes["sym_name"]).value == "main"]
        return (named or functions)[0]


__all__ = ["STATE", "WRITES", "Signature", "TensorType", "TorchModule"]
