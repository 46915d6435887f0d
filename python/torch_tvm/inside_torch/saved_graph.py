"""Compiled graphs as bytes: what ``torch.compile(...).aot_compile(...).save_compiled_function(path)`` writes of them.

Dynamo saves a function whose backend gave it a ``SerializableCallable``; AOTAutograd saves graphs that are an
``OutputCode``, with all that it does around them. As in every pickle, whoever loads the bytes runs what is in them.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch._inductor.output_code import OutputCode
from torch.fx import GraphModule

from torch_tvm.artifact.encoding import decode_convention, encode_convention
from torch_tvm.artifact.load import decode_code, load_library
from torch_tvm.artifact.processor import machine, missing
from torch_tvm.artifact.save import encode_code
from torch_tvm.driver.compilation import variant_of
from torch_tvm.inside_torch.graph_module import CompiledGraph
from torch_tvm.runtime.library import load_runtime
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.openmp import use_openmp
from torch_tvm.runtime.weights.packed import Weights
from torch_tvm.support.errors import InvalidInput

try:
    from torch._dynamo.aot_compile_types import GraphModuleSerializableCallable, SerializableCallable
except ImportError:  # before 2.10
    SerializableCallable = GraphModuleSerializableCallable = None


def is_saving() -> bool:
    """Whether dynamo compiles a function ahead of time, to save it."""
    return bool(getattr(torch._functorch.config, "bypass_autograd_cache_key", False))


class SavedGraph:
    """A graph that dynamo calls and saves: compiled, or one that runs in PyTorch."""

    def __init__(self, graph: CompiledGraph | GraphModule, content: bytes | None = None) -> None:
        self.graph = graph
        self._content = content

    def __call__(self, *arguments: Any) -> Any:
        return self.graph(*arguments)

    def to_bytes(self) -> bytes:
        """The graph, for :meth:`from_bytes` in another process; what was loaded gives what it was loaded from."""
        if self._content is None:
            is_compiled = isinstance(self.graph, CompiledGraph)
            state = _compiled_state(self.graph) if is_compiled else _eager_state(self.graph)
            self._content = pickle.dumps((is_compiled, state))
        return self._content

    @classmethod
    def from_bytes(cls, content: bytes) -> SavedGraph:
        """A graph that :meth:`to_bytes` wrote. Raises :class:`InvalidInput` where it is for another machine."""
        is_compiled, state = pickle.loads(content)
        return cls(_restored(state) if is_compiled else _restored_eager(state), content)

    @classmethod
    def serialize_compile_artifacts(cls, fn: SavedGraph) -> bytes:
        """What dynamo asks of a ``SerializableCallable``."""
        return fn.to_bytes()

    @classmethod
    def deserialize_compile_artifacts(cls, data: bytes) -> SavedGraph:
        """What dynamo asks of a ``SerializableCallable``."""
        return cls.from_bytes(data)


if SerializableCallable is not None:
    SerializableCallable.register(SavedGraph)


class SavedCode(OutputCode):
    """A graph that AOTAutograd calls, with a list of arguments that it empties, and saves."""

    def __init__(self, saved: SavedGraph) -> None:
        self._saved = saved
        self._boxed_call = True

    def __call__(self, inputs: Any) -> Any:
        taken = list(inputs)
        inputs.clear()
        return self._saved(*taken)

    def prepare_for_serialization(self) -> None:
        """Nothing has to be done."""

    def post_compile(self, example_inputs: Any, constants: Any, graph_kwargs: Any) -> None:
        """Nothing has to be done."""

    def set_triton_bundle(self, triton_bundle: Any) -> None:
        """There is none."""

    def __reduce__(self) -> Any:
        return _code_of, (self._saved.to_bytes(),)

    def __copy__(self) -> SavedCode:
        return SavedCode(self._saved)

    def __deepcopy__(self, memo: Any) -> SavedCode:
        return SavedCode(self._saved)


def _code_of(content: bytes) -> SavedCode:
    return SavedCode(SavedGraph.from_bytes(content))


# -- compiled graphs ---------------------------------------------------------------------------------------


def _compiled_state(graph: CompiledGraph) -> dict[str, Any]:
    """Weights that are arguments of the graph are not in it, only their types."""
    module = graph.compiled
    variant = variant_of(module)
    code, weights = variant.parts.code, variant.parts.weights.tensors
    given = {name for _, name in graph.static}
    return {
        "machine": variant.machine,
        "features": list(variant.features),
        "library": variant.library,
        "openmp": variant.openmp,
        "code": encode_code(code),
        "convention": encode_convention(code.convention),
        "weights": {name: t.to("meta") if name in given else t.clone() for name, t in weights.items()},
        "state": dict(variant.parts.state),
        "dynamic": graph.dynamic,
        "static": graph.static,
        "finish": None if graph.finish is None else _eager_state(_module_of(graph.finish)),
    }


def _module_of(finish: Any) -> GraphModule:
    """The module whose ``forward`` makes outputs of results."""
    module: GraphModule = finish.__self__
    return module


def _restored(state: dict[str, Any]) -> CompiledGraph:
    lacking = missing(state["features"])
    if state["machine"] != machine() or lacking:
        wanted = f"a processor with {', '.join(lacking[:8])}" if lacking else state["machine"]
        raise InvalidInput(f"the compiled function is for {wanted}", advice="compile it on this machine")
    load_runtime()
    use_openmp(lambda: load_library(state["openmp"]))
    code = decode_code(state["code"], load_library(state["library"]), decode_convention(state["convention"]))
    given = {name for _, name in state["static"]}
    weights = {name: torch.empty_like(t, device="cpu") if name in given else t for name, t in state["weights"].items()}
    module = CompiledModule(code, Weights(code, weights, pack=not given), state["state"])
    finish = None if state["finish"] is None else _restored_eager(state["finish"]).forward
    return CompiledGraph(module, state["dynamic"], state["static"], finish)


# -- graphs that run in PyTorch ----------------------------------------------------------------------------


def _eager_state(graph: GraphModule) -> bytes:
    copied = GraphModule(graph, graph.graph)
    return GraphModuleSerializableCallable.serialize_compile_artifacts(GraphModuleSerializableCallable(copied))


def _restored_eager(state: bytes) -> GraphModule:
    found: GraphModule = GraphModuleSerializableCallable.deserialize_compile_artifacts(state).graph_module
    return found


def saved(function: Callable[..., Any]) -> SavedGraph:
    """What a compile gave, as dynamo saves it. Raises :class:`InvalidInput` for what cannot be saved."""
    graph = function.args[0] if isinstance(function, functools.partial) else function
    if not isinstance(graph, (CompiledGraph, GraphModule)):
        raise InvalidInput("the program has parts that cannot be saved", advice="call the compiled function")
    return SavedGraph(graph)


__all__ = ["SavedCode", "SavedGraph", "is_saving", "saved"]
