"""Which of the program's ops, and which of the user's lines, a kernel comes from; and what memory a call takes.

Nothing of this travels through the compiler: kernels are found again by what they read. A kernel that reads what was
packed of ``conv1.weight`` computes the ops that use ``conv1.weight``; one without weights is between those before and
after it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm
from tvm import relax, tirx

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.reporting.findings import Findings, Kernel, Memory, Op, Origin
from torch_tvm.schedules.rule import KernelDecision
from torch_tvm.support.attributes import PROGRAM, TRANSFORM_PARAMS
from torch_tvm.support.errors import bug_of

_SILENT = (
    "torch.constant.",
    "torch.prim.ListConstruct",
    "torch.prim.TupleConstruct",
    "torch.vtensor.literal",
    "func.",
)
_NAMES = {
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv", "conv_transpose2d": "conv", "linear": "matmul",
    "mm": "matmul", "bmm": "matmul", "addmm": "matmul", "baddbmm": "matmul",
    "scaled_dot_product_attention": "attention", "view": "reshape", "permute": "transpose", "slice": "slice",
    "select": "take", "embedding": "take", "sub": "subtract", "mul": "multiply", "div": "divide", "to": "cast",
    "cat": "concat", "index_select": "take", "adaptive_avg_pool2d": "mean",
}  # fmt: skip
"""What ops are called in names of kernels, where that is not their own name."""


@dataclass
class _Call:
    """A call of a kernel: the weights that it reads, and the sizes of what it makes."""

    kernel: str
    weights: frozenset[str]
    packed: list[tuple[str, str, str]]
    result: str
    ops: set[int] = field(default_factory=set)
    is_exact: bool = True


def note_ops(report: Findings, module: TorchModule) -> None:
    """Fill in the ops of the canonical module; as :func:`explain` does, it never fails a compile."""
    try:
        report.ops = ops_of(module)
    except Exception as error:
        report.unexplained = bug_of(error)


def ops_of(module: TorchModule) -> list[Op]:
    """The operations of a canonical module that compute something, in order."""
    found = []
    for operation in view.walk(module.main):
        name = view.op_name(operation)
        if name.startswith(_SILENT) or not name.startswith("torch."):
            continue
        place = view.location(operation)
        kinds = [view.tensor_type(value) for value in operation.results]
        results = ", ".join(_described(kind.shape, kind.dtype) for kind in kinds if kind is not None)
        if results or not operation.results:
            weights = tuple(dict.fromkeys(_weights_of(operation)))
            found.append(Op(name.removeprefix("torch."), place.file, place.line, place.scope, results, weights))
    return found


def _weights_of(operation: Any) -> Iterator[str]:
    for operand in operation.operands:
        source = view.defining_op(operand)
        if source is None or view.op_name(source) != "torch.vtensor.literal":
            continue
        name = view.resource_name(source)
        if name is not None:
            yield name


def _described(shape: Sequence[int | None] | None, dtype: torch.dtype | None) -> str:
    sizes = "?" if shape is None else ", ".join("?" if size is None else str(size) for size in shape)
    return f"{str(dtype).removeprefix('torch.')}[{sizes}]"


# -- kernels -----------------------------------------------------------------------------------------------


def explain(
    report: Findings,
    mod: tvm.IRModule,
    decisions: Sequence[KernelDecision],
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Fill in kernels and memory. What fails here is said in the report: the program itself is compiled."""
    origins: dict[str, Origin] = {}
    try:
        origins, report.memory = origins_of(mod, report.ops, weights)
    except Exception as error:
        report.unexplained = bug_of(error)
    report.kernels = [
        Kernel(each.kernel, each.rule, dict(each.refusals), origins.get(each.kernel, Origin())) for each in decisions
    ]


def origins_of(
    mod: tvm.IRModule, ops: Sequence[Op], weights: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Origin], Memory]:
    """Of a scheduled module: the origin of each kernel, and the memory of a call."""
    names = list(weights)
    calls = list(_calls(mod, names, weights))
    _match_weights(calls, ops)
    _fill_between(calls, ops)
    found: dict[str, Origin] = {}
    for call in calls:
        before = found.get(call.kernel, Origin())
        packed = [item for item in call.packed if item not in before.packed]
        found[call.kernel] = Origin(
            ops=sorted({*before.ops, *call.ops}),
            is_exact=(before.is_exact or not before.calls) and call.is_exact,
            calls=before.calls + 1,
            result=call.result if not before.calls or call.result == before.result else before.result,
            packed=[*before.packed, *packed],
        )
    return found, _memory(mod, weights)


