"""``verify-contract``: value semantics, and a known dtype and rank everywhere."""

from __future__ import annotations

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import Pass
from torch_tvm.support.errors import ImportFailed


class VerifyContract(Pass):
    """Refuse a module with a tensor whose rank or dtype is unknown, or that is not a value."""

    def run(self, module: TorchModule) -> None:
        for operation in view.walk(module.mlir):
            for value in operation.results:
                text = str(value.type)
                if text.startswith("!torch.tensor"):
                    _refuse(operation, "a tensor without value semantics is left")
                if not text.startswith("!torch.vtensor"):
                    continue
                kind = view.tensor_type(value)
                assert kind is not None
                if kind.shape is None:
                    _refuse(operation, "the rank of the result is unknown")
                if kind.dtype is None:
                    _refuse(operation, "the dtype of the result is unknown")


def _refuse(operation: ir.Operation, problem: str) -> None:
    raise ImportFailed(
        problem,
        subject=view.op_name(operation),
        location=view.location(operation),
        stage="canonicalisation",
        advice="give the program's arguments their shapes and dtypes (example_args)",
    )
