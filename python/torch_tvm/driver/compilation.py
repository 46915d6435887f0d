"""What a compiled module was made of, for what needs the compiler again: measuring and saving."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tvm
import tvm_ffi
from torch.utils import _pytree as pytree
from tvm import relax

from torch_tvm.artifact.archive import SAMPLE_SEED
from torch_tvm.artifact.header import c_header
from torch_tvm.artifact.processor import architecture
from torch_tvm.artifact.save import Program, Variant, write
from torch_tvm.backends import backend_of, build
from torch_tvm.codegen.openmp import openmp_library
from torch_tvm.codegen.shared_library import link
from torch_tvm.profiling.benchmark import Benchmark, Recorder, benchmark
from torch_tvm.profiling.machine import measure_limits
from torch_tvm.reporting.report import Report
from torch_tvm.runtime.library import VirtualMachine
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import check_writable, write_whole
from torch_tvm.support.packed_functions import ATEN, LOOP
from torch_tvm.targets import resolve_target


@dataclass(frozen=True)
class Compilation:
    """The optimised Relax module, the scheduled module that code was generated from, and the target.

    ``compiled_for`` compiles the program for another target; ``library`` is the code linked for this one, where it is.
    """

    relax_module: tvm.IRModule
    tir_module: tvm.IRModule
    target: tvm.target.Target
    compiled_for: Callable[[tvm.target.Target], CompiledModule]
    library: bytes | None = None

    def benchmark(self, module: CompiledModule, args: Sequence[Any], runs: int) -> Benchmark:
        """Time of each kernel in a call with these arguments."""

        def instrumented(recorder: Recorder) -> Callable[[], Any]:
            vm, run = module.runner(args)
            assert isinstance(vm, VirtualMachine), "only CPU programs are measured"
            vm.set_instrument(recorder)
            return run

        rules = {kernel.name: kernel.rule for kernel in module.report.kernels} if module.report else {}
        run = lambda: module(*args)
        found = benchmark(run, instrumented, self.tir_module, rules, measure_limits(), runs)
        if module.report:
            module.report.benchmark = found
        return found

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
        if isinstance(targets, str):
            raise InvalidInput(f"expected a list, got '{targets}'", subject="targets", advice=f"pass ['{targets}']")
        resolved: list[tvm.target.Target | None] = [_resolved(target) for target in targets or ()] or [None]
        programs = [
            Program(name, [variant_of(code, target, linker) for target in resolved]) for name, code in _codes(module)
        ]
        write(
            path,
            programs,
            versions={"torch": torch.__version__, "tvm": tvm.__version__},
            report=json.dumps((module.report or Report()).to_dict()),
            keeps_originals=originals,
            sample=None if sample_args is None else _sample(module, tuple(sample_args)),
            methods=list(module.methods),
        )

    def export_library(
        self, module: CompiledModule, path: str | os.PathLike[str], *, target: Any, linker: str | None
    ) -> None:
        """What :meth:`CompiledModule.export_library` says."""
        if not isinstance(path, (str, os.PathLike)) or Path(path).suffix != ".so":
            raise InvalidInput(f"expected a path that ends in .so, got '{path!s}'", subject="export_library")
        file = Path(path)
        for suffix in (".so", ".params", ".h"):
            check_writable(file.with_suffix(suffix), "export_library")
        module = _for_target(module, None if target is None else _resolved(target))
        compilation = _compilation(module)
        code, weights = module.parts().code, _packed(module)
        _refuse_python(module, compilation.tir_module)
        built = build(compilation.tir_module, compilation.target, is_native=False).mod
        library = link(built, compilation.target, linker)
        params = {f"w{index:05d}": tvm_ffi.from_dlpack(tensor.cpu()) for index, tensor in enumerate(weights)}
        write_whole(file, library)
        write_whole(file.with_suffix(".params"), bytes(tvm.runtime.save_param_dict(params)))
        write_whole(file.with_suffix(".h"), c_header(file.stem, code, len(weights)).encode())


class LateCompilation:
    """A compilation that is made when something asks for it: the code itself, ``library``, came from the cache."""

    def __init__(self, make: Callable[[], CompiledModule], library: bytes) -> None:
        self._make = make
        self._library = library

    @functools.cached_property
    def made(self) -> Compilation:
        """The compilation, made when it is first asked for."""
        return dataclasses.replace(_compilation(self._make()), library=self._library)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.made, name)


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


def _compilation(module: CompiledModule) -> Compilation:
    origin = module.origin.made if isinstance(module.origin, LateCompilation) else module.origin
    assert isinstance(origin, Compilation)
    return origin


def _for_target(module: CompiledModule, target: tvm.target.Target | None) -> CompiledModule:
    """The module, with its weights and state, compiled for a target; ``None`` is its own."""
    compilation = _compilation(module)
    if target is None or str(target) == str(compilation.target):
        return module
    fresh = compilation.compiled_for(target)
    fresh.load_state_dict(module.own_state_dict(), strict=False)
    return fresh


def _packed(module: CompiledModule) -> list[torch.Tensor]:
    """The weights as kernels read them, for whichever machine."""
    weights = module.parts().weights
    packed = weights.packed_tensors()
    if packed is None and weights.tensors:
        raise InvalidInput(
            f"the program itself packs its weights, and {module.parts().code.obstacle}",
            subject="export_library",
            advice="export it on a machine that can run it, or save it with .save(path)",
        )
    return packed or []


def _refuse_python(module: CompiledModule, mod: tvm.IRModule) -> None:
    """Raise for a program that calls back into this package, or that keeps state."""
    if module.parts().code.convention.writes:
        problem = "the program changes its arguments or its state"
    else:
        called: list[str] = []

        def note(node: Any) -> None:
            if isinstance(node, relax.ExternFunc) and str(node.global_symbol).startswith("torch_tvm."):
                called.append(str(node.global_symbol))

        for _, function in mod.functions_items():
            if isinstance(function, relax.Function):
                relax.analysis.post_order_visit(function, note)
        if not called:
            return
        left = {item.op for item in (*module.report.fallbacks, *module.report.library_calls)}
        what = {
            ATEN: f"ops that run in PyTorch ({', '.join(sorted(left)[:5])})",
            LOOP: "loops until a value ends",
        }
        problem = f"the program has {what.get(called[0], 'conditions on values')}"
    raise InvalidInput(
        f"{problem}, for which plain TVM has nothing",
        subject="export_library",
        advice="save it with .save(path), and run it with torch_tvm.load(path)",
    )


def _sample(module: CompiledModule, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    """Arguments and what the module gives for them; neither they, its state nor PyTorch's generator change."""
    given = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), args)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SAMPLE_SEED)
        return args, copy.deepcopy(module)(*given)


