"""All that this project takes from the torch-mlir wheel. No other file imports ``torch_mlir``."""

from pathlib import Path
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import func
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.passmanager import PassManager

__all__ = ["OPT_TOOL", "PassManager", "func", "ir", "new_context", "onnx_importer", "torch_dialect"]

OPT_TOOL = Path(ir.__file__).parent / "_mlir_libs" / "torch-mlir-opt"


def new_context() -> ir.Context:
    """A context with the Torch dialect registered; one per module, so that resource names stay apart."""
    context = ir.Context()
    torch_dialect.register_dialect(context)
    return context


def onnx_importer() -> Any:
    """torch-mlir's importer of ONNX models, which imports ``onnx``."""
    from torch_mlir.extras import onnx_importer as importer

    return importer
