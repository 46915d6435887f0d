"""``torch_tvm.compile``: from a PyTorch program to a module that runs."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm
from tvm import relax

from torch_tvm.conventions import add_requirements, convention_of
from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.examples import check_examples
from torch_tvm.exclusive import compiling, exclusive
from torch_tvm.lowering.module import LoweredModule, is_lowered, lower
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.report import FallbackOp, Kernel, Report, fallback_message
from torch_tvm.reproducer import reproducible, unforeseen
from torch_tvm.runtime.aliases import results_to_copy, returns_first_parameter
from torch_tvm.runtime.build import build
from torch_tvm.runtime.convention import Convention
from torch_tvm.runtime.measure import Measurer
from torch_tvm.runtime.module import TRANSFORM_PARAMS, Code, CompiledModule, Weights
from torch_tvm.runtime.results import keep_weights_in_main, unwrap_single_result
from torch_tvm.runtime.warnings import FallbackWarning
from torch_tvm.schedules import schedule
from torch_tvm.support.attributes import PROGRAM
from torch_tvm.support.errors import ImportFailed, InternalError, InvalidInput, TorchTvmError, bug_of
from torch_tvm.targets import resolve_target, why_not_runnable
from torch_tvm.transforms import optimize

Hook = Callable[[tvm.IRModule], tvm.IRModule]
_ACCURACIES = ("strict", "default", "fast")
_STAGES = ("after-lowering", "after-optimizing", "after-scheduling")
_FRONTENDS = ("auto", "fx", "torchscript", "lazy")
_TEXTS = (".mlir", ".mlirbc", ".ts", ".ltc")


@dataclass(frozen=True)
class Options:
    """``accuracy`` is ``"strict"``, ``"default"`` or ``"fast"``; ``passes`` are functions by stage.

    ``measure`` times a few schedules of each heavy kernel and keeps the fastest, also on disk. Without
    ``check_indices`` a position out of range is no error: the nearest one is read, and nothing is written.
    """

    accuracy: str = "default"
    measure: bool = False
    check_indices: bool = True
    passes: Mapping[str, Sequence[Hook]] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> Options:
        """Raises :class:`InvalidInput` for an unknown option, accuracy or stage."""
        given = dict(options or {})
        known = {"accuracy", "measure", "check_indices", "passes"}
        for name in given:
            if name not in known:
                raise InvalidInput(
                    f"unknown option '{name}'", subject="options", advice=f"known: {', '.join(sorted(known))}"
                )
        parsed = cls(**given)
        if parsed.accuracy not in _ACCURACIES:
            raise InvalidInput(
                f"unknown accuracy {parsed.accuracy!r}",
                subject="options",
                advice=f"known: {', '.join(_ACCURACIES)}",
            )
        for name in ("measure", "check_indices"):
            if not isinstance(getattr(parsed, name), bool):
                raise InvalidInput(
                    f"expected a bool, got {getattr(parsed, name)!r}",
                    subject=f"options['{name}']",
                    advice="pass True or False",
                )
        for stage in parsed.passes:
            if stage not in _STAGES:
                raise InvalidInput(
                    f"unknown stage '{stage}'",
                    subject="options['passes']",
                    advice=f"known: {', '.join(_STAGES)}",
                )
        return parsed


def compile(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    *,
    frontend: str = "auto",
    target: Any = "auto",
    dynamic_shapes: Any = None,
    fallback: bool = True,
    options: Mapping[str, Any] | None = None,
) -> CompiledModule:
    """Compile a PyTorch program.

    ``program`` is an ``nn.Module``, a function of tensors, a ``GraphModule``, ``ExportedProgram``, scripted module or
    function, the path of a saved ``.pt`` file, or a :class:`TorchModule`. ``frontend`` is ``"auto"``, ``"fx"``,
    ``"torchscript"`` or ``"lazy"``. ``target`` is ``"auto"``, ``"llvm"``, ``"cuda"``, a dict or a TVM target.
    With ``fallback=False`` an op that cannot be compiled is an :class:`UnsupportedOp`; otherwise it runs in
    PyTorch and one warning says so. Weights are snapshots. Raises :class:`ImportFailed` and
    :class:`InvalidInput` as well.

    The other methods of a scripted module are attributes of the result, ``compiled.encode(x)``, and share its weights
    and state. Each is compiled on its first call, for arguments of those types, or at once for the arguments that
    ``example_args={"forward": (x,), "encode": (x,)}`` gives it.

    >>> import torch, torch_tvm
    >>> compiled = torch_tvm.compile(torch.nn.ReLU(), (torch.tensor([-1.0, 2.0]),))
    >>> compiled(torch.tensor([3.0, -4.0]))
    tensor([3., 0.])
    """
    parsed = Options.parse(options)
    resolved = resolve_target(target)
    report = Report(target=str(resolved))
    with compiling(exports=_may_export(program, frontend)):
        return _compiled(program, example_args, frontend, dynamic_shapes, resolved, fallback, parsed, report)


def _compiled(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
    frontend: str,
    dynamic_shapes: Any,
    resolved: tvm.target.Target,
    fallback: bool,
    parsed: Options,
    report: Report,
) -> CompiledModule:
    with report.phase("import"), unforeseen("import"):
        imported = import_program(program, example_args, frontend, dynamic_shapes)
    report.frontend, module = imported.frontend, imported.module
    if imported.script is not None:
        from torch_tvm.methods import Settings, compile_methods

        settings = Settings(resolved, fallback, parsed)
        return compile_methods(imported.script, module, imported.arguments, settings, report)
    assert module is not None
    compiled = compile_module(module, resolved, fallback=fallback, options=parsed, report=report)
    if report.fallbacks:
        warnings.warn(fallback_message(report.fallbacks), FallbackWarning, stacklevel=2)
    return compiled


# -- import --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """A program as a module and the importer that read it; ``script`` is the scripted module that it is a method of.

    ``module`` is ``None`` for a scripted module without ``forward``. ``arguments`` are the example arguments of
    its methods by name.
    """

    module: TorchModule | None
    frontend: str
    script: torch.jit.ScriptModule | None = None
    arguments: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def import_program(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
    frontend: str,
    dynamic_shapes: Any,
) -> Imported:
    """The program as a Torch dialect module, by the importer that ``frontend`` names or that fits."""
    if frontend not in _FRONTENDS:
        raise InvalidInput(
            f"unknown frontend {frontend!r}", subject="frontend", advice=f"known: {', '.join(_FRONTENDS)}"
        )
    if isinstance(example_args, torch.Tensor):
        raise InvalidInput(
            "expected a tuple of arguments, got a tensor", subject="example_args", advice="pass (tensor,)"
        )
    check_examples(example_args)
    if isinstance(program, TorchModule):
        return Imported(program, "module")
    if isinstance(program, (str, os.PathLike)) and os.path.splitext(program)[1] in _TEXTS:
        from torch_tvm.importing import parse

        return Imported(parse(program), "module")
    if isinstance(example_args, Mapping):
        return _import_by_method(program, example_args, frontend)
    if frontend == "auto":
        return _import_auto(program, example_args, dynamic_shapes)
    if frontend == "fx":
        return Imported(_import_fx(program, example_args, dynamic_shapes), "fx")
    if dynamic_shapes is not None:
        raise InvalidInput(
            "only the fx frontend takes it",
            subject="dynamic_shapes",
            advice="give example_args as TensorSpec with None sizes",
        )
    if frontend == "torchscript":
        return _import_torchscript(program, example_args)
    from torch_tvm.importing import import_lazy

    if example_args is None:
        raise InvalidInput(
            "the lazy frontend runs the program", subject="example_args", advice="pass a tuple of arguments"
        )
    return Imported(import_lazy(program, example_args), "lazy")


_SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch._C.ScriptMethod, str, os.PathLike)


def _may_export(program: Any, frontend: str) -> bool:
    return frontend in ("auto", "fx") and not isinstance(program, (TorchModule, *_SCRIPTED))


def _import_by_method(program: Any, example_args: Mapping[str, Sequence[Any]], frontend: str) -> Imported:
    is_module = isinstance(program, (torch.nn.Module, str, os.PathLike))
    if not is_module or frontend not in ("auto", "torchscript"):
        raise InvalidInput(
            "arguments by method name are for scripted modules",
            subject="example_args",
            advice="pass a tuple of arguments",
        )
    for name, args in example_args.items():
        if not isinstance(args, (tuple, list)):
            raise InvalidInput(
                f"expected a tuple of arguments, got {type(args).__name__}",
                subject=f"example_args['{name}']",
                advice="pass (argument,)",
            )
    return _import_torchscript(program, example_args)


def _import_auto(program: Any, example_args: Sequence[Any] | None, dynamic_shapes: Any) -> Imported:
    from torch_tvm.importers.fx.program import is_exportable

    if isinstance(program, _SCRIPTED):
        return _import_torchscript(program, example_args)
    if isinstance(program, torch.export.ExportedProgram):
        return Imported(_import_fx(program, example_args, dynamic_shapes), "fx")
    if not is_exportable(program):
        raise InvalidInput(
            f"cannot compile a {type(program).__name__}",
            subject="program",
            advice="pass an nn.Module, a function, GraphModule, ExportedProgram, scripted module or TorchModule",
        )
    try:
        return Imported(_import_fx(program, example_args, dynamic_shapes), "fx")
    except ImportFailed as exported:
        is_scriptable = isinstance(program, torch.nn.Module) or inspect.isfunction(program)
        if isinstance(program, torch.fx.GraphModule) or dynamic_shapes is not None or not is_scriptable:
            raise
        try:
            return _import_torchscript(program, example_args)
        except ImportFailed as scripted_error:
            raise ImportFailed(
                f"the program can neither be exported nor scripted\n  torch.export: {_indent(exported)}\n"
                f"  torch.jit.script: {_indent(scripted_error)}",
                advice='choose one with frontend="fx" or frontend="torchscript" and repair what it names',
            ) from exported


def _indent(error: Exception) -> str:
    return str(error).replace("\n", "\n    ")


def _import_fx(program: Any, example_args: Sequence[Any] | None, dynamic_shapes: Any) -> TorchModule:
    from torch_tvm.importers.fx import import_fx

    return import_fx(program, example_args, dynamic_shapes=dynamic_shapes)


def _import_torchscript(
    program: Any, example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None
) -> Imported:
    from torch_tvm.importers.torchscript import as_script, example_arguments, import_torchscript
    from torch_tvm.methods import is_forward

    script = as_script(program)
    if not isinstance(script, torch.jit.ScriptModule):
        assert not isinstance(example_args, Mapping)
        return Imported(import_torchscript(script, example_args), "torchscript")
    has_forward = any(is_forward(name) for name in script._c._method_names())
    if isinstance(example_args, Mapping):
        arguments = dict(example_args)
    elif has_forward:
        arguments = {"forward": example_arguments(script) if example_args is None else example_args}
    else:
        arguments = {}
    module = import_torchscript(script, arguments["forward"]) if "forward" in arguments else None
    return Imported(module, "torchscript", script, arguments)


# -- compile -------------------------------------------------------------------------------------------


@exclusive(exports=False)
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
    inlined = {name: tensor.detach().cpu().clone() for name, tensor in module.inlined.items()}
    with report.phase("canonicalise"), reproducible(module, target, options):
        module = _decomposed(canonicalize(module))
        convention = convention_of(module)
    generated = functools.partial(
        _generated, module, convention, target, options, report, inlined=inlined, pack=pack
    )
    with reproducible(module, target, options):
        if not fallback or options.passes:
            return generated(fallback=fallback)
        try:
            return generated(fallback=True)
        except Exception as error:
            if isinstance(error, TorchTvmError) and not isinstance(error, InternalError):
                raise
            return generated(fallback=True, refused=bug_of(error))


def _generated(
    module: TorchModule,
    convention: Convention,
    target: tvm.target.Target,
    options: Options,
    report: Report,
    *,
    inlined: Mapping[str, torch.Tensor],
    pack: bool,
    fallback: bool,
    refused: str = "",
) -> CompiledModule:
    """Code for a canonical module; with a reason in ``refused`` all of its ops run in PyTorch."""
    with report.phase("lower"):
        # A kernel on a GPU cannot raise.
        check_indices = options.check_indices and target.kind.name == "llvm"
        lowered = lower(
            module,
            fallback=fallback,
            check_indices=check_indices,
            refused=refused,
            rounds=options.accuracy == "strict",
        )
    add_requirements(convention, lowered.requirements)
    report.fallbacks = _fallbacks(lowered)
    mod = _hooked(lowered.mod, "after-lowering", options)
    mod = keep_weights_in_main(unwrap_single_result(mod))
    with report.phase("optimise"):
        mod = _hooked(optimize(mod, target, accuracy=options.accuracy), "after-optimizing", options)
    relax_module = mod
    program = str(mod.attrs[PROGRAM]) if mod.attrs and PROGRAM in mod.attrs else ""
    with report.phase("schedule"):
        measurer = _measurer(target) if options.measure else None
        mod, decisions = schedule(mod, target, choose=measurer.choose if measurer else None)
        mod = _hooked(mod, "after-scheduling", options)
    report.measured = measurer.records if measurer else []
    report.kernels = [Kernel(d.kernel, d.rule, dict(d.refusals)) for d in decisions]
    with report.phase("build"):
        obstacle = why_not_runnable(target)
        executable = build(mod, target, is_native=not obstacle)
    main = mod["main"]
    loops = [
        g.name_hint
        for g, f in mod.functions_items()
        if isinstance(f, relax.Function) and g.name_hint.startswith("loop_")
    ]
    code = Code(
        library=None if obstacle else executable.jit(),
        obstacle=obstacle,
        convention=convention,
        target=target,
        copies=frozenset(results_to_copy(main)),
        single=not isinstance(main.ret_ty, relax.TupleType),
        loops=frozenset(loops),
        keeps_turn=frozenset(name for name in loops if returns_first_parameter(mod[name])),
        lifted=bool(program) or any(g.name_hint == TRANSFORM_PARAMS for g in mod.get_global_vars()),
        program=program,
    )
    with report.phase("pack weights"):
        weights = Weights(code, lowered.weights, pack=pack)
    return CompiledModule(
        code,
        weights,
        module.state,
        scalars=inlined,
        report=report,
        relax_module=relax_module,
        tir_module=mod,
    )


def _decomposed(module: TorchModule) -> TorchModule:
    """A canonical module with ops that have no lowering taken apart where that helps, canonical again."""
    if all(is_lowered(op) for op in view.walk(module.main)):
        return module
    from torch_tvm.decomposition import decompose  # imports what torch.export imports

    return canonicalize(module) if decompose(module) else module


def _measurer(target: tvm.target.Target) -> Measurer:
    obstacle = "it is no CPU" if target.kind.name != "llvm" else why_not_runnable(target)
    if obstacle:
        raise InvalidInput(
            f"kernels for {target.kind.name} cannot be measured on this machine: {obstacle}",
            subject="options['measure']",
            advice="compile without it, or on the machine that will run the kernels",
        )
    return Measurer(target)


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


__all__ = ["Imported", "Options", "compile", "compile_module", "import_program"]
