"""All that this project takes from the torch-mlir wheel. No other file imports ``torch_mlir``."""

from pathlib import Path

from torch_mlir import ir
from torch_mlir.dialects import func
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.passmanager import PassManager

__all__ = ["OPT_TOOL", "PassManager", "func", "ir", "new_context", "torch_dialect"]

OPT_TOOL = Path(ir.__file__).parent / "_mlir_libs" / "torch-mlir-opt"


def new_context() -> ir.Context:
    """A context with the Torch dialect registered; one per module, so that resource names stay apart."""
    context = ir.Context()
    torch_dialect.register_dialect(context)
    return context
