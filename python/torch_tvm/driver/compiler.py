"""From a PyTorch program to a module that runs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm

from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.examples import check_examples, check_inputs
from torch_tvm.driver.pipeline import compile_module
from torch_tvm.exclusive import compiling
from torch_tvm.options import Options
from torch_tvm.reporting.report import Report, fallback_message
from torch_tvm.reporting.reproducer import unforeseen
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.warnings import FallbackWarning, warn_user
from torch_tvm.support.errors import ImportFailed, InvalidInput
from torch_tvm.targets import resolve_target

_FRONTENDS = ("auto", "fx", "torchscript", "lazy")
_TEXTS = (".mlir", ".mlirbc", ".ts", ".ltc")


def compile_anew(
    program: Any,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
    frontend: str,
    target: Any,
    dynamic_shapes: Any,
    fallback: bool,
    options: Options,
) -> CompiledModule:
    """What :func:`torch_tvm.compile` says, by importing the program."""
    resolved = resolve_target(target)
    report = Report(target=str(resolved))
    with compiling(exports=_may_export(program, frontend)):
        return _compiled(program, example_args, frontend, dynamic_shapes, resolved, fallback, options, report)


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
        from torch_tvm.driver.methods import Settings, compile_methods

        settings = Settings(resolved, fallback, parsed)
        return compile_methods(imported.script, module, imported.arguments, settings, report)
    assert module is not None
    compiled = compile_module(module, resolved, fallback=fallback, options=parsed, report=report)
    if report.fallbacks:
        warn_user(fallback_message(report.fallbacks), FallbackWarning)
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
    _refuse_compiled(program)
    if not isinstance(example_args, Mapping):
        check_inputs(program, example_args)
    if isinstance(program, TorchModule):
        return Imported(program, "module")
    if _extension(program) in _TEXTS:
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


def _refuse_compiled(program: Any) -> None:
    if isinstance(program, CompiledModule):
        raise InvalidInput("this program is compiled", subject="program", advice="pass the one it was compiled from")
    if _extension(program) == ".ttvm":
        raise InvalidInput("this program is compiled", subject=os.fspath(program), advice="read it with torch_tvm.load")


def _extension(program: Any) -> str:
    """The extension of a path, "" for everything else."""
    return os.path.splitext(os.fspath(program))[1] if isinstance(program, (str, os.PathLike)) else ""


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
        check_examples(args)
    return _import_torchscript(program, example_args)


def _import_auto(program: Any, example_args: Sequence[Any] | None, dynamic_shapes: Any) -> Imported:
    from torch_tvm.importers.fx.program import is_exportable

    if isinstance(program, _SCRIPTED):
        return _import_torchscript(program, example_args)
    if isinstance(program, torch.export.ExportedProgram):
        return Imported(_import_fx(program, example_args, dynamic_shapes), "fx")
    if not is_exportable(program):
        raise InvalidInput(
            f"cannot compile a value of type {type(program).__name__}",
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


def _import_torchscript(program: Any, example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None) -> Imported:
    from torch_tvm.driver.methods import is_forward
    from torch_tvm.importers.torchscript import as_script, example_arguments, import_torchscript

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


__all__ = ["Imported", "compile_anew", "import_program"]
