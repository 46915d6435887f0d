"""The ``torch.compile`` backend: ``torch.compile(model, backend="torch_tvm", options={…})``.

A graph of dynamo is retraced to ATen. Where nothing needs a gradient and no output shares memory with an
input or another output, it is traced before PyTorch decomposes composite ops; otherwise AOTAutograd splits it
into forward and backward graphs, makes them functional and replays views outside. It also takes what cannot be
traced that way (function transforms, ``.data``, autocast regions). Either graph is compiled as any program; what
AOTAutograd refuses too runs in PyTorch, with a warning.

Parameters arrive as arguments. They are packed on the first call and again when one of them is another tensor
or its memory holds something else, however that came about (``runtime/content_watch.py``).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch._functorch.config
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import RestartAnalysis
from torch._functorch._aot_autograd.schemas import OutputType
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.nn import _reduction as _Reduction
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import CheckpointPolicy

from torch_tvm.aten.calls import draws
from torch_tvm.aten.decompositions import multilabel_margin_loss
from torch_tvm.runtime.calls.overlap import overlaps_itself
from torch_tvm.runtime.warnings import warn_user
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.interrupts import deferred_interrupts

with deferred_interrupts():
    from torch_tvm.inside_torch.decomposition import traced_decompositions
    from torch_tvm.inside_torch.double_backward import differentiable_twice
    from torch_tvm.inside_torch.graph_module import CompiledGraph, compile_graph
    from torch_tvm.inside_torch.higher_order import write_out
    from torch_tvm.inside_torch.other_arguments import GraphNotCompiled, for_other_arguments, held_tensors
    from torch_tvm.inside_torch.python_floats import floats_kept
    from torch_tvm.inside_torch.recurrent_dropout import recurrent_dropout_kept
    from torch_tvm.inside_torch.saved_graph import SavedCode, is_saving, saved
    from torch_tvm.options import GraphOptions

Inputs = Sequence[Any]


def torch_tvm(
    gm: GraphModule, example_inputs: Inputs, *, options: Mapping[str, Any] | None = None, mode: Any = None
) -> Callable[..., Any]:
    """Compile one dynamo graph.

    ``options`` are those of :class:`~torch_tvm.options.GraphOptions` and of :class:`~torch_tvm.options.Options`. A
    graph that cannot be compiled runs in PyTorch, with one :class:`GraphNotCompiled` warning. What dynamo compiles
    ahead of time can be saved (``saved_graph.py``).
    """
    function = _function_of(gm, example_inputs, dict(options or {}))
    if is_saving():
        return function if hasattr(function, "serialize") else saved(function)
    return for_other_arguments(function, gm, example_inputs)


def _function_of(gm: GraphModule, example_inputs: Inputs, given: Mapping[str, Any]) -> Callable[..., Any]:
    parsed, _ = GraphOptions.parse(given)
    if _operation_count(gm) < parsed.min_block_size:
        return functools.partial(_run_eagerly, gm)
    write_out(gm)
    for change in (_use_ours, _tell_draws, _tell_identities):
        _rewrite(gm, change)
    if not _needs_gradient(example_inputs):
        _rewrite(gm, _tell_views)
    if not (_needs_gradient(example_inputs) or _transforms_functions(gm) or held_tensors(gm)):
        try:
            with _draws_kept():
                compiled = _without_autograd(gm, example_inputs, given)
        except LostWrite as error:
            return _left_to_pytorch(gm, error, given)
        if compiled is not None:
            return compiled
    try:
        with (
            _transforms_undone(),
            _draws_kept(),
            recurrent_dropout_kept(),
            nullcontext() if is_saving() else floats_kept(),
        ):
            compiled = _through_aot(given, len(example_inputs))(gm, example_inputs)
            is_trained = _needs_gradient(example_inputs) and not is_saving()
            return differentiable_twice(compiled, gm) if is_trained else compiled
    except RestartAnalysis:
        raise
    except Exception as error:
        return _left_to_pytorch(gm, error, given)


def _needs_gradient(inputs: Inputs) -> bool:
    return torch.is_grad_enabled() and any(isinstance(i, torch.Tensor) and i.requires_grad for i in inputs)


_UNTOLD = {f"unsafe_{name}": name for name in ("chunk", "split", "split_with_sizes")}


def _rewrite(gm: GraphModule, change: Callable[[Node], bool]) -> None:
    """Give ``change`` each node of a graph and of those in it; it says whether it has changed anything."""
    for part in gm.modules():
        if isinstance(part, GraphModule) and any([change(node) for node in list(part.graph.nodes)]):
            part.recompile()


def _tell_views(node: Node) -> bool:
    """``unsafe_split`` and its kin give views that their schemas do not tell: AOTAutograd would lose writes to them."""
    is_method = node.op == "call_method"
    name = node.target if is_method else getattr(node.target, "__name__", "")
    if name not in _UNTOLD or not (is_method or node.target is getattr(torch, name)):
        return False
    node.target = _UNTOLD[name] if is_method else getattr(torch, _UNTOLD[name])
    return True


def _tell_draws(node: Node) -> bool:
    """``bernoulli(x, 0.3)`` draws into a contiguous tensor, ``x.bernoulli_(0.3)`` along the memory of ``x``:
    AOTAutograd makes one op of both, which is the latter where ``x`` is not contiguous.
    """
    is_draw = node.target is torch.bernoulli or (node.op, node.target) == ("call_method", "bernoulli")
    if not is_draw or len(node.args) < 2:
        return False
    with node.graph.inserting_before(node):
        dense = node.graph.call_method("contiguous", (node.args[0],))
    dense.meta = dict(node.meta)
    node.args = (dense, *node.args[1:])
    return True


def _multilabel_margin_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    if size_average is not None or reduce is not None:
        reduction = _Reduction.legacy_get_string(size_average, reduce)
    return multilabel_margin_loss(input, target, _Reduction.get_enum(reduction))


_OURS = {
    torch._C._nn.multilabel_margin_loss: multilabel_margin_loss,
    torch.nn.functional.multilabel_margin_loss: _multilabel_margin_loss,
}


def _use_ours(node: Node) -> bool:
    """Functions that PyTorch takes apart before autograd, and whose parts give other numbers than eager: theirs adds
    what belongs to no label.
    """
    if node.op != "call_function" or node.target not in _OURS:
        return False
    node.target = _OURS[node.target]
    return True


def _tell_identities(node: Node) -> bool:
    """Dropout outside training is its operand: AOTAutograd makes a copy, which does not see later writes."""
    if node.op != "call_function" or node.target not in _DROPOUTS:
        return False
    names = ("input", "p", "training" if node.target is torch.nn.functional.dropout else "train")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get(names[2], True) is not False and given.get("p", 0.5) != 0:
        return False
    node.replace_all_uses_with(given["input"])
    node.graph.erase_node(node)
    return True


_DROPOUTS = (torch.nn.functional.dropout, torch.dropout)


def _transforms_functions(gm: GraphModule) -> bool:
    """Whether the graph enters ``vmap``, ``grad`` or ``jvp``: AOTAutograd runs those; a trace would only see one
    level of them.
    """
    nodes = [n for part in gm.modules() if isinstance(part, GraphModule) for n in part.graph.nodes]
    modules = [getattr(n.target, "__module__", None) or "" for n in nodes if n.op == "call_function"]
    return any(name.startswith(("torch._functorch", "torch._C._functorch")) for name in modules)


@contextmanager
def _transforms_undone() -> Iterator[None]:
    """Leaves the function transforms that a failure has left entered: what runs next would be transformed."""
    depth = torch._C._functorch.get_dynamic_layer_stack_depth()
    try:
        yield
    finally:
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)


# -- without gradients ---------------------------------------------------------------------------------


def _without_autograd(gm: GraphModule, inputs: Inputs, options: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The compiled graph, its composite ops whole; ``None`` where it is for AOTAutograd to see."""
    try:
        traced = _trace_composite(gm, inputs)
    except LostWrite:
        raise
    except Exception:
        return None
    if traced is None or not _is_importable(traced):
        return None
    return _compiled(traced, _static_positions(gm), (), options, eager=gm)


