"""Ops without a lowering, as what PyTorch itself makes of them: ``kron`` is a product of two views.

An op is replaced where all that its decomposition needs has a lowering, and left as it is otherwise.
"""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
import torch
from torch._decomp import core_aten_decompositions, decomposition_table
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from torch_tvm.aten.calls import callable_for, draws, is_random, overload_of, with_keywords
from torch_tvm.aten.decompositions import DECOMPOSITIONS, LAYERS
from torch_tvm.dialect import view
from torch_tvm.dialect.emitter import Emitter, dialect_name
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.types import DTYPE_OF_SCALAR_TYPE
from torch_tvm.importers.fx.graph import GraphWalk
from torch_tvm.importers.fx.program import import_aten_graph
from torch_tvm.importers.recording.recorder import Recorder
from torch_tvm.importers.size_conditions import assert_size
from torch_tvm.lowering import complex_parts
from torch_tvm.lowering.module import is_lowered, lower
from torch_tvm.passes.patterns.table import PATTERNS
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.support.errors import Refusal, TorchTvmError

Table = dict[Any, Callable[..., Any]]


def decompose(module: TorchModule, refused: Sequence[ir.Operation] = ()) -> bool:
    """Replace ops of a canonical module that have no lowering, in place; whether any was replaced.

    ``refused`` are those that have one which does not take their operands. What comes in their place is not canonical
    yet.
    """
    unknown = list(refused) or [op for op in view.walk(module.main) if not is_lowered(op)]
    found: dict[Hashable, GraphModule | None] = {}
    return any([_replace(module, op, found) for op in unknown if _may_be_replaced(module, op)])


def _may_be_replaced(module: TorchModule, op: ir.Operation) -> bool:
    name = view.op_name(op)
    if overload_of(name) is None or _draws(op) or not module.admits(name):
        return False
    return all(view.tensor_type(value) is not None for result in op.results for value in _tensors(result))


def _draws(op: ir.Operation) -> bool:
    """Whether an op takes numbers from a generator, which its parts would not; those of a recurrent layer do, with its
    dropout among them.
    """
    name = view.op_name(op)
    if name.endswith(".input"):
        return False
    overload = overload_of(name)
    if overload is None or torch.Tag.nondeterministic_seeded not in overload.tags:
        return is_random(name)
    given = [view.constant(value) if view.is_constant(value) else ... for value in op.operands]
    return draws(overload, given, {})


def _tensors(result: ir.Value) -> list[ir.Value]:
    """A result, or the tensors in a list, where all that is done with it is to unpack it."""
    users = [use.owner for use in result.uses]
    if users and all(user.name == "torch.prim.ListUnpack" for user in users):
        return list(users[0].results)
    return [result]


def _replace(module: TorchModule, op: ir.Operation, found: dict[Hashable, GraphModule | None]) -> bool:
    """Put the parts of ``op`` in its place; ``found`` has those of ops like it."""
    given: list[ir.Value] = []
    try:
        operands = _as_python(view.op_name(op), [_operand(value, given) for value in op.operands])
    except Refusal:
        return False
    name = view.op_name(op)
    key = (name, repr(operands), *(str(value.type) for value in given))
    if key not in found:
        found[key] = _lowered_parts(name, operands, given)
    parts = found[key]
    if parts is None:
        return False
    block, values = _emitted(module, op, given, parts)
    results = [value for result in op.results for value in _tensors(result)]
    fits = [value.type for value in values] == [result.type for result in results]
    if fits:
        outer = dict(zip(block.arguments, given, strict=True))
        values = [outer.get(value, value) for value in values]  # ``real(x)`` is x: the arguments go with the block
        for argument, value in outer.items():
            argument.replace_all_uses_with(value)
        for inner in list(block.operations):
            inner.operation.move_before(op)
        unpacked = [use.owner for result in op.results for use in result.uses if result not in results]
        for result, value in zip(results, values, strict=True):
            result.replace_all_uses_with(value)
        for each in unpacked:
            for result, value in zip(each.results, values, strict=True):
                result.replace_all_uses_with(value)
            each.erase()
        op.erase()
    block.owner.erase()
    return fits


# -- what PyTorch makes of an op -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """Stands for the tensor, or number of the running program, with this index among those that an op reads."""

    index: int


def _as_python(name: str, operands: list[Any]) -> list[Any]:
    """Operands as Python functions take them: a dtype for its number, and a device where the op has none."""
    found = overload_of(name)
    types = [str(argument.real_type) for argument in found._schema.arguments] if found is not None else []
    given = list(operands)
    for index, (kind, operand) in enumerate(zip(types, operands, strict=False)):
        if "Device" in kind and operand is None:
            given[index] = torch.device("cpu")
        if "ScalarType" in kind and isinstance(operand, int):
            given[index] = DTYPE_OF_SCALAR_TYPE[operand]
    return given


