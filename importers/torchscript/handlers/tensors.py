"""Tensor ops: run on fake tensors for the type of their results, then recorded from their schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from torch_tvm.aten.decompositions import WITHOUT_QUESTIONS
from torch_tvm.aten.dtypes import SCALAR_DTYPE
from torch_tvm.dialect.emitter import dialect_name
from torch_tvm.importers.recording.functional_siblings import WITHOUT_SIBLING, functional_sibling
from torch_tvm.importers.recording.storages import LiteralStorage, TensorRef
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.sizes.demands import slice_sizes
from torch_tvm.importers.torchscript.values import (
    KnownTensor,
    ListValue,
    Maybe,
    ObjectValue,
    QuantizedValue,
    RuntimeText,
    Scalar,
    ScalarTensor,
    Stack,
    Uninitialized,
    origins,
)
from torch_tvm.support.errors import first_line

aten = torch.ops.aten

_SIZE_FROM_SCALARS = ("aten::arange", "aten::range", "aten::linspace", "aten::logspace")
KNOWN_ELEMENTS = 64


class _Plan:
    """What a schema says about passing arguments."""

    __slots__ = ("functional", "is_mutable", "names", "positional", "returns", "types", "written")

    def __init__(self, overload: torch._ops.OpOverload) -> None:
        schema = overload._schema
        self.positional = sum(not a.kwarg_only for a in schema.arguments)
        self.names = [a.name for a in schema.arguments]
        self.types = [_element_kind(a.type) for a in schema.arguments]
        self.returns = [str(r.type) for r in schema.returns]
        self.is_mutable = schema.is_mutable
        self.written = [
            index for index, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write
        ]
        self.functional: tuple[Any, dict[str, str]] | None = None


def _element_kind(schema_type: Any) -> str:
    while schema_type.kind() in ("OptionalType", "ListType"):
        schema_type = schema_type.getElementType()
    return schema_type.kind()


@lru_cache(maxsize=4096)
def _plan(overload: torch._ops.OpOverload) -> _Plan:
    plan = _Plan(overload)
    if plan.is_mutable and overload._schema.name not in WITHOUT_SIBLING:
        plan.functional = functional_sibling(overload)
    return plan


def call(ev: Context, overload: torch._ops.OpOverload, args: list[Any], metas: list[Any] | None = None) -> Any:
    """Record one op on TorchScript values and return its result as TorchScript values.

    ``metas``, fake tensors like its results, spare the run on fake tensors.
    """
    known = None if overload._schema.is_mutable else _fold(ev, overload, args)
    if isinstance(known, tuple):
        return tuple(known_tensor(ev, each) for each in known)
    if known is not None and not _gives_views(overload):
        return known_tensor(ev, known)
    arithmetic = _arithmetic(ev, overload, args)
    if arithmetic is not None:
        return arithmetic
    plan = _plan(overload)
    for index in plan.written:
        if isinstance(args[index], TensorRef):
            ev.refuse_shared(args[index])
    metas = _metas(ev, overload, plan, args) if metas is None else metas
    values = [_operand(ev, plan, index, arg) for index, arg in enumerate(args)]
    names = plan.names[plan.positional : len(values)]
    keywords = dict(zip(names, values[plan.positional :], strict=True))
    results = ev.recorder.call(overload, values[: plan.positional], keywords, metas)
    wrapped = [_result(ev, value, meta, args) for value, meta in zip(results, metas, strict=False)]
    if known is None and overload in _FILLED:
        known = _filled(overload, values, wrapped[0].meta)
    if known is not None and isinstance(wrapped[0], TensorRef):
        return KnownTensor(wrapped[0], known)
    return wrapped[0] if len(plan.returns) == 1 else tuple(wrapped) if plan.returns else None


def _result(ev: Context, value: Any, meta: Any, args: list[Any]) -> Any:
    if isinstance(value, list):
        return ListValue(value)
    if isinstance(value, TensorRef):
        return value
    if isinstance(meta, (bool, torch.SymBool)):
        return Scalar("bool", value, None, origins(args))
    if isinstance(meta, (int, torch.SymInt)):
        return ev.scalars.make("int", value, None, origins(args))
    return Scalar("float", value, None, origins(args))


def _operand(ev: Context, plan: _Plan, index: int, arg: Any) -> Any:
    kind = plan.types[index]
    if isinstance(arg, Scalar):
        if kind == "TensorType":
            return arg.value
        wanted = {"FloatType": "float", "BoolType": "bool", "IntType": "int"}.get(kind)
        return ev.scalars.value(arg, wanted)
    if isinstance(arg, ListValue):
        return [_operand(ev, plan, index, item) for item in ev.items(arg)]
    if isinstance(arg, QuantizedValue):
        raise ev.failure("this op has no form for quantised tensors", advice="dequantize() before it")
    if isinstance(arg, (RuntimeText, ObjectValue, Uninitialized, Maybe)):
        raise ev.failure(f"argument '{plan.names[index]}' has no value at import")
    return arg


def _fake(ev: Context, kind: str, arg: Any, scalar_sizes: bool) -> Any:
    if isinstance(arg, TensorRef):
        return arg.meta
    if isinstance(arg, Scalar):
        if arg.kind == "int" and (kind not in ("NumberType", "FloatType", "TensorType") or scalar_sizes):
            return arg.fake
        if arg.kind == "float" and scalar_sizes:
            raise ev.failure("the size of the result depends on a run-time float", origin=arg.origin)
        return ev.scalars.placeholder(arg)
    if isinstance(arg, ListValue):
        return [_fake(ev, kind, item, scalar_sizes) for item in ev.items(arg)]
    return arg


def _metas(ev: Context, overload: torch._ops.OpOverload, plan: _Plan, args: list[Any]) -> list[Any]:
    """Run the op (the functional form of an in-place one) on fake tensors."""
    schema = overload._schema
    scalar_sizes = schema.name in _SIZE_FROM_SCALARS
    fakes = [_fake(ev, plan.types[i], arg, scalar_sizes) for i, arg in enumerate(args)]
    if schema.name in ("aten::select", "aten::narrow") and isinstance(args[2], Scalar):
        fakes[2] = 0 if schema.name == "aten::select" else fakes[2]
    if schema.name == "aten::view_as_real":  # in a graph of the lazy device conjugates are resolved
        fakes[0] = fakes[0].resolve_conj()
    if schema.name == "aten::copy_" and isinstance(args[1], TensorRef):
        _run_fake(ev, aten.expand.default, [args[1].meta, list(args[0].meta.shape)], {}, args)
    if schema.name in WITHOUT_SIBLING:
        return [args[0].meta]
    function: Any = overload
    positional, keywords = (
        fakes[: plan.positional],
        dict(zip(plan.names[plan.positional : len(fakes)], fakes[plan.positional :], strict=True)),
    )
    if plan.functional is not None:
        function, renamed = plan.functional
        keywords = {renamed[n]: f for n, f in zip(plan.names, fakes, strict=False) if n in renamed}
        positional = []
    sliced = ev.sizes.unguarded(lambda: _slice_meta(fakes)) if schema.name == "aten::slice" else None
    if sliced is not None:
        return [sliced]
    result = _run_fake(ev, function, positional, keywords, args)
    if plan.functional is not None and isinstance(result, torch.Tensor):
        _check_cast(ev, overload, result.dtype, args)
    return list(result) if len(function._schema.returns) != 1 else [result]


def _check_cast(ev: Context, overload: torch._ops.OpOverload, dtype: torch.dtype, args: list[Any]) -> None:
    """Raise where the result of an in-place op does not fit its tensor, as eager does: ``add_(1)`` of bools."""
    target = args[0].meta.dtype if isinstance(args[0], TensorRef) else dtype
    if not torch.can_cast(dtype, target):
        raise ev.failure(
            f"the result is {dtype} and cannot be written to a tensor of {target}",
            subject=dialect_name(overload),
            origin=origins(args),
        )


def _slice_meta(fakes: list[Any]) -> torch.Tensor | None:
    """A slice of an unknown size, which eager defines for every one; ``None`` where the op's own rule will do."""
    x, dim, start, end, step = fakes
    sizes = slice_sizes(x, dim, start, end, step)
    if sizes is None:
        return None
    strides = [stride * step if axis == dim % x.dim() else stride for axis, stride in enumerate(x.stride())]
    return x.new_empty_strided(sizes, strides)


