"""An ATen graph of ``torch.compile`` as compiled code that takes its parameters on each call."""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from torch_tvm.backends import backend_of
from torch_tvm.codegen.memory_hash import MemoryHash
from torch_tvm.dialect.bind_weights import bind_weights
from torch_tvm.dialect.module import Signature, TorchModule
from torch_tvm.driver.pipeline import compile_module
from torch_tvm.exclusive import exclusive
from torch_tvm.importers.fx.program import import_aten_graph
from torch_tvm.inside_torch.graph_outputs import Finish, split_outputs
from torch_tvm.options import GraphOptions
from torch_tvm.reporting.report import Report, fallback_message
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.tracing import refuse_recording
from torch_tvm.runtime.warnings import FallbackWarning, warn_user
from torch_tvm.runtime.weights.content_watch import ContentWatch
from torch_tvm.support.errors import InvalidInput
from torch_tvm.targets import resolve_target

aten = torch.ops.aten
_log = logging.getLogger(__name__)


class CompiledGraph:
    """Call it with the graph's arguments; it returns the graph's outputs as a tuple.

    ``dynamic`` are positions of arguments of the code, ``static`` those of parameters, with their names in it;
    ``finish`` is what ``split_outputs`` gave. Parameters are packed on the first call with them, and again when their
    memory holds something else (:class:`ContentWatch` tells). Each set of parameters that comes has a packing of its
    own: the blocks of a model that are compiled one by one share their code.
    """

    def __init__(
        self,
        compiled: CompiledModule,
        dynamic: Sequence[int],
        static: Sequence[tuple[int, str]],
        finish: Finish | None = None,
    ) -> None:
        self.compiled = compiled
        self.dynamic = tuple(dynamic)
        self.static = tuple(static)
        self.finish = finish
        self._positions = tuple(position for position, _ in static)
        self._names = tuple(name for _, name in static)
        self.eager: GraphModule | None = None
        self._packings: dict[tuple[int, ...], _Packing] = {}
        self._lock = threading.Lock()
        if self._positions:
            _graphs.add(self)

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        try:
            return self._run(arguments)
        except InvalidInput:
            if self.eager is not None and any(isinstance(item, FakeTensor) for item in arguments):
                return tuple(self.eager(*arguments))
            raise

    def _run(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        compiled: Callable[..., Any] = self.compiled
        if self._positions:
            weights = [arguments[position] for position in self._positions]
            packing = self._packings.get(tuple(map(id, weights)))
            if packing is None or not packing.holds(weights):
                packing = self._pack(weights)
            compiled = packing.compiled
        results = compiled(*[arguments[position] for position in self.dynamic])
        return results if self.finish is None else self.finish(*arguments, *results)

    def _pack(self, weights: Sequence[torch.Tensor]) -> _Packing:
        refuse_recording()
        key = tuple(map(id, weights))
        with self._lock:
            packing = self._packings.get(key)
            if packing is not None:
                packing.pack(weights)
                return packing
            packing = _Packing(self.compiled, self._names, weights)
            self._packings[key] = packing
        for graph in list(_graphs):
            graph._drop_unused()
        return packing

    def _drop_unused(self) -> None:
        """Drop packings of parameters whose memory is gone.

        Asked when another is made: a weak reference to a tensor would tell at once, but forbids
        ``torch.utils.swap_tensors``.
        """
        for key, packing in list(self._packings.items()):
            if packing.is_unused():
                self._packings.pop(key, None)


_graphs: weakref.WeakSet[CompiledGraph] = weakref.WeakSet()
"""Those with parameters."""


class _Packing:
    """Packed parameters, and a watch over the tensors that they were made of.

    Parameters that changed at two calls in a row are in training: they are packed at each call and not watched,
    until their version counters rest or the number of such calls has doubled.
    """

    def __init__(self, compiled: CompiledModule, names: Sequence[str], weights: Sequence[torch.Tensor]) -> None:
        _require_memory(weights)
        self._storages = [StorageWeakRef(weight.untyped_storage()) for weight in weights]
        self._names = names
        self._changes = 0
        self._unwatched = 0
        self._versions: list[int] = []
        self._watch: ContentWatch | None = ContentWatch(weights, MemoryHash)
        self.compiled = compiled.with_weights(self._by_name(weights))

    def holds(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether the packed parameters are those of ``weights`` still."""
        watch = self._watch
        if watch is None or not watch.is_unchanged(weights):
            return False
        self._changes = 0
        return True

    def is_unused(self) -> bool:
        """Whether a parameter's memory is gone."""
        return any(storage.expired() for storage in self._storages)

    def pack(self, weights: Sequence[torch.Tensor]) -> None:
        """Pack again what ``weights`` hold now."""
        _require_memory(weights)
        versions = [-1 if weight.is_inference() else weight._version for weight in weights]
        rests, self._versions = versions == self._versions, versions
        self._changes += self._watch is not None
        self._unwatched -= 1
        if self._watch is not None and self._changes > 2:
            self._unwatched = 2 ** min(self._changes, 6)
        before = self._watch
        self._watch = None  # a call in another thread does not take the old ones for these
        watch = ContentWatch(weights, MemoryHash) if self._unwatched <= 0 or rests else None
        # a write from here on is one that the new watch sees
        changed = None if before is None else [self._names[index] for index in before.changed(weights)]
        self.compiled.borrow_weights(self._by_name(weights), changed)
        self._storages = [StorageWeakRef(weight.untyped_storage()) for weight in weights]
        self._watch = watch

    def _by_name(self, weights: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: weight.detach() for name, weight in zip(self._names, weights, strict=True)}


def _require_memory(weights: Sequence[torch.Tensor]) -> None:
    """Raise :class:`InvalidInput` for a parameter whose memory was given back or is too small for it."""
    for weight in weights:
        if isinstance(weight, FakeTensor):
            raise InvalidInput("a parameter is a fake tensor, which has no memory", subject="parameters")
        reach = sum((size - 1) * stride for size, stride in zip(weight.shape, weight.stride(), strict=True))
        needed = (weight.storage_offset() + reach + 1) * weight.element_size()
        if weight.untyped_storage().nbytes() < needed:
            raise InvalidInput(
                f"the memory of a parameter of shape {list(weight.shape)} is gone",
                subject="parameters",
                advice="give its storage the size that it had",
            )


@exclusive(exports=True)
def compile_graph(
    gm: GraphModule,
    static: Sequence[int] = (),
    exact: Collection[int] | None = None,
    updates: Mapping[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> CompiledGraph:
    """Compile an ATen graph whose placeholders carry fake values; ``static`` are those of parameters.

    ``exact`` are outputs whose offset in memory matters, by default all; ``updates``, outputs that are new values of
    arguments. ``options`` are those of ``torch.compile``.
    """
    own, others = GraphOptions.parse(options)
    gm = GraphModule(gm, copy.deepcopy(gm.graph))
    placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
    position = {node: index for index, node in enumerate(placeholders)}
    resolved = resolve_target(own.target)
    _require_device(placeholders, backend_of(resolved).device)
    _call_plainly(gm)
    finish = split_outputs(gm, exact, updates)
    _replace_symbols(gm, placeholders)
    kept = [node for node in placeholders if node.users]
    for node in set(placeholders) - set(kept):
        gm.graph.erase_node(node)
    gm.recompile()
    module = import_aten_graph(gm, is_guarded=True)
    written = set(module.writes)  # a buffer that the program changes is read and written at each call
    names = {
        i: f"parameter_{position[node]}"
        for i, node in enumerate(kept)
        if position[node] in static and i not in written and _is_packable(node)
    }
    module = bind_weights(module, names)
    arguments = [node for i, node in enumerate(kept) if i not in names]
    module = _flat(module, [node.name for node in arguments])
    report = Report(target=str(resolved), frontend="dynamo")
    compiled = compile_module(module, resolved, fallback=own.fallback, options=others, report=report, pack=not names)
    _tell(report, own.debug)
    used = set(compiled.weight_names())
    packed = [(position[kept[i]], name) for i, name in names.items() if name in used]
    if names and not packed:  # nobody reads a parameter: what else there is of weights is packed now
        compiled = compiled.with_weights({})
    return CompiledGraph(compiled, [position[node] for node in arguments], packed, finish)


def _tell(report: Report, is_printed: bool) -> None:
    _log.info("%s", report.summary())
    _log.debug("%s", report)
    if is_printed:
        print(report)
    if report.fallbacks:
        warn_user(fallback_message(report.fallbacks), FallbackWarning)


def _call_plainly(gm: GraphModule) -> None:
    """Ops with effects, each called with the token of the one before, as plain calls: a program runs in its order."""
    for node in gm.graph.find_nodes(op="call_function", target=torch.ops.higher_order.with_effects):
        token, op, *arguments = node.args
        with gm.graph.inserting_before(node):
            call = gm.graph.call_function(op, tuple(arguments), node.kwargs)
        call.meta = {**node.meta, "val": _without_token(node.meta.get("val"))}
        has_parts = len(op._schema.returns) > 1
        for user in list(node.users):
            index = user.args[1]
            if index == 0 or not has_parts:
                user.replace_all_uses_with(token if index == 0 else call)
                gm.graph.erase_node(user)
            else:
                user.args = (call, index - 1)
        gm.graph.erase_node(node)


def _without_token(value: Any) -> Any:
    results = tuple(value[1:]) if isinstance(value, (tuple, list)) else ()
    return results[0] if len(results) == 1 else results or None


def _require_device(placeholders: Sequence[Node], device: str) -> None:
    """Raise :class:`InvalidInput` for an argument that code for ``device`` cannot read."""
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.device.type != device:
            raise InvalidInput(f"argument '{node.name}' is on {value.device.type}, the code is for {device}")


def _flat(module: TorchModule, names: list[str]) -> TorchModule:
    """Arguments one by one, and always a tuple of results."""
    signature = module.signature
    count = len(module.main.type.results) - len(module.writes) if signature.outputs is None else len(signature.outputs)
    module.signature = Signature(None, pytree.tree_structure((0,) * count), names, {}, signature.outputs)
    return module


def _is_packable(node: Node) -> bool:
    """Whether a parameter may be a weight: its shape is known, and it has more than one element, as the value of
    one with a single element would be written into the code.
    """
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and all(isinstance(s, int) for s in value.shape) and value.numel() > 1


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