def _operand(value: ir.Value, given: list[ir.Value]) -> Any:
    """An operand as Python has it; tensors and computed numbers are added to ``given``. Raises :class:`Refusal`."""
    if view.is_constant(value):
        return view.constant(value)
    if view.tensor_type(value) is not None or str(value.type) in _SYMBOLS:
        given.append(value)
        return _Given(len(given) - 1)
    made = view.defining_op(value)
    if made is not None and made.name == "torch.derefine":
        return _operand(made.operands[0], given)
    if made is not None and made.name == "torch.prim.ListConstruct":
        return [_operand(item, given) for item in made.operands]
    raise Refusal("an operand is computed while the program runs")


def _lowered_parts(name: str, operands: Sequence[Any], given: Sequence[ir.Value]) -> GraphModule | None:
    """The parts of an op as a function of what it is given, if PyTorch has some that are all lowered."""
    dtypes = [kind.dtype for value in given if (kind := view.tensor_type(value)) is not None]
    is_complex = any(dtype is not None and dtype.is_complex for dtype in dtypes)
    # Among the parts of a complex op are real ones too, such as masks.
    stay = [complex_parts.is_lowered, is_lowered] if is_complex else [is_lowered]
    for table in itertools.chain.from_iterable(_tables(name, each) for each in stay):
        try:
            parts = _traced(name, operands, given, table)
            trial = canonicalize(import_aten_graph(parts))
            if all(is_lowered(part) for part in view.walk(trial.main)) and not lower(trial).fallbacks:
                return parts
        except (Refusal, TorchTvmError):
            continue
    return None


def _traced(name: str, operands: Sequence[Any], given: Sequence[ir.Value], table: Table) -> GraphModule:
    function = _written_out(name)

    def call(*tensors: torch.Tensor) -> Any:
        take = lambda item: tensors[item.index] if isinstance(item, _Given) else item
        return function(*pytree.tree_map(take, list(operands)))

    sizes = ShapeEnv(specialize_zero_one=False, duck_shape=False)
    try:
        with FakeTensorMode(shape_env=sizes), torch.no_grad():
            with sizes.ignore_fresh_unbacked_symbols():
                fakes = [_fake(sizes, value) for value in given]
            known = _asserted(sizes)
            places = _places(fakes)
            parts = make_fx(torch.func.functionalize(call, remove="mutations"), table)(*fakes)
    except Exception as error:  # whatever a decomposition raises for sizes or values that it cannot take
        raise Refusal(f"PyTorch cannot decompose it: {error}") from error
    parts.meta[_CONDITIONS] = [
        _of_places(condition, places) for condition in _asserted(sizes) if condition not in known
    ]
    _drop_singular_vectors(parts)
    return parts


def _drop_singular_vectors(parts: GraphModule) -> None:
    """Values alone where nobody reads the vectors: for fake tensors ``svdvals`` asks for both.

    Vectors cost time, and a matrix with NaN has none.
    """
    for node in parts.graph.nodes:
        if node.target is torch.ops.aten._linalg_svd.default and all(
            user.target is operator.getitem and (user.args[1] == 1 or not user.users) for user in node.users
        ):
            node.args = (node.args[0], False, False)


_CONDITIONS = "torch_tvm.conditions"
"""What a decomposition asks of its operands: conditions on symbols that are named ``operand.axis``."""

_Place = tuple[int, int]


def _places(fakes: Sequence[Any]) -> dict[Any, _Place]:
    """Where each symbol of a size is the size of an operand."""
    return {
        size.node.expr: (index, axis)
        for index, fake in enumerate(fakes)
        if isinstance(fake, torch.Tensor)
        for axis, size in enumerate(fake.shape)
        if isinstance(size, torch.SymInt)
    }


def _asserted(sizes: ShapeEnv) -> list[Any]:
    """The conditions on sizes under which a decomposition holds: guards, and assertions for run time."""
    later = [each.expr for asserts in sizes.deferred_runtime_asserts.values() for each in asserts]
    return [*(guard.expr for guard in sizes.guards), *later]


def _of_places(condition: Any, places: Mapping[Any, _Place]) -> Any:
    """A condition on the sizes of operands, each of which is named by where it is."""
    if not condition.free_symbols <= set(places):
        raise Refusal("PyTorch's decomposition of it holds for some values only")
    names = {symbol: sympy.Symbol("{}.{}".format(*places[symbol]), integer=True) for symbol in condition.free_symbols}
    return condition.xreplace(names)


_SYMBOLS: dict[str, Callable[[ShapeEnv], Any]] = {
    "!torch.float": ShapeEnv.create_unbacked_symfloat,
    "!torch.int": ShapeEnv.create_unbacked_symint,
}
"""What stands for a number that only the run knows, by its type."""


