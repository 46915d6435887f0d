"""The ``torch.compile`` backend: ``torch.compile(model, backend="torch_tvm", options={…})``.

A graph of dynamo is retraced to ATen. Where nothing needs a gradient and no output shares memory with an
input or another output, it is traced before PyTorch decomposes composite ops; otherwise AOTAutograd splits it
into forward and backward graphs, makes them functional and replays views outside. Either graph is compiled as
any program.

Parameters arrive as arguments. They are packed on the first call and again when one of them is another tensor
or was changed in place.
"""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import _disable_current_modes

from torch_tvm.graph_module import CompiledGraph, compile_graph
from torch_tvm.support.errors import InvalidInput

Inputs = Sequence[Any]
_OPTIONS = {"fallback": bool, "accuracy": str, "check_indices": bool, "target": object, "passes": Mapping}


class GraphNotCompiled(UserWarning):
    """A graph of ``torch.compile`` runs in PyTorch; the message says why."""


def torch_tvm(
    gm: GraphModule, example_inputs: Inputs, *, options: Mapping[str, Any] | None = None, mode: Any = None
) -> Callable[..., Any]:
    """Compile one dynamo graph.

    ``options``: ``fallback`` (``False`` makes anything that cannot be compiled an error), ``accuracy``,
    ``check_indices``, ``target`` and ``passes`` as in ``torch_tvm.compile``. A graph that cannot be compiled runs in PyTorch,
    with one :class:`GraphNotCompiled` warning.
    """
    given = dict(options or {})
    for name, value in given.items():
        if name not in _OPTIONS or not isinstance(value, _OPTIONS[name]):
            raise InvalidInput(
                f"cannot take {name!r}: {value!r}",
                subject="options",
                advice=f"known: {', '.join(sorted(_OPTIONS))}",
            )
    if not _needs_gradient(example_inputs):
        traced = _trace_composite(gm, example_inputs)
        if traced is not None:
            return _compiled(traced, _static_positions(gm), given)
    return _through_aot(given)(gm, example_inputs)


def _needs_gradient(inputs: Inputs) -> bool:
    return torch.is_grad_enabled() and any(isinstance(i, torch.Tensor) and i.requires_grad for i in inputs)


# -- without gradients ---------------------------------------------------------------------------------


def _trace_composite(gm: GraphModule, inputs: Inputs) -> GraphModule | None:
    """The graph in ATen with its composite ops whole; ``None`` when memory is shared in a way that callers
    see.
    """
    fakes = [_placeholder_value(node) for node in gm.graph.nodes if node.op == "placeholder"]
    if len(fakes) != len(inputs) or any(value is None for value in fakes):
        return None
    modes = {value.fake_mode for value in fakes if isinstance(value, FakeTensor)}
    if len(modes) != 1:
        return None
    (fake_mode,) = modes  # dynamo's own, in which it made the values; the context has moved on to another
    with tracing(TracingContext(fake_mode)), fake_mode, torch.no_grad():
        versions = [value._version if isinstance(value, torch.Tensor) else 0 for value in fakes]
        traced = make_fx(gm, pre_dispatch=True, tracing_mode="real")(*fakes)
        changed = any(
            isinstance(value, torch.Tensor) and value._version != version
            for value, version in zip(fakes, versions, strict=True)
        )
    return None if changed or _shares_memory(traced, fakes) else traced


def _placeholder_value(node: Node) -> Any:
    return node.meta.get("example_value", node.meta.get("val"))


def _shares_memory(traced: GraphModule, inputs: Inputs) -> bool:
    """Whether an output of the traced graph is a view of an input, an input, or a view of another output."""
    seen = {_storage(value) for value in inputs if isinstance(value, torch.Tensor)}
    for item in _outputs(traced):
        value = item.meta.get("val") if isinstance(item, Node) else None
        if not isinstance(value, torch.Tensor):
            continue
        if _storage(value) in seen:
            return True
        seen.add(_storage(value))
    return False


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _outputs(graph: GraphModule) -> list[Any]:
    (output,) = [node for node in graph.graph.nodes if node.op == "output"]
    found = output.args[0]
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _static_positions(gm: GraphModule) -> list[int]:
    """Placeholders that hold parameters and buffers of the user's modules."""
    nodes = [node for node in gm.graph.nodes if node.op == "placeholder"]
    return [
        i for i, node in enumerate(nodes) if "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})
    ]


# -- through AOTAutograd -------------------------------------------------------------------------------


def _through_aot(options: Mapping[str, Any]) -> Callable[..., Any]:
    def forward(gm: GraphModule, inputs: Inputs) -> Callable[..., Any]:
        context = TracingContext.try_get()
        metadata = context.fw_metadata if context is not None else None
        written = set(getattr(metadata, "mutated_inp_runtime_indices", None) or [])
        static = [i for i in getattr(metadata, "static_input_indices", None) or [] if i not in written]
        return _boxed(_compiled(gm, static, options))

    def backward(gm: GraphModule, inputs: Inputs) -> Callable[..., Any]:
        return _boxed(_compiled(gm, [], options))

    return aot_autograd(
        fw_compiler=forward,
        bw_compiler=backward,
        inference_compiler=forward,
        partition_fn=min_cut_rematerialization_partition,
    )


def _boxed(function: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    """A function of one list of arguments, which it empties: AOTAutograd frees activations that way."""

    def call(arguments: list[Any]) -> Any:
        taken = list(arguments)
        arguments.clear()
        return function(*taken)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


# -- both ----------------------------------------------------------------------------------------------


def _compiled(gm: GraphModule, static: Sequence[int], options: Mapping[str, Any]) -> Callable[..., Any]:
    """The compiled graph; the graph itself, with a warning, when it cannot be compiled and may fall back."""
    try:
        with _disable_current_modes():  # the compiler makes real tensors, under AOTAutograd's fake mode too
            return compile_graph(gm, static, **options)
    except Exception as error:
        if options.get("fallback", True) is False:
            raise
        reason = str(error) or type(error).__name__
        warnings.warn(
            f"a graph of {_operation_count(gm)} ops runs in PyTorch, not in compiled code: "
            f"{type(error).__name__}: {reason}",
            GraphNotCompiled,
            stacklevel=2,
        )
        return functools.partial(_run_eagerly, gm)


def _operation_count(gm: GraphModule) -> int:
    return sum(node.op == "call_function" and node.target is not operator.getitem for node in gm.graph.nodes)


def _run_eagerly(gm: GraphModule, *arguments: Any) -> Any:
    return gm(*arguments)


__all__ = ["CompiledGraph", "GraphNotCompiled", "torch_tvm"]
