"""The walk over an ATen-level FX graph: one path for every op, by its schema."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from torch_tvm.dialect import locations
from torch_tvm.dialect.emitter import MAX_INT
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.fx.dense_forms import dense_form, has_dense_form
from torch_tvm.importers.recording.recorder import Recorder
from torch_tvm.importers.recording.storages import LiteralStorage, TensorRef
from torch_tvm.importers.torchscript.scalars import Scalars
from torch_tvm.importers.torchscript.values import Scalar
from torch_tvm.importers.user_code import OURS, TORCH
from torch_tvm.support.errors import ImportFailed, SourceLocation, TorchTvmError

aten = torch.ops.aten

_ASSERTIONS = ("assert_scalar", "assert_async", "sym_constrain_range", "sym_constrain_range_for_size")

_SCALAR_OPS: dict[Any, str] = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.floordiv: "floordiv",
    operator.mod: "remainder",
    operator.truediv: "div",
    operator.pow: "pow",
    operator.neg: "neg",
    operator.eq: "eq",
    operator.ne: "ne",
    operator.lt: "lt",
    operator.le: "le",
    operator.gt: "gt",
    operator.ge: "ge",
    operator.abs: "abs",
    operator.and_: "and",
    operator.or_: "or",
    operator.xor: "xor",
    operator.lshift: "lshift",
    operator.rshift: "rshift",
    math.ceil: "ceil",
    math.floor: "floor",
    math.trunc: "Int",
    torch.sym_max: "max",
    torch.sym_min: "min",
    torch.sym_float: "Float",
    torch.sym_int: "Int",
    torch.sym_not: "__not__",
    torch.sym_sqrt: "sqrt",
    round: "round",
    **{
        getattr(torch, f"_sym_{name}"): name
        for name in "acos asin atan ceil cos cosh exp floor log2 sin sinh sqrt tan tanh trunc".split()
        if hasattr(torch, f"_sym_{name}")
    },
}

_KINDS = {
    torch.SymInt: "int",
    torch.SymFloat: "float",
    torch.SymBool: "bool",
    int: "int",
    float: "float",
    bool: "bool",
}


class GraphWalk:
    """Records the nodes of a graph module; ``env`` maps a node to a ``TensorRef``, a value or a list."""

    def __init__(self, recorder: Recorder, module: GraphModule, importer: str = "fx") -> None:
        self.recorder = recorder
        self.emitter = recorder.emitter
        self.module = module
        self.importer = importer
        self.env: dict[Node, Any] = {}
        self.attributes: dict[int, tuple[str, torch.Tensor, TensorRef]] = {}
        self.scalars = Scalars(self)
        self._symbols = ShapeEnv()

    def run(self, inputs: Sequence[Any]) -> Any:
        """Bind the placeholders, record every node, return what the output node gives."""
        remaining = iter(inputs)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.env[node] = next(remaining)
            elif node.op == "get_attr":
                self.env[node] = self._attribute(node)
            elif node.op == "output":
                return self._lookup(node.args[0])
            else:
                self._record(node)
        raise ImportFailed("the graph has no output node")

    def _record(self, node: Node) -> None:
        location = _place(node, self.importer)
        self.emitter.location = locations.to_mlir(location, self.emitter.context)
        try:
            self.env[node] = self._call(node)
        except TorchTvmError as error:
            if error.location is None:
                raise type(error)(
                    error.problem,
                    subject=error.subject,
                    location=location,
                    stage=error.stage,
                    advice=error.advice,
                ) from error
            raise

    def _lookup(self, item: Any) -> Any:
        return torch.fx.node.map_arg(item, lambda node: self.env[node])

    def _attribute(self, node: Node) -> Any:
        value = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            name, meta = str(node.target), node.meta.get("val", value)
            if id(value) not in self.attributes:
                ref = self.recorder.whole(LiteralStorage(self.emitter, value, name, meta))
                ref.storage.depth = 0
                self.attributes[id(value)] = (name, value, ref)
            return self.attributes[id(value)][2]
        return value

    # -- nodes -----------------------------------------------------------------------------------------

    def _call(self, node: Node) -> Any:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            return self._aten(node, target)
        if target is operator.getitem:
            return self._lookup(node.args[0])[self._lookup(node.args[1])]
        if isinstance(target, torch._ops.HigherOrderOperator):
            handler = _HIGHER_ORDER.get(target.name())
            if handler is not None:
                return handler(self, node)
            if has_dense_form(target):
                return self._dense(node)
        elif target in _SCALAR_OPS:
            return self._scalar(node, _SCALAR_OPS[target])
        elif target is torch.sym_sum:
            return self._sum(self._lookup(node.args[0]))
        elif target is torch.sym_ite:
            return self._choice(node)
        name = getattr(target, "__name__", str(target))
        raise ImportFailed(
            f"a graph at ATen level cannot call '{name}'",
            advice="pass the nn.Module, or an ExportedProgram, so that it is exported to ATen first",
        )

    def _aten(self, node: Node, overload: torch._ops.OpOverload) -> Any:
        name = overload._schema.name.split("::")[1]
        if name == "_assert_tensor_metadata":
            return None
        args, kwargs = self._lookup(list(node.args)), self._lookup(dict(node.kwargs))
        if name.removeprefix("_functional").removeprefix("_") in _ASSERTIONS:
            given = {a.name: v for a, v in zip(overload._schema.arguments, args, strict=False)} | kwargs
            self._demand(name, given)
            return given.get("dep_token")
        meta = node.meta.get("val")
        if name == "sym_size":
            return self._size(args[0], args[1], meta)
        if name == "sym_storage_offset" and all(map(_asks_for_a_sign, node.users)):
            return 0  # PyTorch asserts that where a slice starts is not below zero
        if name == "sym_numel":
            return self._count(args[0], meta)
        if name in ("_local_scalar_dense", "item"):
            kind = _KINDS.get(type(meta))
            if kind is None:
                raise ImportFailed("a scalar of unknown kind", subject="torch.aten.item")
            return self._scalar_call(f"{kind.capitalize()}.Tensor", [self.recorder.read(args[0])], meta)
        returns = len(overload._schema.returns)
        metas = [meta] if returns == 1 else list(meta) if meta is not None else []
        results = self.recorder.call(overload, args, kwargs, metas)
        return results[0] if returns == 1 else results

    def _demand(self, name: str, given: Mapping[str, Any]) -> None:
        """A condition or a range that the program wants of a value, as ``torch.runtime.assert``."""
        if "assert" in name:
            message = given.get("assert_msg") or "an assertion of the program failed"
            self._assert(self._condition(given["self"]), message)
            return
        size, low, high = given["size"], given.get("min"), given.get("max")
        low = 0 if low is None and name.endswith("for_size") else low
        for stem, limit in (("ge", low), ("le", high)):
            if limit is not None:
                fits = self._scalar_call(f"{stem}.int", [size, limit], True)
                self._assert(fits, f"the program allows values from {low} to {high}")

    def _assert(self, condition: ir.Value, message: str) -> None:
        message = re.sub(r" on node '\w+'$", "", message)
        attributes = {"message": ir.StringAttr.get(message, self.emitter.context)}
        self.emitter.op("torch.runtime.assert", [condition], [], attributes)

    def _size(self, ref: TensorRef, axis: int, meta: Any) -> Any:
        if isinstance(meta, int):
            return meta
        return self.emitter.call(aten.size.int, (self.recorder.read(ref), axis), {}, [meta])[0]

    def _count(self, ref: TensorRef, meta: Any) -> Any:
        """The number of elements, as the product of the sizes."""
        count: Any = 1
        for axis, size in enumerate(ref.meta.shape):
            factor = self._size(ref, axis, size)
            is_known = isinstance(count, int) and isinstance(factor, int)
            if is_known or (isinstance(count, int) and count == 1):
                count = count * factor if is_known else factor
            else:
                count = self._scalar_call("mul.int", [count, factor], meta)
        return count

    def _scalar(self, node: Node, stem: str) -> Any:
        operands = [self._lookup(argument) for argument in node.args]
        if not any(isinstance(operand, ir.Value) for operand in operands):
            return node.target(*operands)
        if node.target is round and operands[1:] == [None]:  # what ``round(x)`` is traced as
            operands.pop()
        numbers = [self._number(operand) for operand in operands]
        found, kind = self.scalars.apply(stem, numbers), _KINDS.get(type(node.meta.get("val")))
        found = self.scalars.convert(found, kind) if kind else found
        return found.value if isinstance(found, Scalar) else found

    def _number(self, item: Any) -> Any:
        if not isinstance(item, ir.Value):
            return item
        kind = str(item.type).removeprefix("!torch.")
        return Scalar(kind, item, self.new_symbol() if kind == "int" else None)

    def new_symbol(self) -> torch.SymInt:
        """What stands for a number of which nothing is known."""
        return self._symbols.create_unbacked_symint()

    def failure(
        self, problem: str, *, subject: str = "", advice: str = "", origin: frozenset[int] = frozenset()
    ) -> Exception:
        """An error at the node that is being recorded."""
        return ImportFailed(problem, subject=subject, advice=advice)

    def _sum(self, items: Sequence[Any]) -> Any:
        """``torch.sym_sum`` of integers."""
        return functools.reduce(lambda a, b: self._scalar_call("add.int", [a, b], 0), items)

    def _choice(self, node: Node) -> Any:
        """``torch.sym_ite``: one number or the other."""
        predicate, *values = (self._lookup(argument) for argument in node.args)
        kind = self.emitter._result_type(node.meta["val"])
        operation = self.emitter.op("torch.prim.If", [self._condition(predicate)], [kind], regions=2)
        for region, value in zip(operation.regions, values, strict=True):
            with self.emitter.block(region.blocks.append()):
                given = value if isinstance(value, ir.Value) else self.emitter.constant(value)
                self.emitter.op("torch.prim.If.yield", [given], [])
        return operation.result

    def _scalar_call(self, name: str, operands: Sequence[Any], meta: Any) -> Any:
        prefix = "prim" if name.split(".")[0] in ("max", "min") else "aten"
        values = [v if isinstance(v, ir.Value) else self.emitter.constant(v) for v in operands]
        kind = self.emitter._result_type(meta if meta is not None else 0)
        return self.emitter.op(f"torch.{prefix}.{name}", values, [kind]).result

    # -- higher-order ops --------------------------------------------------------------------------------

    def _inlined(self, submodule: GraphModule, inputs: Sequence[Any]) -> Any:
        walk = GraphWalk(self.recorder, submodule, self.importer)
        walk.attributes = self.attributes
        return walk.run(inputs)

    def _condition(self, item: Any) -> ir.Value:
        if isinstance(item, TensorRef):
            return self.emitter.op(
                "torch.aten.Bool.Tensor",
                [self.recorder.read(item)],
                [self.emitter.types.parse("!torch.bool")],
            ).result
        return item if isinstance(item, ir.Value) else self.emitter.constant(bool(item))

    def _cond(self, node: Node) -> Any:
        predicate, on_true, on_false, operands = (self._lookup(argument) for argument in node.args)
        metas = list(node.meta["val"])
        operation = self.emitter.op(
            "torch.prim.If",
            [self._condition(predicate)],
            [self.emitter._result_type(meta) for meta in metas],
            regions=2,
        )
        for region, branch in zip(operation.regions, (on_true, on_false), strict=True):
            block = region.blocks.append()
            with self.emitter.block(block), self.recorder.region():
                results = self._inlined(branch, operands)
                values = [self._as_result(item, operation.results[i].type) for i, item in enumerate(results)]
                self.emitter.op("torch.prim.If.yield", values, [])
        return [self._from_value(v, meta) for v, meta in zip(operation.results, metas, strict=True)]

    def _as_result(self, item: Any, wanted: ir.Type) -> ir.Value:
        value = self.recorder.read(item) if isinstance(item, TensorRef) else item
        if not isinstance(value, ir.Value):
            value = self.emitter.constant(value)
        if value.type != wanted:
            value = self.emitter.op("torch.tensor_static_info_cast", [value], [wanted]).result
        return value

    def _from_value(self, value: ir.Value, meta: Any) -> Any:
        return self.recorder.tensor(value, meta) if isinstance(meta, torch.Tensor) else value

    def _while_loop(self, node: Node) -> Any:
        """``while_loop(cond, body, carried, captured)`` as ``prim.Loop`` whose condition is computed an iteration
        ahead.
        """
        carried = self._lookup(node.args[2])
        return self._loop(node, carried, list(node.meta["val"]), lambda carried, _: carried)

    def _while_loop_stack_output(self, node: Node) -> Any:
        """``while_loop`` that gives what it carried after each iteration, stacked; where it does not iterate, what it
        was given. The stacks are carried too, and begin with the latter.
        """
        carried, stacked = self._lookup(node.args[2]), list(node.meta["val"])
        row = lambda item: self.recorder.call(aten.unsqueeze.default, [item, 0], {}, [item.meta.unsqueeze(0)])[0]
        join = lambda stack, item: self.recorder.call(aten.cat.default, [[stack, row(item)], 0], {}, [stack.meta])[0]
        grown = lambda now, before: [*now, *map(join, before[len(now) :], now)]
        metas = [*(item.meta for item in carried), *stacked]
        stacks = self._loop(node, [*carried, *map(row, carried)], metas, grown)[len(carried) :]
        length = self._scalar_call("sub.int", [self._size(stacks[0], 0, stacks[0].meta.shape[0]), 1], 0)
        first = self._scalar_call("min.int", [length, 1], 0)
        return [
            self.recorder.call(aten.slice.Tensor, [stack, 0, first], {}, [meta])[0]
            for stack, meta in zip(stacks, stacked, strict=True)
        ]

    def _loop(self, node: Node, carried: Sequence[Any], metas: Sequence[Any], after: _Next) -> list[Any]:
        """The loop of a ``while_loop``, over ``carried``, the first of which are those of the body; ``after`` makes
        what is carried next of what the body gives and what was carried.
        """
        condition, body, own, captured = (self._lookup(argument) for argument in node.args)
        types = [self.emitter._result_type(meta) for meta in metas]
        first = self._condition(_single(self._inlined(condition, [*own, *captured])))
        initial = [self._as_result(item, kind) for item, kind in zip(carried, types, strict=True)]
        limit = self.emitter.constant(MAX_INT)
        operation = self.emitter.op("torch.prim.Loop", [limit, first, *initial], types, regions=1)
        here = self.emitter.location
        block = operation.regions[0].blocks.append(
            self.emitter.types.parse("!torch.int"), *types, arg_locs=[here] * (len(types) + 1)
        )
        with self.emitter.block(block), self.recorder.region():
            arguments = [self._from_value(v, m) for v, m in zip(list(block.arguments)[1:], metas, strict=True)]
            results = after(list(self._inlined(body, [*arguments[: len(own)], *captured])), arguments)
            finals = [self._as_result(item, kind) for item, kind in zip(results, types, strict=True)]
            again = [self._from_value(v, m) for v, m in zip(finals, metas, strict=True)]
            proceed = self._condition(_single(self._inlined(condition, [*again[: len(own)], *captured])))
            self.emitter.op("torch.prim.Loop.condition", [proceed, *finals], [])
        return [self._from_value(v, meta) for v, meta in zip(operation.results, metas, strict=True)]

    def _dense(self, node: Node) -> Any:
        """An operator without a form of its own: the ops of PyTorch's kernel for it, on these tensors."""
        given = self._lookup((list(node.args), dict(node.kwargs)))
        leaves, spec = pytree.tree_flatten(given)
        if any(isinstance(leaf, ir.Value) for leaf in leaves):
            raise ImportFailed(
                "this operator takes a number that only run time knows",
                subject=str(node.target),
                advice="compile for one size",
            )
        tensors = [leaf for leaf in leaves if isinstance(leaf, TensorRef)]
        metas = [leaf.meta for leaf in tensors]
        fakes = [leaf.meta if isinstance(leaf, TensorRef) else leaf for leaf in leaves]
        return self._inlined(dense_form(node, pytree.tree_unflatten(fakes, spec), metas), tensors)

    def _wrapped(self, node: Node) -> Any:
        """Regions that change no value in inference: autocast off, grad mode, checkpointing, hints."""
        arguments = [self._lookup(argument) for argument in node.args]
        position = next(i for i, item in enumerate(arguments) if isinstance(item, GraphModule))
        operands = [item for item in arguments[position + 1 :] if not isinstance(item, str)]  # a region's name
        return self._inlined(arguments[position], operands)