def _written_out(name: str) -> Callable[..., Any]:
    """The op as a function of its operands; one that dispatch would not find a decomposition of, as that."""
    overload = overload_of(name)
    assert overload is not None
    custom = OPDEFS.get(overload._schema.name) if overload.namespace in _IN_PYTHON else None
    function = custom._init_fn if custom is not None else DECOMPOSITIONS.get(overload)
    return callable_for(name) if function is None else with_keywords(overload, function)


_IN_PYTHON = ("torch_nn", "transformers")
"""Libraries whose custom ops are Python functions that do nothing but compute; those of others may do anything."""


def _fake(sizes: ShapeEnv, value: ir.Value) -> Any:
    """What stands for a value while an op is taken apart: nobody can ask for what only the run knows."""
    symbol = _SYMBOLS.get(str(value.type))
    if symbol is not None:
        return symbol(sizes)
    kind = view.tensor_type(value)
    if kind is None or kind.dtype is None or kind.shape is None:
        raise Refusal("the rank of a tensor is unknown")
    return torch.empty([_size(sizes) if n is None else n for n in kind.shape], dtype=kind.dtype)


def _size(sizes: ShapeEnv) -> torch.SymInt:
    size = sizes.create_unbacked_symint()
    torch._check(size >= 0)
    return size


def _tables(name: str, is_lowered: Callable[[str], bool] = is_lowered) -> Iterator[Table]:
    """PyTorch's decompositions of what has no lowering, and of this op: those written in ATen, and all.

    The others are written in primitives that have no lowering themselves, but for some of them.
    """
    every = _decompositions()
    is_aten = lambda function: not inspect.unwrap(function).__module__.startswith("torch._refs")
    known = {o: f for o, f in every.items() if dialect_name(o) == name or not is_lowered(dialect_name(o))}
    yield {overload: function for overload, function in known.items() if is_aten(function)}
    # What has a pattern is spelled otherwise: a reference of it in terms of a primitive would be one of itself.
    yield {o: f for o, f in known.items() if dialect_name(o) == name or dialect_name(o) not in PATTERNS}


@lru_cache(maxsize=1)
def _decompositions() -> Table:
    every = {**decomposition_table, **core_aten_decompositions(), **DECOMPOSITIONS}
    return {overload: f for overload, f in every.items() if isinstance(overload, torch._ops.OpOverload)}


@lru_cache(maxsize=1)
def traced_decompositions() -> Table:
    """For ops that PyTorch takes apart while it traces a graph, where sizes may vary: those for gradients that have no
    lowering, before a forward and a backward graph are cut from the joint one, and whole layers.
    """
    every = _decompositions().items()
    found = {o: f for o, f in every if "backward" in o.name() and not is_lowered(dialect_name(o))}
    return {**found, **LAYERS}


def has_decomposition(name: str) -> bool:
    """Whether there is a function for an op of this name, or a pattern of the dialect."""
    return overload_of(name) in _decompositions() or name in PATTERNS


# -- in the place of the op ----------------------------------------------------------------------------


class _Walk(GraphWalk):
    """A walk whose nodes are all at the line of the op that they replace."""

    def _record(self, node: Node) -> None:
        self.env[node] = self._call(node)


def _emitted(
    module: TorchModule, op: ir.Operation, given: Sequence[ir.Value], parts: GraphModule
) -> tuple[ir.Block, list[ir.Value]]:
    """The parts as operations of a block of their own, with an argument for each tensor, and their results."""
    emitter = Emitter(module.mlir, module.weights)
    emitter.location = op.location
    _, block = emitter.function("decomposed", [value.type for value in given])
    with emitter.block(block):
        recorder = Recorder(emitter)
        metas = [node.meta["val"] for node in parts.graph.nodes if node.op == "placeholder"]
        arguments = [
            recorder.tensor(value, meta) if isinstance(meta, torch.Tensor) else value
            for value, meta in zip(block.arguments, metas, strict=True)
        ]
        _assert_conditions(emitter, block, parts)
        outputs = _Walk(recorder, parts).run(arguments)
        values = [recorder.read(output) for output in pytree.tree_leaves(outputs)]
    return block, values


def _assert_conditions(emitter: Emitter, block: ir.Block, parts: GraphModule) -> None:
    """What the parts ask of the sizes of operands, which an importer has asked of them already where it knows them."""
    integer = emitter.types.parse("!torch.int")

    def size(symbol: sympy.Symbol) -> ir.Value:
        index, axis = map(int, symbol.name.split("."))
        operands = [block.arguments[index], emitter.constant(axis)]
        return emitter.op("torch.aten.size.int", operands, [integer]).result

    for condition in parts.meta.get(_CONDITIONS, ()):
        assert_size(emitter, condition, size, "the sizes of operands do not fit")
