"""Which outputs of an ATen graph compiled code computes, and how PyTorch makes the outputs of its results.

A result of compiled code is dense and shares memory with nothing. An output may be a view of an argument, share
memory with another output, or have other strides, and AOTAutograd reads strides and offset of what a backend
returns to make views of arguments outside. So such views, which cost no arithmetic, are made by PyTorch after
the compiled code has run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

import sympy
import torch
from torch.fx import Graph, GraphModule, Node, Proxy
from torch.utils import _pytree as pytree
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from torch_tvm.support.errors import InvalidInput

aten = torch.ops.aten
Finish = Callable[..., tuple[Any, ...]]


def split_outputs(
    gm: GraphModule, exact: Collection[int] | None = None, updates: Mapping[int, int] | None = None
) -> Finish | None:
    """Leave what is to be computed as the outputs of ``gm``; return what makes its former outputs of that.

    The function takes the arguments of ``gm`` followed by the results; ``None`` says that the results are the
    outputs already. ``exact`` are outputs whose offset matters too, not only their values and strides (by default
    all). ``updates`` says which outputs are new values of which arguments, for the caller to write there: exact views
    of such an output are made of the argument, whose offset they have then. Raises :class:`InvalidInput` for an exact
    output that is a view by a number that only the program knows.
    """
    (node,) = [node for node in gm.graph.nodes if node.op == "output"]
    items = list(node.args[0]) if isinstance(node.args[0], (tuple, list)) else [node.args[0]]
    symbols = _Symbols([n for n in gm.graph.nodes if n.op == "placeholder"])
    bases = [_base(item, symbols) for item in items if isinstance(item, Node)]
    shared = {base for base in bases if base.op == "placeholder" or bases.count(base) > 1}
    sources = [
        _source(item, symbols, shared, exact is None or index in exact) if isinstance(item, Node) else item
        for index, item in enumerate(items)
    ]
    computed = list(
        dict.fromkeys(s for s in sources if isinstance(s, Node) and s.op not in ("placeholder", "get_attr"))
    )
    finish = _finish(gm, items, computed, symbols, _renewed(gm, items, updates or {}), exact)
    node.args = (tuple(computed),)
    gm.graph.eliminate_dead_code()
    return finish


# -- views ---------------------------------------------------------------------------------------------------


def _base(node: Node, symbols: _Symbols) -> Node:
    """The tensor that a chain of views starts from."""
    while (before := _viewed(node, symbols)) is not None:
        node = before
    return node


def _viewed(node: Node, symbols: _Symbols) -> Node | None:
    """What ``node`` is a view of, where the view's numbers are known before the program has run."""
    source = _view_argument(node)
    if source is None:
        return None
    call = node.args[0] if node.target is operator.getitem else node
    assert isinstance(call, Node)
    rest = [item for item in pytree.tree_leaves((call.args[1:], call.kwargs)) if isinstance(item, Node)]
    return source if all(symbols.has(item.meta.get("val")) for item in rest) else None


def _view_argument(node: Node) -> Node | None:
    """The tensor that a call of a view op makes a view of; for an item of its list too."""
    if node.target is operator.getitem and isinstance(node.args[0], Node):
        node = node.args[0]
        if not isinstance(node.meta.get("val"), (list, tuple)):
            return None
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return None
    returns = node.target._schema.returns
    alias = returns[0].alias_info if len(returns) == 1 else None
    source = node.args[0]
    if alias is None or alias.is_write or not isinstance(source, Node) or _is_reshaped(source):
        return None
    return source if _shares_memory(node.meta.get("val"), source.meta.get("val")) else None


def _is_reshaped(node: Node) -> bool:
    """Whether ``unsqueeze_`` or its like gives the tensor another shape: what was a view of it is none of what it is
    then.
    """
    return any(torch.Tag.inplace_view in getattr(user.target, "tags", ()) for user in node.users)


def _shares_memory(value: Any, source: Any) -> bool:
    """Whether a call gave a view: ``to`` and ``contiguous`` do for some operands only."""
    made = value[0] if isinstance(value, (list, tuple)) and value else value
    if not isinstance(made, torch.Tensor) or not isinstance(source, torch.Tensor):
        return True
    return bool(made.untyped_storage()._cdata == source.untyped_storage()._cdata)


def _source(node: Node, symbols: _Symbols, shared: Collection[Node], is_exact: bool) -> Node:
    """The node to compute (or to take from the arguments) for an output.

    The output itself where it is dense, also when it reads little of what it is a view of: the code then computes
    no more than that. Otherwise PyTorch makes its views.
    """
    base = _base(node, symbols)
    if base in shared:
        return base
    if is_exact:
        if not _is_dense(node, with_offset=True) and _view_argument(base) is not None:
            raise InvalidInput(f"output '{node}' is a view of a size that only the program knows")
        return node if _is_dense(node, with_offset=True) else base
    while not _is_dense(node):
        before = _viewed(node, symbols)
        if before is None or not _keeps_most(before, node):
            return node
        node = before
    return node


