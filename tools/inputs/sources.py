"""What a command line can name as a model: the zoo, a Python file's class, saved programs, ONNX, and text."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torch_tvm.dialect.types import TensorSpec
from torch_tvm.support.errors import ImportFailed, InvalidInput, first_line
from torch_tvm.tools.inputs.tensors import Given, given_in_order, given_tensors, in_order, random_tensor

if TYPE_CHECKING:
    from torch_tvm.dialect.module import TorchModule

_TEXTS = (".mlir", ".mlirbc", ".ts", ".ltc")


@dataclass
class Source:
    """A program with arguments. ``frontends`` are the importers that can read it; ``"text"`` stands for a text."""

    name: str
    frontends: tuple[str, ...]
    module: Callable[[str], TorchModule]
    arguments: Callable[[], tuple[Any, ...]]
    program: Callable[..., Any] | None = None


def find(name: str, batch: int = 1, specs: Sequence[str] = (), *, seed: int = 0) -> Source:
    """The model that a command line names; :class:`InvalidInput` when there is none of this name."""
    from torch_tvm.tools.zoo import MODELS

    file, _, attribute = name.rpartition(":")
    if file.endswith(".py"):
        return _from_python(file, attribute, given_tensors(specs, seed), seed)
    extension = os.path.splitext(name)[1]
    if name in MODELS:
        if specs:
            raise InvalidInput("models of the zoo have inputs of their own", subject="--input", advice="use --batch")
        if batch < 1:
            raise InvalidInput(f"expected a positive number, got {batch}", subject="--batch")
        return _from_zoo(name, batch, seed)
    if extension == ".py":
        raise InvalidInput("which of the file's classes or functions?", subject=name, advice=f"name it: {name}:MyModel")
    if extension not in (".pt", ".pt2", ".onnx", *_TEXTS):
        close = difflib.get_close_matches(name, MODELS, 3)
        known = f"; did you mean {' or '.join(close)}?" if close else f": {', '.join(sorted(MODELS))}"
        raise InvalidInput(
            f"no model '{name}'",
            advice=f"pass file.py:Class, a .pt, .pt2, .onnx, {', '.join(_TEXTS)} file, or a model of the zoo{known}",
        )
    if not os.path.isfile(name):
        raise InvalidInput(f"no such file: {name}")
    given = given_tensors(specs, seed)
    if extension == ".pt":
        return _from_script(name, given)
    _refuse_open(name, given)
    return _from_exported(name, given) if extension == ".pt2" else _from_text(name, given, seed)


def _imported(program: Any, arguments: tuple[Any, ...], frontend: str, given: Sequence[Given] = ()) -> TorchModule:
    """``given`` says which sizes of the arguments are unknown."""
    import torch_tvm

    is_open = any(each.open for each in given)
    if frontend == "fx":
        shapes = [{dim: torch.export.Dim.AUTO for dim in each.open} or None for each in given]
        return torch_tvm.import_fx(program, arguments, dynamic_shapes=shapes if is_open else None)
    if frontend == "lazy":
        if is_open:
            raise InvalidInput(
                "the lazy importer takes known sizes only", subject="--input", advice="name another: --via fx"
            )
        return torch_tvm.import_lazy(program, arguments)
    if isinstance(program, torch.export.ExportedProgram):
        program = program.module()
    specs = tuple(each.spec for each in given) if is_open else arguments
    try:
        return torch_tvm.import_torchscript(program, specs)
    except ImportFailed:
        if isinstance(program, torch.jit.ScriptModule):
            raise
        return torch_tvm.import_torchscript(torch.jit.trace(program, arguments, check_trace=False), specs)


def _refuse_open(path: str, given: Sequence[Given]) -> None:
    """Raise for unknown sizes where the file says which sizes are unknown."""
    if any(each.open for each in given):
        raise InvalidInput(
            f"'{path}' has its own unknown sizes", subject="--input", advice="write numbers, 2x3 for ?x3"
        )


def _from_zoo(name: str, batch: int, seed: int) -> Source:
    from torch_tvm.tools.zoo import build

    try:
        module, arguments = build(name, batch, seed=seed)
    except (RuntimeError, MemoryError) as error:
        problem = next(iter(str(error).splitlines()), "it takes too much memory")
        raise InvalidInput(f"cannot be made: {problem}", subject=f"{name} --batch {batch}") from error
    frontends = ("fx", "torchscript", "lazy")
    return Source(name, frontends, lambda frontend: _imported(module, arguments, frontend), lambda: arguments, module)


def _from_python(path: str, name: str, given: Sequence[Given], seed: int) -> Source:
    """A class of a module, which is made without arguments, a module, or a function of tensors."""
    made = getattr(_executed(path), name, None)
    if made is None or not callable(made):
        raise InvalidInput(f"the file has no class or function '{name}'", subject=path)
    if isinstance(made, type):
        with torch.random.fork_rng(), _located(path, f"{name}() fails"):
            torch.manual_seed(seed)
            made = made()
    if isinstance(made, torch.nn.Module):
        made = made.eval()
    called = made.forward if isinstance(made, torch.nn.Module) else made
    ordered = given_in_order(given, list(inspect.signature(called).parameters))
    arguments = tuple(each.value for each in ordered)
    if not arguments and inspect.signature(called).parameters:
        names = ", ".join(inspect.signature(called).parameters)
        raise InvalidInput(
            f"'{name}' takes {names}", subject=path, advice="give it: --input 1x3x64x64:f32, once for each"
        )
    try:
        inspect.signature(called).bind(*arguments)
    except TypeError as error:
        names = ", ".join(inspect.signature(called).parameters)
        raise InvalidInput(f"'{name}' takes {names}: {error}", subject=path) from None
    importer = lambda frontend: _imported(made, arguments, frontend, ordered)
    return Source(f"{path}:{name}", ("fx", "torchscript", "lazy"), importer, lambda: arguments, made)


def _executed(path: str) -> Any:
    """A Python file as a module; it finds what lies beside it."""
    if not os.path.isfile(path):
        raise InvalidInput(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(path).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules.setdefault(spec.name, module)
    with _located(path, "the file cannot be imported"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _located(path: str, what: str) -> Iterator[None]:
    """What the user's file raises, as an error at its line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == Path(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        place = f"{path}:{line}" if line else path
        raise ImportFailed(f"{what}: {type(error).__name__}: {error}", subject=place) from None