_Next = Callable[[list[Any], list[Any]], list[Any]]

_HIGHER_ORDER: dict[str, Callable[[GraphWalk, Node], Any]] = {
    "cond": GraphWalk._cond,
    "while_loop": GraphWalk._while_loop,
    "while_loop_stack_output": GraphWalk._while_loop_stack_output,
    "wrap_with_set_grad_enabled": GraphWalk._wrapped,
    "wrap_with_autocast": GraphWalk._wrapped,
    "wrap": GraphWalk._wrapped,
    "invoke_subgraph": GraphWalk._wrapped,
    "tag_activation_checkpoint": GraphWalk._wrapped,
}


def _asks_for_a_sign(node: Node) -> bool:
    return node.target is operator.ge and node.args[1] == 0


def _single(item: Any) -> Any:
    return item[0] if isinstance(item, (list, tuple)) else item


# -- locations -------------------------------------------------------------------------------------------

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_NOT_USERS = (TORCH, OURS, "torch/")


@lru_cache(maxsize=8192)
def _user_frame(stack_trace: str) -> tuple[str, int]:
    frames = [(file, int(line)) for file, line in _FRAME.findall(stack_trace)]
    own = [frame for frame in frames if not frame[0].startswith(_NOT_USERS)]
    return (own or frames or [("", 0)])[-1]


def _place(node: Node, importer: str) -> SourceLocation:
    """The location of a node; of an assertion that torch.export inserted, that of what it is about."""
    place = node_location(node, importer)
    if not any(name in str(node.target) for name in _ASSERTIONS):
        return place
    while (not place.file or place.file.startswith(_NOT_USERS)) and node.all_input_nodes:
        node = node.all_input_nodes[0]
        place = node_location(node, importer)
    return place


def node_location(node: Node, importer: str) -> SourceLocation:
    """The user's last frame, and the path of the innermost module."""
    file, line = _user_frame(node.meta.get("stack_trace") or "")
    stack = node.meta.get("nn_module_stack") or {}
    scope = ""
    if stack:
        entry = list(stack.values())[-1]
        scope = str(entry[0]) if isinstance(entry, tuple) else ""
        if "_empty_nn_module_stack" in scope:
            scope = ""
        scope = re.sub(r"^L\['\w+'\]\.?|\._modules\['(\w+)'\]", lambda m: m.group(1) or "", scope)
    return SourceLocation(file, line, scope, importer)


__all__ = ["GraphWalk", "node_location"]
