"""torch-tvm: a compiler from PyTorch programs to TVM.

Everything is imported on first use, so that ``import torch_tvm`` costs neither TVM nor MLIR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_tvm import quick_imports
from torch_tvm.support.first_import import first_import

if TYPE_CHECKING:
    from torch_tvm.custom import register_lowering
    from torch_tvm.dialect.module import TensorSpec, TorchModule
    from torch_tvm.entry import compile
    from torch_tvm.importing import import_fx, import_lazy, import_torchscript, parse
    from torch_tvm.jit import disable, enable
    from torch_tvm.loading import load
    from torch_tvm.reporting.dry_run import dryrun
    from torch_tvm.runtime.module import CompiledModule
    from torch_tvm.runtime.warnings import FallbackWarning
    from torch_tvm.support.errors import (
        ImportFailed,
        InternalError,
        InvalidIndex,
        InvalidInput,
        InvalidOperand,
        TorchTvmError,
        UnsupportedOp,
    )
    from torch_tvm.tune_program import tune

_WHERE = {
    "CompiledModule": "torch_tvm.runtime.module",
    "FallbackWarning": "torch_tvm.runtime.warnings",
    "ImportFailed": "torch_tvm.support.errors",
    "InternalError": "torch_tvm.support.errors",
    "InvalidIndex": "torch_tvm.support.errors",
    "InvalidInput": "torch_tvm.support.errors",
    "InvalidOperand": "torch_tvm.support.errors",
    "TensorSpec": "torch_tvm.dialect.module",
    "TorchModule": "torch_tvm.dialect.module",
    "TorchTvmError": "torch_tvm.support.errors",
    "UnsupportedOp": "torch_tvm.support.errors",
    "compile": "torch_tvm.entry",
    "disable": "torch_tvm.jit",
    "dryrun": "torch_tvm.reporting.dry_run",
    "enable": "torch_tvm.jit",
    "import_fx": "torch_tvm.importing",
    "import_lazy": "torch_tvm.importing",
    "import_torchscript": "torch_tvm.importing",
    "load": "torch_tvm.loading",
    "parse": "torch_tvm.importing",
    "register_lowering": "torch_tvm.custom",
    "tune": "torch_tvm.tune_program",
}

quick_imports.install()

__all__ = [
    "CompiledModule",
    "FallbackWarning",
    "ImportFailed",
    "InternalError",
    "InvalidIndex",
    "InvalidInput",
    "InvalidOperand",
    "TensorSpec",
    "TorchModule",
    "TorchTvmError",
    "UnsupportedOp",
    "compile",
    "disable",
    "dryrun",
    "enable",
    "import_fx",
    "import_lazy",
    "import_torchscript",
    "load",
    "parse",
    "register_lowering",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in ("debug", "dynamo", "lazy"):
        return first_import(f"torch_tvm.{name}")
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'torch_tvm' has no attribute '{name}'")
    value = getattr(first_import(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
