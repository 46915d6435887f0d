"""From an imported module to a compiled one: the pipeline that all importers share."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import tvm
from tvm import relax

from torch_tvm.artifact.load import load_library
from torch_tvm.aten.autocast import without_autocast
from torch_tvm.backends import Backend, backend_of, build, optimize, schedule
from torch_tvm.caching.compile_cache import CachedCode, CodeEntry, code_entry
from torch_tvm.codegen.aliases import results_to_copy, returns_first_parameter
from torch_tvm.codegen.openmp import use_openmp
from torch_tvm.codegen.results import keep_weights_in_main, unwrap_single_result
from torch_tvm.codegen.shared_library import link
from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.compilation import Compilation, LateCompilation
from torch_tvm.driver.conventions import add_requirements, convention_of
from torch_tvm.driver.narrowing import narrowed
from torch_tvm.exclusive import exclusive
from torch_tvm.lowering.module import LoweredModule, is_lowered, lower, refusable, refuse_fallbacks
from torch_tvm.options import Options, dialect_spelling
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.profiling.autotune import Autotuner, Measured
from torch_tvm.reporting.dump import Dump
from torch_tvm.reporting.origins import explain, note_ops
from torch_tvm.reporting.report import FallbackOp, LibraryCall, Op, Report
from torch_tvm.reporting.reproducer import reproducible
from torch_tvm.runtime.calls.convention import Convention
from torch_tvm.runtime.code import Code
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.weights.packed import Weights
from torch_tvm.schedules.rule import Choose
from torch_tvm.support.attributes import PROGRAM, TRANSFORM_PARAMS
from torch_tvm.support.errors import InternalError, InvalidInput, TorchTvmError, bug_of
from torch_tvm.tuning.database import Database


@exclusive(exports=False)
@without_autocast()
def compile_module(
    module: TorchModule,
    target: tvm.target.Target,
    *,
    fallback: bool = True,
    options: Options | None = None,
    report: Report | None = None,
    pack: bool = True,
) -> CompiledModule:
    """Compile an imported module; the given report is filled in.

    With ``pack=False`` the weights are not packed yet: ``with_weights`` does it, with the real ones.
    """
    options, report = options or Options(), report or Report(target=str(target))
    dump = Dump()
    dump("imported.mlir", module.asm)
    inlined = {name: tensor.detach().cpu().clone() for name, tensor in module.inlined.items()}
    with report.phase("canonicalise"), reproducible(module, target, options):
        module = decomposed(_canonical(module, dump))
        dump("canonical.mlir", module.asm)
        convention = convention_of(module)
        is_artifact = report.frontend == "dynamo"
        entry = None if dump.is_on else code_entry(module, target, options, fallback, is_artifact)
    generated = functools.partial(_generated, module, target, options, dump, inlined=inlined, fallback=fallback)
    with reproducible(module, target, options):
        with report.phase("look up"):
            cached = entry.find(convention) if entry else None
        if cached is not None:
            again = functools.partial(generated, convention_of(module), Report(target=str(target)), pack=False)
            origin = LateCompilation(exclusive(exports=False)(without_autocast()(again)), cached.library)
            return _restored(cached, module, inlined, report, origin, pack=pack)
        try:
            return generated(convention, report, pack=pack, entry=entry)
        except Exception as error:
            is_own = isinstance(error, TorchTvmError) and not isinstance(error, InternalError)
            if is_own or not fallback or options.is_extended:
                raise
            reason = bug_of(error)
        with report.phase("narrow down"):
            return _narrowed(generated, module, report, reason, pack=pack)


def _narrowed(
    generated: Callable[..., CompiledModule], module: TorchModule, report: Report, reason: str, *, pack: bool
) -> CompiledModule:
    """The program with those of its ops in PyTorch that it does not compile with, for this reason."""

    def attempt(positions: Sequence[int]) -> CompiledModule:
        own = Report(target=report.target, frontend=report.frontend)
        refused = dict.fromkeys(positions, reason)
        return generated(convention_of(module), own, pack=pack, refused=refused)

    compiled = narrowed(refusable(module), attempt)
    assert compiled.report is not None
    report.adopt(compiled.report)
    compiled.report = report
    return compiled


def _restored(
    cached: CachedCode,
    module: TorchModule,
    inlined: Mapping[str, torch.Tensor],
    report: Report,
    origin: LateCompilation,
    *,
    pack: bool,
) -> CompiledModule:
    """A module whose code an earlier compile cached."""
    report.take_over(cached.report)
    with report.phase("pack weights"):
        weights = Weights(cached.code, {name: module.weights[name] for name in cached.weights}, pack=pack)
    module.weights.update(weights.tensors)  # snapshots, should it be compiled after all
    return CompiledModule(cached.code, weights, module.state, scalars=inlined, report=report, origin=origin)


def _generated(
    module: TorchModule,
    target: tvm.target.Target,
    options: Options,
    dump: Dump,
    convention: Convention,
    report: Report,
    *,
    inlined: Mapping[str, torch.Tensor],
    pack: bool,
    fallback: bool,
    refused: Mapping[int, str] | None = None,
    entry: CodeEntry | None = None,
) -> CompiledModule:
    """Code for a canonical module; ops at the positions ``refused`` run in PyTorch, for the reason given there."""
    with report.phase("lower"):
        lowered = _lowered(module, backend_of(target), options, fallback, refused or {})
    add_requirements(convention, lowered.requirements)
    report.fallbacks = _fallbacks(lowered)
    report.library_calls = [
        LibraryCall(item.op, str(item.location), item.location.scope, item.library) for item in lowered.library_calls
    ]
    note_ops(report, module)
    dump("lowered.py", lowered.mod.script)
    mod = _hooked(lowered.mod, "after-lowering", options)
    program = Program(
        keep_weights_in_main(unwrap_single_result(mod)),
        convention,
        lowered.weights,
        module.state,
        inlined,
        options,
        report.ops,
    )
    return compile_program(program, target, report, dump, pack=pack, entry=entry)


def _lowered(
    module: TorchModule, backend: Backend, options: Options, fallback: bool, refused: Mapping[int, str]
) -> LoweredModule:
    return lower_decomposed(
        module,
        fallback=fallback,
        check_indices=options.check_indices and backend.checks_indices,
        many_threads=backend.many_threads,
        refused=refused,
        rounds=options.accuracy == "strict",
        in_torch=[dialect_spelling(name) for name in options.torch_executed_ops],
        lowerings={dialect_spelling(name): function for name, function in options.lowerings.items()},
    )


@dataclass(frozen=True)
class Program:
    """A program as Relax, for any target."""

    mod: tvm.IRModule
    convention: Convention
    weights: Mapping[str, torch.Tensor]
    state: Mapping[str, torch.Tensor]
    scalars: Mapping[str, torch.Tensor]
    options: Options
    ops: list[Op]


def compile_program(
    program: Program,
    target: tvm.target.Target,
    report: Report,
    dump: Dump,
    *,
    pack: bool = True,
    entry: CodeEntry | None = None,
) -> CompiledModule:
    """Code of a lowered program for one target, kept for later processes in its ``entry``."""
    options, backend = program.options, backend_of(target)
    with report.phase("optimise"):
        mod = _optimized(program.mod, target, options, dump)
        mod = _hooked(mod, "after-optimizing", options)
    dump("optimised.py", mod.script)
    relax_module = mod
    with report.phase("schedule"):
        choose, found = _choice(mod, target, options)
        mod, decisions = schedule(mod, target, choose=choose, rules=options.rules)
        mod = _hooked(mod, "after-scheduling", options)
    dump("scheduled.py", mod.script)
    report.measured = [record for each in found for record in each]
    with report.phase("explain"):
        explain(report, mod, decisions, program.weights)
    with report.phase("build"):
        obstacle = backend.why_not_runnable(target)
        linked = _linked(mod, target) if entry else None
        executable = None if linked else build(mod, target, is_native=not obstacle)
    library = load_library(linked) if linked else executable.jit() if executable and not obstacle else None
    code = _code(program, mod, relax_module, backend.device, library, obstacle)
    if entry and linked:
        entry.keep(code, linked, list(program.weights), report)
    with report.phase("pack weights"):
        weights = Weights(code, program.weights, pack=pack)
    return CompiledModule(
        code,
        weights,
        program.state,
        scalars=program.scalars,
        report=report,
        origin=Compilation(relax_module, mod, target, functools.partial(_compiled_for, program), linked),
    )


def _code(
    program: Program,
    mod: tvm.IRModule,
    relax_module: tvm.IRModule,
    device: str,
    library: Any,
    obstacle: str,
) -> Code:
    """What the runtime needs to know of a module beside its ``library``; ``relax_module`` is it before schedules."""
    main = mod["main"]
    functions = [g.name_hint for g, f in mod.functions_items() if isinstance(f, relax.Function)]
    loops = [name for name in functions if name.startswith("loop_")]
    attrs = relax_module.attrs
    packing = str(attrs[PROGRAM]) if attrs and PROGRAM in attrs else ""
    return Code(
        library=library,
        obstacle=obstacle,
        convention=program.convention,
        device=device,
        copies=frozenset(results_to_copy(main)),
        single=not isinstance(main.ret_ty, relax.TupleType),
        loops=frozenset(loops),
        keeps_iteration=frozenset(name for name in loops if returns_first_parameter(mod[name])),
        lifted=bool(packing) or TRANSFORM_PARAMS in functions,
        program=packing,
        has_unknown_sizes=bool(relax.analysis.defined_symbolic_vars(relax_module["main"])),
    )


def _linked(mod: tvm.IRModule, target: tvm.target.Target) -> bytes | None:
    """Machine code as a library, which can be cached; ``None`` where it cannot be linked."""
    use_openmp()
    try:
        return link(build(mod, target, is_native=False).mod, target)
    except InvalidInput:
        return None


def _compiled_for(program: Program, target: tvm.target.Target) -> CompiledModule:
    return compile_program(program, target, Report(target=str(target), ops=program.ops), Dump())


def _canonical(module: TorchModule, dump: Dump) -> TorchModule:
    write = dump.passes("canonical.mlir")
    if write is None:
        return canonicalize(module)
    return canonicalize(module, lambda each: write(each.name, module.asm))


def _optimized(mod: tvm.IRModule, target: tvm.target.Target, options: Options, dump: Dump) -> tvm.IRModule:
    write = dump.passes("optimised.py")
    after = None if write is None else lambda each, result: write(each.name, result.script)
    return optimize(mod, target, accuracy=options.accuracy, level=options.opt_level, after=after)


def decomposed(module: TorchModule) -> TorchModule:
    """A canonical module with ops that have no lowering taken apart where that helps, canonical again."""
    if all(is_lowered(op) for op in view.walk(module.main)):
        return module
    from torch_tvm.inside_torch.decomposition import decompose  # imports what torch.export imports

    return canonicalize(module) if decompose(module) else module


def lower_decomposed(module: TorchModule, *, fallback: bool = True, **how: Any) -> LoweredModule:
    """Lower a canonical module; what refuses its operands is taken apart where that helps, and all is lowered again.

    Arguments and errors are those of :func:`~torch_tvm.lowering.module.lower`.
    """
    lowered = lower(module, **how)
    for _ in range(_ROUNDS):
        if not lowered.refused:
            break
        from torch_tvm.inside_torch.decomposition import decompose

        if not decompose(module, lowered.refused):
            break
        lowered = lower(canonicalize(module), **how)
    if not fallback:
        refuse_fallbacks(lowered.fallbacks)
    return lowered


_ROUNDS = 3
"""Times that a program is lowered again: parts of an op may be refused themselves."""


def _choice(
    mod: tvm.IRModule, target: tvm.target.Target, options: Options
) -> tuple[Choose | None, list[list[Measured]]]:
    """What chooses schedules in place of rules alone, and the lists that it fills with what it chose."""
    autotuner = _autotuner(target) if options.measure else None
    choose, found = (autotuner.choose, [autotuner.records]) if autotuner else (None, [])
    if not options.database and not options.searches:
        return choose, found
    from torch_tvm.tuning.session import TunedSchedules, tune_module  # imports MetaSchedule

    with tempfile.TemporaryDirectory() as folder:
        database = Database(options.database or folder)
        if options.searches:
            tune_module(mod, target, database, trials=options.trials)
        tuned = TunedSchedules(database, target, choose)
    return tuned.choose, [*found, tuned.records]


def _autotuner(target: tvm.target.Target) -> Autotuner:
    obstacle = backend_of(target).why_not_measurable(target)
    if obstacle:
        raise InvalidInput(
            f"kernels for {target.kind.name} cannot be measured on this machine: {obstacle}",
            subject="options['measure']",
            advice="compile without it, or on the machine that will run the kernels",
        )
    return Autotuner(target)


def _fallbacks(lowered: LoweredModule) -> list[FallbackOp]:
    return [FallbackOp(f.op, str(f.location), f.location.scope, f.reason) for f in lowered.fallbacks]


def _hooked(mod: tvm.IRModule, stage: str, options: Options) -> tvm.IRModule:
    for hook in options.passes.get(stage, ()):
        mod = hook(mod)
        if not isinstance(mod, tvm.IRModule):
            raise InvalidInput(
                f"a pass returned {type(mod).__name__}",
                subject=f"options['passes']['{stage}']",
                advice="return an IRModule",
            )
    return mod


__all__ = ["compile_module", "decomposed", "lower_decomposed"]