def _run_fake(ev: Context, overload: Any, positional: list[Any], keywords: dict[str, Any], args: list[Any]) -> Any:
    try:
        with ev.mode:
            return ev.sizes.run(WITHOUT_QUESTIONS.get(overload, overload), positional, keywords)
    except GuardOnDataDependentSymNode as error:
        raise ev.failure(
            f"the shape of a result depends on data here ({error.cond})",
            subject=dialect_name(overload),
            origin=origins(args),
            advice="make this size an attribute of an input, or a constant",
        ) from None
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise ev.failure(first_line(error), subject=dialect_name(overload), origin=origins(args)) from None


def _gives_views(overload: torch._ops.OpOverload) -> bool:
    return any(each.alias_info is not None for each in overload._schema.returns)


def _fold(
    ev: Context, overload: torch._ops.OpOverload, args: list[Any]
) -> torch.Tensor | tuple[torch.Tensor, ...] | None:
    """The result of an op on small known tensors, as traces compute sizes with; ``None`` without them."""
    seen = False
    real = []
    for arg in args:
        if isinstance(arg, KnownTensor) and arg.known is not None:
            seen = True
            real.append(arg.known)
        elif isinstance(arg, (TensorRef, Scalar, ListValue)):
            return None
        else:
            real.append(arg)
    if not seen or torch.Tag.nondeterministic_seeded in overload.tags:
        return None
    plan = _plan(overload)
    keywords = dict(zip(plan.names[plan.positional : len(real)], real[plan.positional :], strict=True))
    result = overload(*real[: plan.positional], **keywords)
    if isinstance(result, torch.Tensor) and result.numel() <= KNOWN_ELEMENTS:
        return result.clone()
    is_several = isinstance(result, tuple) and all(isinstance(each, torch.Tensor) for each in result)
    return tuple(result) if is_several and not _gives_views(overload) else None