def _is_dense(node: Node, with_offset: bool = False) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return True
    if with_offset and not (isinstance(offset := value.storage_offset(), int) and offset == 0):
        return False
    return value.is_contiguous()


def _keeps_most(before: Node, after: Node) -> bool:
    sizes = [_hint(node.meta["val"].numel()) for node in (before, after)]
    return sizes[0] is not None and sizes[1] is not None and sizes[0] <= 2 * sizes[1]


def _hint(size: int | torch.SymInt) -> int | None:
    if isinstance(size, int):
        return size
    hint = size.node.hint
    return int(hint) if hint is not None else None


def _views_any(item: Node, nodes: Collection[Node], symbols: _Symbols) -> bool:
    """Whether ``item`` is a view of one of the nodes, by numbers that are known before the program has run."""
    node: Node | None = item if item not in nodes else None
    while node is not None and node not in nodes:
        node = _viewed(node, symbols)
    return node is not None


# -- what runs after the compiled code -------------------------------------------------------------------------


class _Symbols:
    """Where the symbols of sizes are found: arguments, or sizes of arguments."""

    def __init__(self, placeholders: list[Node]) -> None:
        self.places: dict[sympy.Symbol, tuple[Node, int | None]] = {}
        for node in placeholders:
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                for axis, size in enumerate(value.shape):
                    self._add(size, node, axis)
            self._add(value, node, None)

    def _add(self, size: Any, node: Node, axis: int | None) -> None:
        if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
            self.places.setdefault(size.node.expr, (node, axis))

    def has(self, size: Any) -> bool:
        """Whether a size can be said before the program has run."""
        if isinstance(size, (torch.SymInt, torch.SymBool, torch.SymFloat)):
            return all(symbol in self.places for symbol in size.node.expr.free_symbols)
        return isinstance(size, (int, float, bool))

    def emit(self, size: Any, graph: Graph, arguments: dict[Node, Node]) -> Any:
        """The size as a number, or as nodes of ``graph`` that compute it."""
        if not isinstance(size, (torch.SymInt, torch.SymBool, torch.SymFloat)):
            return size
        values = {}
        for symbol in size.node.expr.free_symbols:
            node, axis = self.places[symbol]
            given = arguments[node]
            values[symbol] = Proxy(given if axis is None else graph.call_function(aten.sym_size.int, (given, axis)))
        result = sympy_interp(PythonReferenceAnalysis, values, size.node.expr)
        return result.node if isinstance(result, Proxy) else result


def _renewed(gm: GraphModule, items: list[Any], updates: Mapping[int, int]) -> dict[Node, Node]:
    """For outputs that are new values of arguments, of the same shape, the arguments."""
    placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
    found = {items[output]: placeholders[argument] for output, argument in updates.items()}
    return {node: old for node, old in found.items() if node is not old and _shape(node) == _shape(old)}


def _shape(node: Node) -> list[Any]:
    return [size.node.expr if isinstance(size, torch.SymInt) else size for size in node.meta["val"].shape]


def _finish(
    gm: GraphModule,
    items: list[Any],
    computed: list[Node],
    symbols: _Symbols,
    renewed: Mapping[Node, Node],
    exact: Collection[int] | None,
) -> Finish | None:
    """The function of arguments and results that gives the outputs ``items``."""
    graph = Graph()
    placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
    arguments = {node: graph.placeholder(f"argument_{i}") for i, node in enumerate(placeholders)}
    made: dict[Node, Any] = dict(arguments)
    results = [graph.placeholder(f"result_{i}") for i in range(len(computed))]
    for node, result in zip(computed, results, strict=True):
        made[node] = _laid_out(graph, result, node.meta.get("val"), symbols, arguments)

    def emit(node: Node, made: dict[Node, Any] = made) -> Any:
        if node not in made:
            value = node.meta.get("val")
            if node.op == "get_attr":
                made[node] = graph.get_attr(str(node.target))
            elif isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
                made[node] = symbols.emit(value, graph, arguments)
            else:
                made[node] = graph.node_copy(node, lambda each: emit(each, made))
        return made[node]

    in_place = {**arguments, **{node: arguments[old] for node, old in renewed.items()}}
    outputs = tuple(
        emit(item, in_place if index in (exact or ()) and _views_any(item, renewed, symbols) else made)
        if isinstance(item, Node)
        else item
        for index, item in enumerate(items)
    )
    if outputs == tuple(results):
        return None
    graph.output(outputs)
    return GraphModule(gm, graph).forward


def _laid_out(graph: Graph, result: Node, value: Any, symbols: _Symbols, arguments: dict[Node, Node]) -> Node:
    """A dense result with the strides of ``value``, where they are others."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_contiguous():
        return result
    strides = value.stride()
    if not all(map(symbols.has, strides)) or any(_hint(stride) in (None, 0) for stride in strides):
        return result
    wanted = tuple(symbols.emit(stride, graph, arguments) for stride in strides)
    size = graph.call_method("size", (result,))
    return graph.call_method("copy_", (graph.call_method("new_empty_strided", (result, size, wanted)), result))


__all__ = ["split_outputs"]
