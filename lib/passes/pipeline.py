"""The named pipeline from a freshly imported module to canonical form."""

from __future__ import annotations

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import PassManager, ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.canonical_ops import legal_ops_option
from torch_tvm.passes.eliminate_dead import EliminateDead
from torch_tvm.passes.fold_constants import fold_constants
from torch_tvm.passes.merge_duplicates import MergeDuplicates
from torch_tvm.passes.order_constants import OrderConstants
from torch_tvm.passes.order_operations import OrderOperations
from torch_tvm.passes.recognize_causal_mask import recognize_causal_mask
from torch_tvm.passes.recompose_products import RecomposeProducts
from torch_tvm.passes.respell import Respell, compare_with_tensors
from torch_tvm.passes.verify_contract import VerifyContract
from torch_tvm.support.errors import ImportFailed


def canonicalize(module: TorchModule) -> TorchModule:
    """Bring a module to canonical form, in place, and return it.

    Value semantics and types first (torch-mlir's own pipeline, only where an import did not give them),
    then one spelling for each concept, decomposition of everything else, folding, and the contract.
    """
    mlir, weights = module.mlir, module.weights
    if not _is_typed(mlir):
        compare_with_tensors(mlir)
        _run(mlir, "torch-function-to-torch-backend-pipeline{backend-legal-ops=" + legal_ops_option() + "}")
    Respell().run(mlir)
    # First by PyTorch: torch-mlir takes negative integers for huge ones, and a size of 0 for 1, or crashes.
    fold_constants(mlir, weights)
    _run(
        mlir, "func.func(torch-decompose-complex-ops{legal-ops=" + legal_ops_option() + "},canonicalize,cse)"
    )
    Respell().run(mlir)
    RecomposeProducts().run(mlir)
    _run(mlir, "func.func(canonicalize,cse)")
    fold_constants(mlir, weights)
    recognize_causal_mask(mlir, weights)
    for step in (MergeDuplicates(), EliminateDead(), OrderOperations(), OrderConstants(), VerifyContract()):
        step.run(mlir)
    return module


def _run(mlir: ir.Module, passes: str) -> None:
    try:
        PassManager.parse(f"builtin.module({passes})", context=mlir.context).run(mlir.operation)
    except ir.MLIRError as error:
        raise ImportFailed(
            f"torch-mlir could not bring the module to canonical form: {error}", stage="canonicalisation"
        ) from error


def _is_typed(mlir: ir.Module) -> bool:
    """Whether every tensor is a value whose rank and dtype are known."""
    for operation in view.walk(mlir):
        for value in operation.results:
            text = str(value.type)
            if text.startswith(("!torch.tensor", "!torch.nn")):
                return False
            if text.startswith("!torch.vtensor"):
                kind = view.tensor_type(value)
                if kind is None or kind.shape is None or kind.dtype is None:
                    return False
    return True