torch.fx.node.has_side_effect(torch.ops.aten._assert_async.default)  # PyTorch knows that of its other overload


def _trace_composite(gm: GraphModule, inputs: Inputs) -> GraphModule | None:
    """The graph in ATen with its composite ops whole; ``None`` when memory is shared in a way that callers
    see, or when the trace holds no calls of ops but their results on fake tensors.
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
        with preserve_node_meta():  # the user's lines
            run = Interpreter(gm).run
            traced = make_fx(run, traced_decompositions(), pre_dispatch=True, tracing_mode="real")(*fakes)
        changed = [
            value
            for value, version in zip(fakes, versions, strict=True)
            if isinstance(value, torch.Tensor) and value._version != version
        ]
    if not changed and not _shares_memory(traced, fakes):
        return traced
    if any(value.dim() == 0 and value.dtype == torch.float64 for value in changed):
        raise LostWrite("the graph writes an argument that is one float64", advice="give it another dtype or shape")
    if _fills_expanded(traced):
        raise LostWrite("the graph writes a tensor that is expanded or unfolded", advice="use clone() before")
    return None


class LostWrite(InvalidInput):
    """A write that AOTAutograd loses: ``x.mul_(2)`` of an argument of shape [], ``x.expand(3).fill_(1)``."""


def _fills_expanded(traced: GraphModule) -> bool:
    """Whether a tensor is written some of whose elements share memory, as eager fills them: AOTAutograd loses that."""
    for node in traced.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for argument, given in zip(schema.arguments, node.args, strict=False) if schema is not None else ():
            value = given.meta.get("val") if isinstance(given, Node) else None
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written and isinstance(value, torch.Tensor) and (overlaps_itself(value) or _is_window(given)):
                return True
    return False


def _is_window(node: Any) -> bool:
    """Whether a node is a view of what ``unfold`` gave: AOTAutograd sets to zero what lies between written windows."""
    while isinstance(node, Node) and isinstance(node.target, torch._ops.OpOverload):
        if node.target is torch.ops.aten.unfold.default:
            return True
        if not any(result.alias_info is not None for result in node.target._schema.returns):
            return False
        node = node.args[0]
    return False


def _is_importable(traced: GraphModule) -> bool:
    """Whether every value comes from a call that importing knows: a switch of autocast or of the gradient mode is
    none, a fake tensor that tracing could not follow is left as a constant.
    """
    nodes = traced.graph.nodes
    constants = [getattr(traced, str(node.target), None) for node in nodes if node.op == "get_attr"]
    modules = [getattr(node.target, "__module__", None) or "" for node in nodes if node.op == "call_function"]
    return not any(isinstance(value, FakeTensor) for value in constants) and not any(
        name.startswith(("torch.amp", "torch._C", "torch.autograd")) for name in modules
    )


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
    return [i for i, node in enumerate(nodes) if "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})]


# -- through AOTAutograd -------------------------------------------------------------------------------


def _through_aot(options: Mapping[str, Any], count: int) -> Callable[..., Any]:
    """AOTAutograd for a graph of ``count`` arguments.

    It makes one argument of those that share memory, where one of them is written, with their offsets as constants,
    and no guard looks at an offset.
    """

    def forward(gm: GraphModule, inputs: Inputs) -> Callable[..., Any]:
        if len(inputs) < count:
            raise InvalidInput("the graph writes memory that two of its arguments share", advice="pass a clone of one")
        context = TracingContext.try_get()
        metadata = context.fw_metadata if context is not None else None
        written = set(getattr(metadata, "mutated_inp_runtime_indices", None) or [])
        if any(overlaps_itself(inputs[i]) for i in written):
            raise InvalidInput(
                "the program writes an argument some of whose elements share memory", advice="pass a clone"
            )
        static = [i for i in getattr(metadata, "static_input_indices", None) or [] if i not in written]
        updates = dict(enumerate(getattr(metadata, "mutated_inp_runtime_indices", None) or []))
        return _boxed(_compiled(gm, static, _regenerated(metadata), options, updates=updates))

    def backward(gm: GraphModule, inputs: Inputs) -> Callable[..., Any]:
        return _boxed(_compiled(gm, (), (), options))

    return aot_autograd(
        fw_compiler=forward,
        bw_compiler=backward,
        inference_compiler=forward,
        partition_fn=_partition,
        decompositions=traced_decompositions(),
    )


def _partition(joint: GraphModule, *arguments: Any, **options: Any) -> tuple[GraphModule, GraphModule]:
    """The forward and the backward graph. PyTorch merges equal calls before, of ``randn_like`` and ``exponential`` too:
    not where numbers are drawn.
    """
    calls = [node for node in joint.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    drawing = [node for node in calls if draws(node.target, node.args, node.kwargs)]
    # A checkpoint would draw again what it drew, and norms read their statistics, written since: results are kept
    # instead.
    norms = [node for node in calls if node.target is torch.ops.aten._native_batch_norm_legit_functional.default]
    kept = [*drawing, *norms]
    items = [user for node in kept for user in node.users if user.target is operator.getitem]
    for node in [*kept, *items]:
        node.meta["recompute"] = CheckpointPolicy.MUST_SAVE
    with torch._functorch.config.patch(cse=False) if drawing else nullcontext():
        return min_cut_rematerialization_partition(joint, *arguments, **options)


def _draws_kept() -> AbstractContextManager[Any]:
    """PyTorch keeps what nobody uses of random numbers, as eager draws them, only in a graph whose backend asks so."""
    from torch._inductor import config

    patch: AbstractContextManager[Any] = config.patch(fallback_random=True, enable_auto_functionalized_v2=False)
    return patch


def _regenerated(metadata: Any) -> list[int] | None:
    """Outputs that AOTAutograd makes anew, as views of an input or of another output, from the strides and the
    offset of what the forward graph returns for them; ``None`` where it does not say.
    """
    if metadata is None:
        return None
    written = list(metadata.mutated_inp_runtime_indices)
    changed = [n for n, index in enumerate(written) if metadata.input_info[index].mutates_metadata]
    apart = (OutputType.non_alias, OutputType.unsafe_view_alias)
    views = [i for i, output in enumerate(metadata.output_info) if output.output_type not in apart]
    return changed + [len(written) + index for index in views]


def _boxed(function: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    """A function of one list of arguments, which it empties: AOTAutograd frees activations that way."""
    if is_saving():
        return SavedCode(saved(function))

    def call(arguments: list[Any]) -> Any:
        taken = list(arguments)
        arguments.clear()
        return function(*taken)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


# -- both ----------------------------------------------------------------------------------------------


def _compiled(
    gm: GraphModule,
    static: Sequence[int],
    exact: Sequence[int] | None,
    options: Mapping[str, Any],
    eager: GraphModule | None = None,
    updates: Mapping[int, int] | None = None,
) -> Callable[..., Any]:
    """The compiled graph; ``eager`` (by default the graph itself), with a warning, when it cannot be compiled
    and may fall back. ``exact`` and ``updates`` are as in ``compile_graph``.
    """
    try:
        with _disable_current_modes():  # the compiler makes real tensors, under AOTAutograd's fake mode too
            compiled = compile_graph(gm, static, exact, updates, options)
            compiled.eager = eager or gm
            return compiled
    except Exception as error:
        return _left_to_pytorch(eager or gm, error, options)


def _left_to_pytorch(gm: GraphModule, error: Exception, options: Mapping[str, Any]) -> Callable[..., Any]:
    if options.get("fallback", True) is False:
        raise error
    reason = str(error) or type(error).__name__
    warn_user(
        f"a graph of {_operation_count(gm)} ops runs in PyTorch, not in compiled code: "
        f"{type(error).__name__}: {reason}",
        GraphNotCompiled,
    )
    return functools.partial(_run_eagerly, gm)


def _operation_count(gm: GraphModule) -> int:
    return sum(node.op.startswith("call_") and node.target is not operator.getitem for node in gm.graph.nodes)


def _run_eagerly(gm: GraphModule, *arguments: Any) -> Any:
    return gm(*arguments)


__all__ = ["CompiledGraph", "GraphNotCompiled", "torch_tvm"]