def _from_script(path: str, given: Sequence[Given]) -> Source:
    try:
        script = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # whatever PyTorch raises for a damaged file
        problem = first_line(error)
        raise ImportFailed(
            f"not a TorchScript file: {problem}",
            subject=path,
            advice="save it with torch.jit.save or torch.export.save",
        ) from None
    names = [value.debugName().split(".")[0] for value in script.graph.inputs()][1:]
    ordered = given_in_order(given, names)

    def arguments() -> tuple[Any, ...]:
        return tuple(each.value for each in ordered) or tuple(_profiled(script))

    def module(frontend: str) -> TorchModule:
        import torch_tvm

        known = tuple(each.spec if each.open else each.value for each in ordered)
        return torch_tvm.import_torchscript(script, known or None)

    return Source(path, ("torchscript",), module, arguments, script)


def _profiled(script: torch.jit.ScriptModule) -> list[torch.Tensor]:
    """Random tensors of the shapes that a trace left; none where it left none."""
    found = []
    for value in list(script.graph.inputs())[1:]:
        kind = value.type()
        if kind.kind() != "TensorType" or kind.sizes() is None or kind.dtype() is None:
            raise InvalidInput(
                f"argument '{value.debugName()}' has no known shape", advice="give it: --input 1x3x64x64:f32"
            )
        found.append(random_tensor(TensorSpec(tuple(kind.sizes()), kind.dtype())))
    return found


def _from_exported(path: str, given: Sequence[Given]) -> Source:
    log = logging.getLogger("torch.export")  # has the traceback of what it raises
    was_disabled, log.disabled = log.disabled, True
    try:
        program = torch.export.load(path)
    except Exception as error:
        problem = first_line(error)
        raise ImportFailed(f"not an exported program: {problem}", subject=path) from None
    finally:
        log.disabled = was_disabled
    arguments = in_order(given, list(program.graph_signature.user_inputs))
    arguments = arguments or tuple((program.example_inputs or ((), {}))[0])

    def module(frontend: str) -> TorchModule:
        return _imported(program if frontend == "fx" else program.module(), arguments, frontend)

    return Source(path, ("fx", "torchscript", "lazy"), module, lambda: arguments, program.module())


def _from_text(path: str, given: Sequence[Given], seed: int) -> Source:
    """Text of the Torch dialect or of a graph, or an ONNX file: a program without an eager one beside it."""
    via = "onnx" if path.endswith(".onnx") else "text"

    def module(frontend: str) -> TorchModule:
        import torch_tvm
        from torch_tvm.passes.pipeline import canonicalize
        from torch_tvm.tools.inputs.onnx_reader import read_onnx

        found = read_onnx(path) if via == "onnx" else canonicalize(torch_tvm.parse(path))
        _ = found.main  # raises where the file has no program
        return found

    def arguments() -> tuple[Any, ...]:
        from torch_tvm.dialect.types import parse_tensor_type

        parsed = module(via)
        if given:
            return in_order(given, parsed.signature.names)
        kinds = [parse_tensor_type(kind) for kind in parsed.main.type.inputs][
            : len(parsed.main.type.inputs) - len(parsed.state)
        ]
        if any(kind is None or kind.shape is None or kind.dtype is None for kind in kinds):
            raise InvalidInput("an argument of this program is no tensor of known rank", advice="call it from Python")
        return tuple(
            random_tensor(TensorSpec(k.shape or (), k.dtype or torch.float32), seed) for k in kinds if k is not None
        )

    return Source(path, (via,), module, arguments)