def _calls(mod: tvm.IRModule, names: Sequence[str], weights: Mapping[str, torch.Tensor]) -> Iterator[_Call]:
    read = _packed_of(mod, names)
    for gvar, function in mod.functions_items():
        if not isinstance(function, relax.Function) or gvar.name_hint == TRANSFORM_PARAMS:
            continue
        env: dict[Any, tuple[frozenset[str], bool]] = {}
        if gvar.name_hint == "main":
            count = int(function.attrs["num_input"]) if function.attrs and "num_input" in function.attrs else 0
            lone = function.params[count:]
            if len(lone) == len(names) and not (len(lone) == 1 and isinstance(lone[0].ty, relax.TupleType)):
                env |= {param: (frozenset([name]), False) for param, name in zip(lone, names, strict=True)}
            bundle = lone[0] if len(lone) == 1 and isinstance(lone[0].ty, relax.TupleType) else None
        else:
            bundle = None
        for binding in _bindings(function.body):
            value = binding.value
            if isinstance(value, relax.TupleGetItem) and bundle is not None and value.tuple_value.same_as(bundle):
                found = read[value.index] if value.index < len(read) else frozenset()
                env[binding.var] = (found, True)
            elif isinstance(value, relax.Var):
                env[binding.var] = env.get(value, (frozenset(), False))
            elif isinstance(value, relax.Call) and _called(value):
                yield _call(mod, binding.var, value, env, weights)


def _called(value: relax.Call) -> bool:
    return getattr(value.op, "name", "") in ("relax.call_tir", "relax.call_tir_inplace")


def _call(
    mod: tvm.IRModule,
    var: relax.Var,
    value: relax.Call,
    env: Mapping[Any, tuple[frozenset[str], bool]],
    weights: Mapping[str, torch.Tensor],
) -> _Call:
    used: set[str] = set()
    packed = []
    arguments = value.args[1].fields if isinstance(value.args[1], relax.Tuple) else []
    for argument in arguments:
        names, is_packed = env.get(argument, (frozenset(), False))
        used |= names
        after = _type_text(argument.ty)
        if is_packed and names:  # what was folded into a weight is smaller
            name = max(sorted(names), key=lambda each: weights[each].numel())
            before = _described(list(weights[name].shape), weights[name].dtype)
            if weights[name].dim() > 1 and before != after:  # a vector only has its axis elsewhere
                packed.append((name, before, after))
    return _Call(value.args[0].name_hint, frozenset(used), packed, _type_text(var.ty))


