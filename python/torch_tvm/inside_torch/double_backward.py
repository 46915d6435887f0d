"""Gradients of gradients under ``torch.compile``: PyTorch runs the graph once more for them.

AOTAutograd's backward graph cannot be differentiated. Where a caller asks for a graph of the gradient
(``create_graph=True``), it is made by eager PyTorch from the arguments of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from torch_tvm.runtime.tracing import hide_from_dynamo
from torch_tvm.runtime.warnings import warn_user

_CALL = "torch_tvm"
"""Where a call's arguments lie among the metadata of its node of autograd."""


class DoubleBackward(UserWarning):
    """A gradient that has a gradient itself was computed by PyTorch."""


def differentiable_twice(function: Callable[..., Any], gm: GraphModule) -> Callable[..., Any]:
    """``function``, what AOTAutograd made of the graph ``gm``, whose gradients have gradients.

    A graph that draws numbers keeps PyTorch's refusal: eager PyTorch would draw others.
    """
    if _draws(gm):
        return function

    def call(*arguments: Any) -> Any:
        results = function(*arguments)
        node = _node_of(results)
        if node is not None and len(node.needs_input_grad) == len(arguments):
            node.metadata[_CALL] = gm, arguments
            _prepare(node._forward_cls)
        return results

    return call


def _draws(gm: GraphModule) -> bool:
    parts = [part for part in gm.modules() if isinstance(part, GraphModule)]
    calls = [node for part in parts for node in part.graph.nodes if node.op.startswith("call_")]
    return any(word in str(node.target) for node in calls for word in _DRAWING) or any(
        name in str(node.target)
        and _argument(node, place, "dropout_p", 0.0) != 0.0
        and _argument(node, training, "training", True) is not False
        for node in calls
        for name, (place, training) in _WITH_DROPOUT.items()
    )


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if place < len(node.args) else node.kwargs.get(name, default)


_DRAWING = (
    "rand",
    "dropout",
    "bernoulli",
    "normal",
    "uniform",
    "exponential",
    "multinomial",
    "checkpoint",
    "rrelu",
)


_WITH_DROPOUT = {
    "scaled_dot_product_attention": (4, 7),
    "multi_head_attention_forward": (10, 13),
    "lstm": (5, 6),
    "gru": (5, 6),
    "rnn_tanh": (5, 6),
    "rnn_relu": (5, 6),
}
"""Calls that draw numbers where an argument is not 0 and another, if there is one, is true: their places."""


def _node_of(results: Any) -> Any:
    """The node of autograd that all results with gradients come from, each of them one of its outputs."""
    results = results if isinstance(results, (tuple, list)) else [results]
    nodes = [result.grad_fn for result in results if isinstance(result, torch.Tensor) and result.requires_grad]
    node = nodes[0] if nodes else None
    own = node is not None and type(node).__name__ == "CompiledFunctionBackward"
    return node if own and all(each is node for each in nodes) else None


def _prepare(function: Any) -> None:
    """Give AOTAutograd's function of one graph a backward that can be differentiated."""
    backward = function.backward
    if getattr(backward, "is_differentiable", False):
        return

    def differentiable(ctx: Any, *grads: Any) -> Any:
        if not torch.is_grad_enabled() or _CALL not in ctx.metadata:
            return backward(ctx, *grads)
        boxed = len(grads) == 1 and isinstance(grads[0], list)
        graph, arguments = ctx.metadata[_CALL]
        gradients = _by_pytorch(graph, arguments, grads[0] if boxed else grads)
        return backward(ctx, *grads) if gradients is None else gradients

    differentiable.is_differentiable = True  # type: ignore[attr-defined]
    function.backward = staticmethod(differentiable)


def _by_pytorch(gm: GraphModule, arguments: Sequence[Any], grads: Sequence[Any]) -> tuple[Any, ...] | None:
    """The gradients of the arguments, with a graph; ``None`` where the graph's results are not those of the node."""
    versions = [a._version if isinstance(a, torch.Tensor) else 0 for a in arguments]
    results = list(gm(*arguments))
    written = [a._version if isinstance(a, torch.Tensor) else 0 for a in arguments] != versions
    if written or len(results) != len(grads):
        return None
    warn_user(
        "a gradient is wanted with a graph of its own (create_graph=True): the part of the program that is "
        "compiled runs "
        "again in PyTorch for it, in this backward pass and those like it",
        DoubleBackward,
    )
    wanted = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    pairs = [
        (result, grad)
        for result, grad in zip(results, grads, strict=True)
        if isinstance(result, torch.Tensor) and result.requires_grad and grad is not None
    ]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            wanted,
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    is_wanted = lambda a: isinstance(a, torch.Tensor) and a.requires_grad
    return tuple(next(found) if is_wanted(a) else None for a in arguments)


hide_from_dynamo(_by_pytorch)

__all__ = ["DoubleBackward", "differentiable_twice"]
