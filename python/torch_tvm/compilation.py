"""What a compiled module was made of, for what needs the compiler again: measuring and saving."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import tvm

from torch_tvm.artifact.processor import architecture
from torch_tvm.artifact.save import Program, Variant, write
from torch_tvm.backends import backend_of, build
from torch_tvm.codegen.openmp import openmp_library
from torch_tvm.codegen.shared_library import link
from torch_tvm.profiling.benchmark import Benchmark, Recorder, benchmark
from torch_tvm.profiling.machine import measure_limits
from torch_tvm.report import Report
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.support.errors import InvalidInput
from torch_tvm.targets import resolve_target


@dataclass(frozen=True)
class Compilation:
    """The optimised Relax module, the scheduled module that code was generated from, and the target.

    ``compiled_for`` compiles the program for another target.
    """

    relax_module: tvm.IRModule
    tir_module: tvm.IRModule
    target: tvm.target.Target
    compiled_for: Callable[[tvm.target.Target], CompiledModule]

    def benchmark(self, module: CompiledModule, args: Sequence[Any], runs: int) -> Benchmark:
        """Time of each kernel in a call with these arguments."""
        library = build(self.tir_module, self.target, joined=False).jit()

        def instrumented(recorder: Recorder) -> Callable[[], Any]:
            vm, run = module.runner(library, args)
            vm.set_instrument(recorder)
            return run

        rules = {kernel.name: kernel.rule for kernel in module.report.kernels} if module.report else {}
        run = lambda: module(*args)
        return benchmark(run, instrumented, self.tir_module, rules, measure_limits(), runs)

    def save(
        self,
        module: CompiledModule,
        path: str | os.PathLike[str],
        *,
        targets: Sequence[Any] | None,
        originals: bool,
        sample_args: Sequence[Any] | None,
        linker: str | None,
    ) -> None:
        """What :meth:`CompiledModule.save` says."""
        resolved = None if targets is None else [_resolved(target) for target in targets]
        programs = [
            Program(name, [_variant(code, target, linker) for target in resolved or [None]])
            for name, code in _codes(module)
        ]
        sample = None if sample_args is None else (tuple(sample_args), copy.deepcopy(module)(*sample_args))
        write(
            path,
            programs,
            versions={"torch": torch.__version__, "tvm": tvm.__version__},
            report=json.dumps((module.report or Report()).to_dict()),
            keeps_originals=originals,
            sample=sample,
        )


def _codes(module: CompiledModule) -> list[tuple[str, CompiledModule]]:
    """The module and its methods, as far as they are compiled."""
    others = [(name, code) for name in module.methods for code in module.methods[name].compiled]
    return [("forward", module), *others] if module.origin is not None else others


def _resolved(target: Any) -> tvm.target.Target:
    """A target, or the name of a processor of this machine's family."""
    if isinstance(target, str) and target not in ("auto", "llvm") and not target.lstrip().startswith("{"):
        host = resolve_target("auto").attrs
        target = {"kind": "llvm", "mcpu": target, **{key: host[key] for key in ("mtriple", "num-cores")}}
    return resolve_target(target)


def _variant(module: CompiledModule, target: tvm.target.Target | None, linker: str | None) -> Variant:
    """The code of a module for a target; what kernels read of its weights is packed as that code wants it."""
    compilation = module.origin
    assert isinstance(compilation, Compilation)
    if target is not None and str(target) != str(compilation.target):
        fresh = compilation.compiled_for(target)
        fresh.load_state_dict(module.own_state_dict(), strict=False)
        module, compilation = fresh, fresh.origin
        assert isinstance(compilation, Compilation)
    target = compilation.target
    features = backend_of(target).instruction_sets(target)
    if features is None:
        raise InvalidInput(
            f"code for {target.kind.name} cannot be saved yet", subject="save", advice="compile for a CPU"
        )
    code = build(compilation.tir_module, target, is_native=False).mod
    openmp = link(openmp_library(target), target, linker)
    return Variant(_machine(target), sorted(features), link(code, target, linker), openmp, module.parts())


def _machine(target: tvm.target.Target) -> str:
    """Architecture and system that code is for, as ``torch_tvm.artifact.processor`` names them."""
    triple = str(target.attrs.get("mtriple", "") or resolve_target("auto").attrs["mtriple"])
    family, *_ = triple.split("-")
    system = "darwin" if "darwin" in triple else "win32" if "windows" in triple else "linux"
    return f"{architecture(family)}-{system}"


__all__ = ["Compilation"]
