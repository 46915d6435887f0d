"""The named pipeline from a freshly imported module to canonical form."""

from __future__ import annotations

import itertools
import re

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
    if _has_empty(mlir):
        fold_constants(mlir, weights)  # torch-mlir's decompositions take a size of 0 for 1, or crash
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


def _has_empty(mlir: ir.Module) -> bool:
    """Whether a tensor is known to have no elements."""
    blocks = [block for function in view.functions(mlir).values() for block in function.regions[0].blocks]
    arguments = (argument for block in blocks for argument in block.arguments)
    results = (result for operation in view.walk(mlir) for result in operation.results)
    return any(_ZERO.search(str(value.type)) for value in itertools.chain(arguments, results))


_ZERO = re.compile(r"[\[,]0[],]")


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
