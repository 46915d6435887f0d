"""Higher-order ops of dynamo's graphs as what they compute: loops of a known length step by step, attention with
functions of the user's as products and a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._higher_order_ops._invoke_quant import InvokeQuant, invoke_quant_packed
from torch._higher_order_ops.associative_scan import generic_associative_scan
from torch._higher_order_ops.flex_attention import math_attention
from torch.fx import GraphModule, Node

from torch_tvm.importers.fx.dense_forms import scanned

_MOST_OPS = 1000
"""Ops of a loop that is written out; one of more is left to PyTorch, since each op costs time to compile."""

Body = Callable[..., Any]
Tensors = Sequence[torch.Tensor]


def write_out(gm: GraphModule) -> None:
    """Replace higher-order ops by functions that a trace goes through, in place.

    A loop stays where its length is unknown, and where it has too many ops.
    """
    for part in [part for part in gm.modules() if isinstance(part, GraphModule)]:
        for node in part.graph.find_nodes(op="call_function", target=torch.ops.higher_order.flex_attention):
            node.target = math_attention
        for op, (function, position) in _LOOPS.items():
            for node in part.graph.find_nodes(op="call_function", target=op):
                if _is_short(part, node, node.args[position]):
                    node.target = function
        for node in part.graph.find_nodes(op="call_function", target=invoke_quant_packed):
            node.target, node.kwargs = _called, {}
        for node in part.graph.find_nodes(op="call_function", target=InvokeQuant):
            part.graph.erase_node(node)
        part.recompile()


def _is_short(gm: GraphModule, node: Node, elements: Any) -> bool:
    """Whether a loop over the rows of ``elements`` has few ops, and a known number of rows."""
    values = [each.meta.get("example_value", each.meta.get("val")) for each in elements]
    lengths = {value.shape[0] for value in values if isinstance(value, torch.Tensor) and value.dim()}
    (body,) = [item for item in node.args if isinstance(item, Node) and item.op == "get_attr"][:1]
    function = getattr(gm, str(body.target), None)
    if len(lengths) != 1 or not isinstance(function, GraphModule):
        return False
    (length,) = lengths
    ops = sum(each.op.startswith("call_") for each in function.graph.nodes)
    return type(length) is int and 0 < length <= _MOST_OPS // max(ops, 1)


def _mapped(body: Body, elements: Tensors, others: Tensors) -> tuple[torch.Tensor, ...]:
    """``map(body, elements)``: the results for each row, stacked."""
    results = [body(*rows, *others) for rows in zip(*elements, strict=True)]
    return tuple(torch.stack(column) for column in zip(*results, strict=True))


def _called(body: Body, *operands: torch.Tensor) -> Any:
    """``invoke_quant``, whose options are for other code generators: the call that it marks."""
    return body(*operands)


def _scanned_in_pairs(body: Body, elements: Tensors, others: Tensors) -> tuple[torch.Tensor, ...]:
    """``associative_scan(body, elements)``: pairs of neighbours, pairs of pairs and so on."""
    return tuple(generic_associative_scan(body, list(elements), 0, tuple(others)))


_LOOPS: dict[Any, tuple[Callable[..., Any], int]] = {
    torch.ops.higher_order.map_impl: (_mapped, 1),
    torch.ops.higher_order.scan: (scanned, 2),
    torch.ops.higher_order.associative_scan: (_scanned_in_pairs, 1),
}
"""What a loop is written out as, and which argument it goes through."""

__all__ = ["write_out"]