_FILLED = (aten.ones.default, aten.zeros.default, aten.full.default)


def _filled(overload: torch._ops.OpOverload, values: Sequence[Any], meta: torch.Tensor) -> torch.Tensor | None:
    """The elements of a small tensor of one known number."""
    are_known = all(isinstance(size, int) for size in meta.shape) and meta.numel() <= KNOWN_ELEMENTS
    number = values[1] if overload is aten.full.default else int(overload is aten.ones.default)
    if not are_known or not isinstance(number, (bool, int, float)):
        return None
    return torch.full(tuple(meta.shape), number, dtype=meta.dtype)


def literal(ev: Context, tensor: torch.Tensor, name: str) -> TensorRef:
    """A tensor of the program as a value."""
    meta = ev.fake_of(tensor)
    return ev.recorder.whole(LiteralStorage(ev.emitter, tensor, name, meta))


_ARITHMETIC = {
    aten.add.Tensor: "add",
    aten.add.Scalar: "add",
    aten.sub.Tensor: "sub",
    aten.sub.Scalar: "sub",
    aten.mul.Tensor: "mul",
    aten.mul.Scalar: "mul",
    aten.floor_divide.default: "floordiv",
    aten.floor_divide.Scalar: "floordiv",
}


def _arithmetic(ev: Context, overload: torch._ops.OpOverload, args: list[Any]) -> TensorRef | None:
    """The result of an op on sizes that are 0-d tensors, as traces compute with them; ``None`` for all else."""
    name = _ARITHMETIC.get(overload)
    if name is None or any(not isinstance(alpha, int) or alpha != 1 for alpha in args[2:]):
        return None
    a, b = map(_size_of, args[:2])
    if a is None or b is None or not (isinstance(a, Scalar) or isinstance(b, Scalar)):
        return None
    if name == "floordiv" and (isinstance(b, Scalar) or b == 0):
        return None
    return scalar_tensor(ev, ev.scalars.binary(name, a, b))