def variant_of(module: CompiledModule, target: tvm.target.Target | None = None, linker: str | None = None) -> Variant:
    """The code of a module for a target; what kernels read of its weights is packed as that code wants it."""
    module = _for_target(module, target)
    compilation, target = _compilation(module), _compilation(module).target
    features = backend_of(target).instruction_sets(target)
    if features is None:
        raise InvalidInput(
            f"code for {target.kind.name} cannot be saved yet", subject="save", advice="compile for a CPU"
        )
    library = compilation.library if linker is None else None
    if library is None:
        library = link(build(compilation.tir_module, target, is_native=False).mod, target, linker)
    return Variant(_machine(target), sorted(features), library, _openmp(str(target), linker), module.parts())


@functools.lru_cache(maxsize=8)
def _openmp(target: str, linker: str | None) -> bytes:
    """The functions for torch's threads, linked for a target: the same for every program."""
    resolved = tvm.target.Target(target)
    return link(openmp_library(resolved), resolved, linker)


def _machine(target: tvm.target.Target) -> str:
    """Architecture and system that code is for, as ``torch_tvm.artifact.processor`` names them."""
    triple = str(target.attrs.get("mtriple", "") or resolve_target("auto").attrs["mtriple"])
    family, *_ = triple.split("-")
    system = "darwin" if "darwin" in triple else "win32" if "windows" in triple else "linux"
    return f"{architecture(family)}-{system}"


__all__ = ["Compilation", "LateCompilation", "variant_of"]
