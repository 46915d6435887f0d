"""Python numbers of a graph's arguments that change from call to call, as the learning rate of a schedule does.

AOTAutograd makes a constant of each that is no tensor, and dynamo a graph for each value. Compiled code takes them as
they are where arithmetic is all that they are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch._functorch._aot_autograd import graph_compile
from torch.fx import GraphModule, Node

_PASS = "tensorify_python_scalars"
_ARITHMETIC = {f"aten::{name}" for name in "add sub rsub mul div lerp addcmul addcdiv fill full full_like".split()}


@contextmanager
def floats_kept() -> Iterator[None]:
    """In it, AOTAutograd leaves such numbers arguments of its graphs."""
    original = getattr(graph_compile, _PASS, None)
    if original is None:
        yield
        return

    def constants_where_needed(gm: GraphModule, *rest: Any) -> None:
        if not all(_is_arithmetic(user) for node in gm.graph.nodes if _is_float(node) for user in node.users):
            original(gm, *rest)

    with mock.patch.object(graph_compile, _PASS, constants_where_needed):
        yield


def _is_float(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymFloat)


def _is_arithmetic(node: Node) -> bool:
    """Whether a kernel takes a number of run time where this node takes one."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return _is_float(node) or node.op == "output"
    return node.target._schema.name in _ARITHMETIC


__all__ = ["floats_kept"]
