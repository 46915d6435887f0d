"""The passes from a freshly imported module to canonical form, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_tvm.aten.autocast import without_autocast
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import PassManager, ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.apply_patterns import ApplyPatterns, compare_with_tensors
from torch_tvm.passes.base import Pass
from torch_tvm.passes.canonical_ops import legal_ops_option
from torch_tvm.passes.eliminate_dead import EliminateDead
from torch_tvm.passes.fold_constants import FoldConstants
from torch_tvm.passes.merge_duplicates import MergeDuplicates
from torch_tvm.passes.order_constants import OrderConstants
from torch_tvm.passes.order_operations import OrderOperations
from torch_tvm.passes.recognize_causal_mask import RecognizeCausalMask
from torch_tvm.passes.recompose_products import RecomposeProducts
from torch_tvm.passes.verify_contract import VerifyContract
from torch_tvm.support.errors import ImportFailed


@dataclass(frozen=True)
class _TorchMlir(Pass):
    """Passes of torch-mlir; ``LEGAL`` in their text stands for the canonical op set."""

    passes: str

    def run(self, module: TorchModule) -> None:
        text = self.passes.replace("LEGAL", legal_ops_option())
        try:
            PassManager.parse(f"builtin.module({text})", module.mlir.context).run(module.mlir.operation)
        except ir.MLIRError as error:
            raise ImportFailed(
                f"torch-mlir could not bring the module to canonical form: {error}", stage="canonicalisation"
            ) from error


class _GiveTypes(Pass):
    """Value semantics and types by torch-mlir's own pipeline, only where an import did not give them."""

    def run(self, module: TorchModule) -> None:
        if not _is_typed(module.mlir):
            compare_with_tensors(module.mlir)
            _TorchMlir("torch-function-to-torch-backend-pipeline{backend-legal-ops=LEGAL}").run(module)


CANONICALIZATION: tuple[Pass, ...] = (
    _GiveTypes(),
    ApplyPatterns(),
    # First by PyTorch: torch-mlir takes negative integers for huge ones, and a size of 0 for 1, or crashes.
    FoldConstants(),
    _TorchMlir("func.func(torch-decompose-complex-ops{legal-ops=LEGAL},canonicalize,cse)"),
    ApplyPatterns(),
    RecomposeProducts(),
    _TorchMlir("func.func(canonicalize,cse)"),
    FoldConstants(),
    RecognizeCausalMask(),
    MergeDuplicates(),
    EliminateDead(),
    OrderOperations(),
    OrderConstants(),
    VerifyContract(),
)
"""One spelling for each concept, decomposition of everything else, folding, one order, and the contract."""


@without_autocast()
def canonicalize(module: TorchModule, after: Callable[[Pass], None] | None = None) -> TorchModule:
    """Bring a module to canonical form, in place, and return it; ``after`` is told of each pass that has run."""
    for step in CANONICALIZATION:
        step.run(module)
        if after is not None:
            after(step)
    return module


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