def _type_text(kind: Any) -> str:
    if isinstance(kind, relax.TupleType):
        return ", ".join(_type_text(each) for each in kind.fields)
    shape = getattr(kind, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return str(getattr(kind, "dtype", kind))
    sizes = (str(int(size)) if isinstance(size, tirx.IntImm) else str(size) for size in shape.values)
    return f"{kind.dtype}[{', '.join(sizes)}]"


def _bindings(body: Any) -> Iterator[relax.VarBinding]:
    """Bindings in order, those of branches where the condition stands."""
    for block in body.blocks if isinstance(body, relax.SeqExpr) else ():
        for binding in block.bindings:
            if not isinstance(binding, relax.VarBinding):
                continue
            if isinstance(binding.value, relax.If):
                yield from _bindings(binding.value.true_branch)
                yield from _bindings(binding.value.false_branch)
            yield binding


def _packed_of(mod: tvm.IRModule, names: Sequence[str]) -> list[frozenset[str]]:
    """Of each tensor that ``main`` is given: the weights that it is made of."""
    if mod.attrs and PROGRAM in mod.attrs:
        program = json.loads(str(mod.attrs[PROGRAM]))
        values: list[frozenset[str]] = [frozenset([name]) for name in names]
        for _, operands, _attributes in program["steps"]:
            values.append(frozenset().union(*(values[o[0]] for o in operands if isinstance(o, list))))
        results = program["results"]
        return [values[item[0]] if isinstance(item, list) else frozenset() for item in results]
    found = [g for g in mod.get_global_vars() if g.name_hint == TRANSFORM_PARAMS]
    if not found:
        return []
    function = mod[found[0]]
    env: dict[Any, frozenset[str]] = {}
    last: Sequence[Any] = ()
    for binding in _bindings(function.body):
        value = binding.value
        if isinstance(value, relax.TupleGetItem) and value.tuple_value.same_as(function.params[0]):
            env[binding.var] = frozenset([names[value.index]]) if value.index < len(names) else frozenset()
            continue
        if isinstance(value, relax.Tuple):
            last = value.fields
        used: list[Any] = []
        relax.analysis.post_order_visit(value, used.append)
        env[binding.var] = frozenset().union(
            *(env[node] for node in used if isinstance(node, relax.Var) and node in env)
        )
    if isinstance(function.body.body, relax.Tuple):
        last = function.body.body.fields
    return [env.get(item, frozenset()) for item in last]


# -- matching ----------------------------------------------------------------------------------------------


def _match_weights(calls: Sequence[_Call], ops: Sequence[Op]) -> None:
    """Give each call the ops that use its weights; the n-th of several calls with a weight gets its n-th use."""
    users: dict[str, list[int]] = {}
    readers: dict[str, list[int]] = {}
    for index, each in enumerate(ops):
        for name in each.weights:
            users.setdefault(name, []).append(index)
    for index, call in enumerate(calls):
        for name in call.weights:
            readers.setdefault(name, []).append(index)
    for name, reading in readers.items():
        using = users.get(name, [])
        if len(reading) == len(using):
            for index, op in zip(reading, using, strict=True):
                calls[index].ops.add(op)
        else:
            for index in reading:
                calls[index].ops |= set(using)
                calls[index].is_exact &= len(reading) == 1


def _fill_between(calls: Sequence[_Call], ops: Sequence[Op]) -> None:
    """Give ops without weights to the calls around them: by name first, else to all that could be meant."""
    taken = set().union(*(call.ops for call in calls)) if calls else set()
    anchors = [index for index, call in enumerate(calls) if call.ops]
    bounds = [-1, *anchors, len(calls)]
    for before, after in itertools.pairwise(bounds):
        low = max(calls[before].ops) + 1 if before >= 0 else 0
        high = min(calls[after].ops) if after < len(calls) else len(ops)
        free = [op for op in range(low, max(low, high)) if op not in taken]
        lone = list(calls[before + 1 : after])
        around = [
            *([calls[before]] if before >= 0 else []),
            *lone,
            *([calls[after]] if after < len(calls) else []),
        ]
        start = 0
        for op in free:  # both go forward
            fitting = [i for i in range(start, len(around)) if _fits(ops[op], around[i].kernel)]
            if fitting:
                around[fitting[0]].ops.add(op)
                start = fitting[0]
        for call in lone:
            if not call.ops:
                call.ops, call.is_exact = set(free), False


def _fits(op: Op, kernel: str) -> bool:
    name = op.name.removeprefix("aten.").removeprefix("prims.").partition(".")[0].strip("_")
    words = re.sub(r"\d+(?=_|$)", "", kernel)
    return bool(re.search(rf"(^|_){re.escape(_NAMES.get(name, name))}($|_)", words))


# -- memory ------------------------------------------------------------------------------------------------


def _memory(mod: tvm.IRModule, weights: Mapping[str, torch.Tensor]) -> Memory:
    """Bytes of weights, of all tensors that a call makes, and of those that live at the same time at most."""
    main = mod["main"]
    originals = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    count = int(main.attrs["num_input"]) if main.attrs and "num_input" in main.attrs else 0
    packed = sum(_bytes(param.ty) for param in main.params[count:])
    bindings = list(_bindings(main.body))
    made: dict[Any, int] = {}
    last: dict[Any, int] = {}
    roots: dict[Any, Any] = {}
    for index, binding in enumerate(bindings):
        value = binding.value
        if isinstance(value, relax.Call) and (_called(value) or "packed" in getattr(value.op, "name", "")):
            made[binding.var] = _bytes(binding.var.ty)
        used: list[Any] = []
        relax.analysis.post_order_visit(value, used.append)
        for node in used:
            if isinstance(node, relax.Var):
                last[roots.get(node, node)] = index
        if isinstance(value, relax.Var):
            roots[binding.var] = roots.get(value, value)
        elif isinstance(value, relax.Call) and getattr(value.op, "name", "") in (
            "relax.reshape",
            "relax.memory.view",
        ):
            roots[binding.var] = roots.get(value.args[0], value.args[0])
    freed: dict[int, int] = {}
    for var, size in made.items():
        if var in last:
            freed[last[var]] = freed.get(last[var], 0) + size
    live = peak = 0
    for index, binding in enumerate(bindings):
        live += made.get(binding.var, 0)
        peak = max(peak, live)
        live -= freed.get(index, 0)
    is_known = all(size >= 0 for size in made.values()) and packed >= 0
    return Memory(originals, packed, sum(made.values()), peak) if is_known else Memory(originals)


def _bytes(kind: Any) -> int:
    """Bytes of a tensor or a tuple of some; less than nothing where a size is unknown."""
    if isinstance(kind, relax.TupleType):
        return sum(_bytes(each) for each in kind.fields)
    shape = getattr(kind, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return -(1 << 60)
    count = 1
    for size in shape.values:
        if not isinstance(size, tirx.IntImm):
            return -(1 << 60)
        count *= int(size)
    return (count * tvm.DataType(str(kind.dtype)).bits + 7) // 8


__all__ = ["explain", "note_ops", "ops_of", "origins_of"]
