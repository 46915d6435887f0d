"""What ``torch-tvm-opt --emit`` prints of a module: TVMScript, or the kernels' code as LLVM,
assembly, CUDA or OpenCL.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi

from torch_tvm.backends import optimize, schedule
from torch_tvm.codegen.tir.pipeline import CPU_PIPELINE
from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.pipeline import decomposed
from torch_tvm.lowering.module import lower
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import InvalidInput
from torch_tvm.targets import resolve_target


def emitted(module: TorchModule, kind: str, target: str) -> str:
    """The module's kernels in a language; ``target`` is as in ``--target``, or an architecture such as ``sm_90``."""
    resolved = _target(kind, target)
    module = decomposed(canonicalize(module))
    scheduled = schedule(optimize(lower(module).mod, resolved), resolved)[0]
    if kind == "tvmscript":
        return f"{scheduled.script()}\n"
    kernels = {
        gvar: function.with_attr("global_symbol", gvar.name_hint)
        for gvar, function in scheduled.functions_items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    if not kernels:
        raise InvalidInput("the program has no kernels: it only passes its arguments on", subject="--emit")
    if kind in ("llvm", "asm"):
        built = tvm.compile(tvm.IRModule(kernels), resolved, tir_pipeline=CPU_PIPELINE)
        text: str = built.mod.inspect_source("ll" if kind == "llvm" else "asm")
        return text
    return _device_source(tvm.IRModule(kernels), resolved)


def _target(kind: str, name: str) -> tvm.target.Target:
    if kind == "cuda":
        return resolve_target({"kind": "cuda", "arch": "sm_80" if name == "host" else name})
    if kind == "opencl":
        return resolve_target("opencl")
    if name == "host":
        return resolve_target("auto")
    return resolve_target({"kind": "llvm", "mcpu": name})


def _device_source(kernels: tvm.IRModule, target: tvm.target.Target) -> str:
    """Source text for a device; no compiler of the device's is needed."""
    name = "tvm_callback_cuda_compile"
    before = tvm_ffi.get_global_func(name, allow_missing=True)
    tvm_ffi.register_global_func(name, lambda code, *_: code, override=True)
    try:
        built: Any = tvm.compile(kernels, target)
        module = built.mod if hasattr(built, "mod") else built
        return "\n".join(str(each.inspect_source()) for each in module.imports)
    finally:
        if before is None:
            tvm_ffi.remove_global_func(name)
        else:
            tvm_ffi.register_global_func(name, before, override=True)


__all__ = ["emitted"]
