"""What a command line can name as a model: the zoo, saved programs, and text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from torch_tvm.dialect.types import TEXT_DTYPE, TensorSpec
from torch_tvm.support.errors import ImportFailed, InvalidInput

if TYPE_CHECKING:
    from torch_tvm.dialect.module import TorchModule

_SPEC = re.compile(r"(?:(\d+(?:x\d+)*)(?::(\w+))?|:?(\w+))")
_DTYPES = {
    **TEXT_DTYPE,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}
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

    extension = os.path.splitext(name)[1]
    if name in MODELS:
        if specs:
            raise InvalidInput(
                "models of the zoo have inputs of their own", subject="--input", advice="use --batch"
            )
        if batch < 1:
            raise InvalidInput(f"expected a positive number, got {batch}", subject="--batch")
        return _from_zoo(name, batch, seed)
    if extension not in (".pt", ".pt2", *_TEXTS):
        known = ", ".join(sorted(MODELS))
        raise InvalidInput(
            f"no model '{name}'", advice=f"pass a .pt, .pt2, {', '.join(_TEXTS)} file, or one of: {known}"
        )
    if not os.path.isfile(name):
        raise InvalidInput(f"no such file: {name}")
    given = tuple(random_tensor(parse_spec(spec), seed + index) for index, spec in enumerate(specs))
    if extension == ".pt":
        return _from_script(name, given)
    return _from_exported(name, given) if extension == ".pt2" else _from_text(name, given, seed)


def parse_spec(text: str) -> TensorSpec:
    """``1x3x64x64:f32`` as shape and dtype; ``f32`` alone is rank 0, a shape alone is ``f32``."""
    found = _SPEC.fullmatch(text)
    dtype = _DTYPES.get((found.group(2) or found.group(3) or "f32") if found else "")
    if found is None or dtype is None:
        raise InvalidInput(
            f"cannot read '{text}'",
            subject="--input",
            advice=f"write 1x3x64x64:f32; dtypes: {', '.join(sorted(_DTYPES))}",
        )
    sizes = found.group(1)
    return TensorSpec(tuple(int(size) for size in sizes.split("x")) if sizes else (), dtype)


def random_tensor(spec: TensorSpec, seed: int = 0) -> torch.Tensor:
    """Random values: normal for floats, 0 to 9 for integers, both for booleans. Unknown sizes are 2."""
    generator = torch.Generator().manual_seed(seed)
    shape = [2 if size is None else size for size in spec.shape]
    if spec.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(spec.dtype)
    if spec.dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=spec.dtype)
    return torch.randint(0, 2 if spec.dtype == torch.bool else 10, shape, generator=generator).to(spec.dtype)


def _imported(program: Any, arguments: tuple[Any, ...], frontend: str) -> TorchModule:
    import torch_tvm

    if frontend == "fx":
        return torch_tvm.import_fx(program, arguments)
    if frontend == "lazy":
        return torch_tvm.import_lazy(program, arguments)
    if isinstance(program, torch.export.ExportedProgram):
        program = program.module()
    try:
        return torch_tvm.import_torchscript(program, arguments)
    except ImportFailed:
        if isinstance(program, torch.jit.ScriptModule):
            raise
        return torch_tvm.import_torchscript(torch.jit.trace(program, arguments, check_trace=False), arguments)


def _from_zoo(name: str, batch: int, seed: int) -> Source:
    from torch_tvm.tools.zoo import build

    module, arguments = build(name, batch, seed=seed)
    frontends = ("fx", "torchscript", "lazy")
    return Source(
        name, frontends, lambda frontend: _imported(module, arguments, frontend), lambda: arguments, module
    )


def _from_script(path: str, given: tuple[Any, ...]) -> Source:
    try:
        script = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # whatever PyTorch raises for a damaged file
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportFailed(
            f"not a TorchScript file: {problem}",
            subject=path,
            advice="save it with torch.jit.save or torch.export.save",
        ) from None

    def arguments() -> tuple[Any, ...]:
        return given or tuple(_profiled(script))

    def module(frontend: str) -> TorchModule:
        import torch_tvm

        return torch_tvm.import_torchscript(script, given or None)

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


def _from_exported(path: str, given: tuple[Any, ...]) -> Source:
    try:
        program = torch.export.load(path)
    except Exception as error:
        problem = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ImportFailed(f"not an exported program: {problem}", subject=path) from None
    arguments = given or tuple((program.example_inputs or ((), {}))[0])

    def module(frontend: str) -> TorchModule:
        return _imported(program if frontend == "fx" else program.module(), arguments, frontend)

    return Source(path, ("fx", "torchscript", "lazy"), module, lambda: arguments, program.module())


def _from_text(path: str, given: tuple[Any, ...], seed: int) -> Source:
    def module(frontend: str) -> TorchModule:
        import torch_tvm
        from torch_tvm.passes.pipeline import canonicalize

        return canonicalize(torch_tvm.parse(path))

    def arguments() -> tuple[Any, ...]:
        from torch_tvm.dialect.types import parse_tensor_type

        if given:
            return given
        parsed = module("text")
        kinds = [parse_tensor_type(kind) for kind in parsed.main.type.inputs][
            : len(parsed.main.type.inputs) - len(parsed.state)
        ]
        if any(kind is None or kind.shape is None or kind.dtype is None for kind in kinds):
            raise InvalidInput(
                "an argument of this program is no tensor of known rank", advice="call it from Python"
            )
        return tuple(
            random_tensor(TensorSpec(k.shape or (), k.dtype or torch.float32), seed)
            for k in kinds
            if k is not None
        )

    return Source(path, ("text",), module, arguments)
