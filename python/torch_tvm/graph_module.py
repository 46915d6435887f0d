"""An ATen graph of ``torch.compile`` as compiled code that takes its parameters on each call."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from torch_tvm.dialect.bind_weights import bind_weights
from torch_tvm.dialect.module import Signature, TorchModule
from torch_tvm.driver import Options, compile_module
from torch_tvm.importers.fx import import_fx
from torch_tvm.report import Report, fallback_message
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.warnings import FallbackWarning
from torch_tvm.targets import resolve_target

aten = torch.ops.aten


@dataclass(frozen=True)
class _Output:
    """Where an output comes from: the n-th compiled result, the n-th argument, or a constant.

    ``order`` are its dimensions from the largest stride to the smallest, where that is no plain layout.
    ``views`` lead from that tensor to the output: views are made outside the compiled code, so that they
    share its memory.
    """

    result: int = -1
    argument: int = -1
    value: Any = None
    order: tuple[int, ...] | None = None
    views: tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...] = ()


class CompiledGraph:
    """Call it with the graph's arguments; it returns the graph's outputs as a tuple.

    Parameters (the ``static`` positions) are packed on the first call, and again when one is another tensor,
    has other memory or was written in place.
    """

    def __init__(
        self,
        compiled: CompiledModule,
        dynamic: Sequence[int],
        static: Sequence[tuple[int, str]],
        outputs: Sequence[_Output],
    ) -> None:
        self.compiled = compiled
        self._dynamic = tuple(dynamic)
        self._static = tuple(static)
        self._outputs = tuple(outputs)
        self._is_plain = all(o.result == i and o.order is None and not o.views for i, o in enumerate(outputs))
        self._seen: list[Any] = []

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        if self._static:
            seen = [_fingerprint(arguments[position]) for position, _ in self._static]
            if seen != self._seen:
                self.compiled.exchange_weights({name: arguments[p].detach() for p, name in self._static})
                self._seen = seen
        results = self.compiled(*[arguments[position] for position in self._dynamic])
        return results if self._is_plain else self._outputs_of(results, arguments)

    def _outputs_of(self, results: Sequence[Any], arguments: Sequence[Any]) -> tuple[Any, ...]:
        laid_out: dict[int, Any] = {}
        values = []
        for output in self._outputs:
            if output.argument >= 0:
                value = arguments[output.argument]
            elif output.result < 0:
                value = output.value
            else:
                value = laid_out.get(output.result)
                if value is None:
                    value = laid_out[output.result] = _with_layout(results[output.result], output.order)
            for overload, args, kwargs in output.views:
                value = overload(value, *args, **kwargs)
            values.append(value)
        return tuple(values)


def _with_layout(value: Any, order: tuple[int, ...] | None) -> Any:
    if order is None:
        return value
    inverse = [order.index(axis) for axis in range(len(order))]
    return value.permute(order).contiguous().permute(inverse)


def _fingerprint(tensor: torch.Tensor) -> tuple[int, int, int]:
    return id(tensor), tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


def compile_graph(
    gm: GraphModule,
    static: Sequence[int] = (),
    *,
    fallback: bool = True,
    accuracy: str = "default",
    check_indices: bool = True,
    target: Any = "auto",
    passes: Any = None,
) -> CompiledGraph:
    """Compile an ATen graph whose placeholders carry fake values; ``static`` are those of parameters."""
    gm = GraphModule(gm, copy.deepcopy(gm.graph))
    placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
    position = {node: index for index, node in enumerate(placeholders)}
    outputs = _split_outputs(gm, position)
    _replace_symbols(gm, placeholders)
    unused = {node for node in placeholders if not node.users}
    for node in unused:
        gm.graph.erase_node(node)
    gm.recompile()
    kept = [node for node in placeholders if node not in unused]
    module = import_fx(gm)
    weights = [i for i, node in enumerate(kept) if position[node] in static and _is_packable(node)]
    names = {i: f"parameter_{position[kept[i]]}" for i in weights}
    module = bind_weights(module, names)
    arguments = [node for i, node in enumerate(kept) if i not in names]
    module = _flat(module, [node.name for node in arguments])
    options = Options.parse({"accuracy": accuracy, "check_indices": check_indices, "passes": passes or {}})
    resolved = resolve_target(target)
    report = Report(target=str(resolved), frontend="dynamo")
    compiled = compile_module(
        module, resolved, fallback=fallback, options=options, report=report, pack=not names
    )
    if report.fallbacks:
        warnings.warn(fallback_message(report.fallbacks), FallbackWarning, stacklevel=3)
    used = set(compiled.weight_names())
    packed = [(position[kept[i]], name) for i, name in names.items() if name in used]
    return CompiledGraph(compiled, [position[node] for node in arguments], packed, outputs)


def _flat(module: TorchModule, names: list[str]) -> TorchModule:
    """Arguments one by one, and always a tuple of results."""
    signature = module.signature
    count = (
        len(module.main.type.results) - len(module.writes)
        if signature.outputs is None
        else len(signature.outputs)
    )
    module.signature = Signature(None, pytree.tree_structure((0,) * count), names, {}, signature.outputs)
    return module


def _is_packable(node: Node) -> bool:
    """Literals of one element are written into the code, so such a parameter stays an argument."""
    value = node.meta.get("val")
    return (
        isinstance(value, torch.Tensor) and all(isinstance(s, int) for s in value.shape) and value.numel() > 1
    )


def _split_outputs(gm: GraphModule, position: dict[Node, int]) -> list[_Output]:
    """Keep computed outputs in the graph, once each; arguments, constants and views go around it."""
    (node,) = [node for node in gm.graph.nodes if node.op == "output"]
    items = node.args[0] if isinstance(node.args[0], (tuple, list)) else (node.args[0],)
    bases = [_base(item) for item in items if isinstance(item, Node)]
    shared = {base for base, _ in bases if base in position or sum(other is base for other, _ in bases) > 1}
    computed: list[Node] = []
    outputs = []
    for item in items:
        if not isinstance(item, Node):
            outputs.append(_Output(value=item))
            continue
        base, views = _base(item)
        if base not in shared:
            base, views = item, ()
        if base in position:
            outputs.append(_Output(argument=position[base], views=views))
            continue
        if base not in computed:
            computed.append(base)
        outputs.append(_Output(computed.index(base), order=_stride_order(base.meta.get("val")), views=views))
    node.args = (tuple(computed),)
    gm.graph.eliminate_dead_code()
    return outputs


def _base(node: Node) -> tuple[Node, tuple[Any, ...]]:
    """The tensor that a chain of views with constant arguments starts from, and the chain."""
    views: list[Any] = []
    while _is_view(node) and isinstance(node.args[0], Node):
        views.append((node.target, tuple(node.args[1:]), dict(node.kwargs)))
        node = node.args[0]
    return node, tuple(reversed(views))


def _is_view(node: Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return False
    schema = node.target._schema
    alias = schema.returns[0].alias_info if len(schema.returns) == 1 else None
    if alias is None or alias.is_write or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    rest = pytree.tree_leaves((node.args[1:], node.kwargs))
    return not any(isinstance(item, Node) for item in rest)


def _stride_order(value: Any) -> tuple[int, ...] | None:
    """Dimensions by falling stride for a dense tensor in another order than its dimensions, else ``None``."""
    if not isinstance(value, torch.Tensor) or value.is_contiguous() or value.layout != torch.strided:
        return None
    strides = [_hint(stride) for stride in value.stride()]
    sizes = [_hint(size) for size in value.shape]
    if any(stride is None for stride in strides) or 0 in strides:
        return None
    order = tuple(sorted(range(value.dim()), key=lambda d: (-(strides[d] or 0), -(sizes[d] or 0))))
    return None if order == tuple(range(value.dim())) else order


def _hint(size: int | torch.SymInt) -> int | None:
    if isinstance(size, int):
        return size
    hint = size.node.hint
    return int(hint) if hint is not None else None


def _replace_symbols(gm: GraphModule, placeholders: Sequence[Node]) -> None:
    """A size that is an argument of its own becomes the size of a tensor argument that has it."""
    sizes: dict[Any, Callable[[], Node]] = {}
    last = placeholders[-1] if placeholders else None
    for node in placeholders:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            continue
        for axis, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                sizes.setdefault(size.node.expr, lambda n=node, a=axis, s=size: _size_node(gm, last, n, a, s))
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and value.node.expr in sizes and node.users:
            node.replace_all_uses_with(sizes[value.node.expr]())


def _size_node(gm: GraphModule, after: Node | None, tensor: Node, axis: int, size: torch.SymInt) -> Node:
    assert after is not None
    with gm.graph.inserting_after(after):
        node = gm.graph.call_function(aten.sym_size.int, (tensor, axis))
    node.meta["val"] = size
    return node


__all__ = ["CompiledGraph", "compile_graph"]
