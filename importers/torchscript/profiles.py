"""Types of a program's arguments from what PyTorch already knows: a trace, or a profiled run just before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.torchscript.attempt import Program
from torch_tvm.importers.torchscript.graph import nodes_of
from torch_tvm.support.errors import InvalidInput

STAGE = "importer: torchscript"
_NUMBERS = {"IntType": "int", "FloatType": "float", "BoolType": "bool"}


@dataclass(frozen=True)
class AnyNumber:
    """Stands for a run-time number of which no example is known; ``kind`` is ``int``, ``float`` or ``bool``."""

    kind: str


def known_examples(program: Program) -> tuple[Any, ...]:
    """Examples for the arguments without a default.

    They come from the types that a trace left in its graph, from the inputs that it keeps, or from the profile of
    the last call of a scripted program in this thread, while PyTorch still has it. Raises :class:`InvalidInput`
    with the name of an argument that nothing describes.
    """
    skipped = 1 if program.owner is not None else 0
    arguments = program.schema.arguments[skipped:]
    wanted = next((i for i, a in enumerate(arguments) if a.has_default_value()), len(arguments))
    traced = program.owner._retrieve_traced_inputs() if program.owner is not None else {}
    if program.name in traced:
        return tuple(traced[program.name])
    profile = _profile(program) if wanted else None
    values = list((profile or program.graph).inputs())[skipped:]
    return tuple(
        _example(value, argument.name) for value, argument in zip(values[:wanted], arguments[:wanted], strict=True)
    )


def _example(value: Any, name: str) -> Any:
    kind = value.type()
    if kind.kind() in _NUMBERS:
        return AnyNumber(_NUMBERS[kind.kind()])
    if kind.kind() == "TupleType" and all(map(_is_complete, kind.elements())):
        return tuple(TensorSpec(tuple(inner.sizes()), inner.dtype()) for inner in kind.elements())
    described = next((each for each in (kind, *_profiled_types(value)) if _has_rank(each)), None)
    if described is not None:
        return TensorSpec(tuple(described.varyingSizes()), described.dtype())
    raise InvalidInput(
        f"argument '{name}' of type {kind.annotation_str} has no known shape",
        subject="import_torchscript",
        stage=STAGE,
        advice="pass example_args: a tensor or a TensorSpec for each argument (on a command line: --input 1x3:f32); "
        "or call the program once just before",
    )


def _is_complete(kind: Any) -> bool:
    return _has_rank(kind) and kind.sizes() is not None


def _has_rank(kind: Any) -> bool:
    return kind.kind() == "TensorType" and kind.varyingSizes() is not None and kind.dtype() is not None


def _profiled_types(value: Any) -> Iterator[Any]:
    """What a profiled run saw of a value, where it is used or carried into a loop."""
    for use in value.uses():
        node = use.user
        if node.kind() == "prim::profile" and node.hasAttribute("profiled_type"):
            yield node.ty("profiled_type")
        elif node.kind() == "prim::Loop" and use.offset >= 2:
            (body,) = node.blocks()
            yield from _profiled_types(list(body.inputs())[use.offset - 1])


def _profile(program: Program) -> Any:
    """The graph that PyTorch ran last in this thread, when it is the profiled one of this program."""
    try:
        last = torch._C._last_executed_optimized_graph()
    except RuntimeError:
        return None
    if last is None or not last.findAllNodes("prim::profile"):
        return None
    inlined = program.graph.copy()
    torch._C._jit_pass_inline(inlined)
    ours = [(value.debugName(), str(value.type())) for value in inlined.inputs()]
    theirs = [(value.debugName(), str(value.type())) for value in last.inputs()]
    places = {node.sourceRange() for node in nodes_of(inlined)}
    is_ours = ours == theirs and all(
        node.sourceRange() in places for node in nodes_of(last) if node.kind() != "prim::profile"
    )
    return last if is_ours else None


__all__ = ["AnyNumber", "known_examples"]