def _size_of(arg: Any) -> Any:
    """The whole number that an operand is: known, or a symbolic one that is at hand."""
    if isinstance(arg, ScalarTensor) and arg.scalar is not None:
        return arg.scalar if arg.scalar.kind == "int" and arg.scalar.fake is not None else None
    if isinstance(arg, KnownTensor) and arg.known is not None:
        is_number = arg.known.dim() == 0 and arg.known.dtype == torch.int64
        return int(arg.known) if is_number else None
    return arg if isinstance(arg, int) and not isinstance(arg, bool) else None


def known_tensor(ev: Context, tensor: torch.Tensor) -> KnownTensor:
    """A small constant tensor that later ops fold over."""
    return KnownTensor(literal(ev, tensor, "constant"), tensor)


def scalar_tensor(ev: Context, number: Any, dtype: torch.dtype | None = None) -> TensorRef:
    """A number as a 0-d tensor (of ``dtype``, or of the number's own 64-bit type)."""
    if not isinstance(number, Scalar):
        return known_tensor(ev, torch.tensor(number, dtype=dtype))
    with ev.mode:
        meta = torch.empty((), dtype=SCALAR_DTYPE[number.kind])
    ref = ScalarTensor(ev.recorder.tensor(ev.scalars.tensor(number), meta), number)
    if dtype is None or dtype == meta.dtype:
        return ref
    return call(ev, aten.to.dtype, [ref, dtype, False, False, None])


def element(ev: Context, ref: TensorRef, kind: str | None = None) -> Any:
    """The number inside a one-element tensor (``x.item()``, ``int(x)``)."""
    if isinstance(ref, KnownTensor) and ref.known is not None and ref.known.numel() == 1:
        number = ref.known.item()
        return number if kind is None else {"int": int, "float": float, "bool": bool}[kind](number)
    dtype = ref.meta.dtype
    if dtype.is_complex:
        raise ev.failure("a complex number has no Torch dialect type", subject="aten::item")
    own = "bool" if dtype == torch.bool else "float" if dtype.is_floating_point else "int"
    if isinstance(ref, ScalarTensor) and ref.scalar is not None:
        return ev.scalars.convert(ref.scalar, kind or own)
    wanted = kind or own
    if wanted == "bool" and own != "bool":
        ref = call(ev, aten.ne.Scalar, [ref, 0])
    elif wanted == "int" and own == "float":
        return ev.scalars.convert(ev.scalars.from_tensor(ev.recorder.read(ref), "float"), "int")
    return ev.scalars.from_tensor(ev.recorder.read(ref), wanted)


def size(ev: Context, ref: TensorRef, axis: int) -> Any:
    """One size: a number, or a run-time one where it is symbolic."""
    extent = ref.meta.shape[axis]
    if isinstance(extent, int):
        return extent
    known = extent.node.maybe_as_int()
    if known is not None:
        return int(known)
    axis %= ref.meta.dim()
    value = ev.emitter.call(aten.size.int, (ev.recorder.read(ref), axis), {}, [0])[0]
    return ev.scalars.make("int", value, extent)


def unstack_kind(dtype: torch.dtype) -> str:
    return "bool" if dtype == torch.bool else "float" if dtype.is_floating_point else "int"


def stack_of(ev: Context, items: list[Any], kind: str) -> Stack:
    """Known items as one stacked tensor; they must agree in shape and dtype."""
    refs = items if kind == "tensor" else [scalar_tensor(ev, item) for item in items]
    return Stack(kind, call(ev, aten.stack.default, [ListValue(list(refs)), 0]))
