"""Appends Torch dialect operations to a function, each built from its ATen schema.

One path for all ops: an argument becomes an operand by the type that the schema gives it, and the defaults
that a caller left out are written down, so nobody downstream parses a default again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import DTYPE_TEXT, SCALAR_TYPE, TypeTable
from torch_tvm.dialect.view import COMPLEX_NUMBER
from torch_tvm.support.errors import ImportFailed

MAX_INT = 2**63 - 1

_LAYOUT = {torch.strided: 0, torch.sparse_coo: 1}
_MEMORY_FORMAT = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.channels_last_3d: 3,
}


class Emitter:
    """Builds operations at an insertion point; constants are made once a region.

    ``resources`` collects the tensors behind ``dense_resource`` literals: name to tensor.
    """

    def __init__(self, module: ir.Module, resources: dict[str, torch.Tensor]) -> None:
        self.module = module
        self.context = module.context
        self.types = TypeTable(self.context)
        self.resources = resources
        self.inlined: dict[str, torch.Tensor] = {}
        self.location = ir.Location.unknown(self.context)
        self._blocks: list[ir.Block] = []
        self._constants: list[dict[Any, ir.Value]] = []
        self._literals: dict[int, tuple[torch.Tensor, str]] = {}

    @contextmanager
    def block(self, block: ir.Block) -> Iterator[None]:
        """Emit into ``block`` until the context ends; constants of enclosing blocks stay visible."""
        self._blocks.append(block)
        self._constants.append({})
        try:
            yield
        finally:
            self._blocks.pop()
            self._constants.pop()

    def op(
        self,
        name: str,
        operands: Sequence[ir.Value],
        results: Sequence[ir.Type],
        attributes: dict[str, ir.Attribute] | None = None,
        regions: int = 0,
    ) -> ir.Operation:
        """Append one operation; a name that the dialect does not have becomes ``torch.operator``."""
        if not self.context.is_registered_operation(name):
            attributes = {**(attributes or {}), "name": ir.StringAttr.get(name, self.context)}
            name = "torch.operator"
        operation = ir.Operation.create(
            name,
            results=list(results),
            operands=list(operands),
            attributes=attributes,
            regions=regions,
            loc=self.location,
            ip=ir.InsertionPoint(self._blocks[-1]),
        )
        return operation

    def function(self, name: str, arguments: Sequence[ir.Type]) -> tuple[ir.Operation, ir.Block]:
        """An empty function at the end of the module, without results so far, and its block."""
        kind = ir.FunctionType.get(list(arguments), [], context=self.context)
        function = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get(name, self.context),
                "function_type": ir.TypeAttr.get(kind, context=self.context),
            },
            regions=1,
            loc=self.location,
            ip=ir.InsertionPoint(self.module.body),
        )
        places = [self.location] * len(arguments)
        return function, function.regions[0].blocks.append(*arguments, arg_locs=places)

    # -- constants ---------------------------------------------------------------------------------

    def constant(self, value: bool | int | float | str | None) -> ir.Value:
        """``torch.constant.*`` for a Python value, one a region."""
        key = (type(value), repr(value))
        for scope in reversed(self._constants):
            if key in scope:
                return scope[key]
        result = self._new_constant(value)
        self._constants[-1][key] = result
        return result

    def _new_constant(self, value: bool | int | float | str | None) -> ir.Value:
        context = self.context
        attribute: ir.Attribute
        if value is None:
            return self.op("torch.constant.none", [], [self.types.parse("!torch.none")]).result
        if isinstance(value, bool):
            kind = "bool"
            attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(1, context), int(value))
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise ImportFailed(
                    f"the number {value} is beyond 64 bits",
                    advice="compute with smaller numbers, or with floats: float(n)",
                )
            kind = "int"
            attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64, context), value)
        elif isinstance(value, float):
            kind = "float"
            attribute = ir.FloatAttr.get(ir.F64Type.get(context), value, loc=self.location)
        elif isinstance(value, str):
            kind = "str"
            attribute = ir.StringAttr.get(value, context)
        else:
            raise ImportFailed(f"a constant of type {type(value).__name__} has no Torch dialect form")
        return self.op(f"torch.constant.{kind}", [], [self.types.parse(f"!torch.{kind}")], {"value": attribute}).result

    def complex_number(self, value: complex) -> ir.Value:
        """A complex number, of which the dialect has no constant: an op of two real ones."""
        parts = [self.constant(part) for part in (value.real, value.imag)]
        return self.op(COMPLEX_NUMBER, parts, [self.types.parse("!torch.number")]).result

    def device(self, name: str) -> ir.Value:
        key = ("device", name)
        for scope in reversed(self._constants):
            if key in scope:
                return scope[key]
        result = self.op(
            "torch.constant.device",
            [],
            [self.types.parse("!torch.Device")],
            {"value": ir.StringAttr.get(name, self.context)},
        ).result
        self._constants[-1][key] = result
        return result

    def literal(self, tensor: torch.Tensor, name: str) -> ir.Value:
        """``torch.vtensor.literal`` over the tensor's own memory, without a copy when it is contiguous."""
        scope = self._constants[0]
        key = ("literal", id(tensor))
        if key in scope:
            return scope[key]
        kind = self.types.tensor(tensor)
        attribute = literal_attribute(tensor, self._unique(name, tensor), self.context, self.resources)
        if tensor.numel() == 1 and tensor.is_floating_point():
            self.inlined[name] = tensor
        result = ir.Operation.create(
            "torch.vtensor.literal",
            results=[kind],
            attributes={"value": attribute},
            loc=self.location,
            ip=ir.InsertionPoint.at_block_begin(self._blocks[0]),
        ).result
        scope[key] = result
        self._literals[id(tensor)] = (tensor, name)
        return result

    def _unique(self, name: str, tensor: torch.Tensor) -> str:
        candidate, count = name, 0
        while candidate in self.resources and self.resources[candidate] is not tensor:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def list_of(self, values: Sequence[ir.Value], element: ir.Type) -> ir.Value:
        return self.op("torch.prim.ListConstruct", values, [self.types.list_of(element)]).result

    # -- ops from their schema -----------------------------------------------------------------------

    def call(
        self,
        overload: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        results: Sequence[Any],
    ) -> list[Any]:
        """Emit one ATen op and return a value, or a list of values for a list result, per result.

        ``args`` hold ``ir.Value``s and Python values; ``results`` hold, per schema result, a (fake) tensor,
        an ``ir.Type``, or a list of tensors.
        """
        overload, args = self._without_numbers(overload, args, results)
        overload, args = _scalar_overload(self.context, overload, args)
        overload = _admitted(overload, args)
        operands = self.operands(overload, args, kwargs)
        types = [self._result_type(meta) for meta in results]
        operation = self.op(dialect_name(overload), operands, types)
        values: list[Any] = []
        for value, meta in zip(operation.results, results, strict=True):
            values.append(self.unpack(value, meta) if isinstance(meta, (list, tuple)) else value)
        return values

    def _without_numbers(
        self, overload: torch._ops.OpOverload, args: Sequence[Any], results: Sequence[Any]
    ) -> tuple[torch._ops.OpOverload, Sequence[Any]]:
        """Numbers that the dialect has not as 0-d tensors of the result's dtype, so that it stays: complex ones, and
        bools, which are 0 and 1.
        """
        dtype = results[0].dtype if results and isinstance(results[0], torch.Tensor) else torch.bool
        arguments, given = overload._schema.arguments, list(args)
        for index, each in enumerate(given):
            is_complex = isinstance(each, complex) and dtype.is_complex
            is_bool = isinstance(each, bool) and dtype == torch.bool and overload._schema.name in _OF_BOOLS
            if not is_complex and not is_bool:
                continue
            kind = arguments[index].type.kind()
            found = overload if kind == "TensorType" else _sibling(overload, index, "TensorType")
            if found is not None:
                overload, given[index] = found, self.literal(torch.tensor(each, dtype=dtype), "scalar")
        return overload, given

    def unpack(self, value: ir.Value, tensors: Sequence[torch.Tensor]) -> list[ir.Value]:
        types = [self.types.tensor(tensor) for tensor in tensors]
        return list(self.op("torch.prim.ListUnpack", [value], types).results)

    def _result_type(self, meta: Any) -> ir.Type:
        if isinstance(meta, ir.Type):
            return meta
        if isinstance(meta, torch.Tensor):
            return self.types.tensor(meta)
        if isinstance(meta, (list, tuple)):
            shared = {str(self.types.tensor(tensor)) for tensor in meta}
            element = shared.pop() if len(shared) == 1 else "!torch.vtensor"
            return self.types.list_of(self.types.parse(element))
        if isinstance(meta, (bool, torch.SymBool)):
            return self.types.parse("!torch.bool")
        if isinstance(meta, (int, torch.SymInt)):
            return self.types.parse("!torch.int")
        if isinstance(meta, (float, torch.SymFloat)):
            return self.types.parse("!torch.float")
        if meta is None:
            return self.types.parse("!torch.none")
        raise ImportFailed(f"a result of type {type(meta).__name__} has no Torch dialect form")

    def operands(self, overload: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> list[ir.Value]:
        """One operand per schema argument, defaults included."""
        values = []
        for index, argument in enumerate(overload._schema.arguments):
            if index < len(args) and not argument.kwarg_only:
                given = args[index]
            elif argument.name in kwargs:
                given = kwargs[argument.name]
            elif argument.has_default_value():
                given = argument.default_value
            else:
                raise ImportFailed(f"argument '{argument.name}' is missing", subject=dialect_name(overload))
            if argument.N and isinstance(given, (int, float, list, tuple)):
                items = list(given) if isinstance(given, (list, tuple)) else [given]
                given = items * argument.N if len(items) == 1 else items
            values.append(self.operand(given, argument.type))
        return values

    def _integer(self, condition: ir.Value) -> ir.Value:
        return self.op("torch.aten.Int.bool", [condition], [self.types.parse("!torch.int")]).result

    def operand(self, given: Any, schema_type: Any) -> ir.Value:
        """A Python value or ``ir.Value`` as an operand of a schema type such as ``int[]`` or ``Tensor?``."""
        kind = schema_type.kind()
        if isinstance(given, ir.Value):
            is_bool = kind == "NumberType" and str(given.type) == "!torch.bool"
            return self._integer(given) if is_bool else given
        if kind == "OptionalType":
            return self.constant(None) if given is None else self.operand(given, schema_type.getElementType())
        if kind == "ListType":
            return self._list_operand(given, schema_type.getElementType())
        if kind == "TensorType" and isinstance(given, (bool, int, float)):
            return self.literal(torch.tensor(given), "scalar")
        if kind == "NumberType" and isinstance(given, bool):
            return self.constant(int(given))
        if kind == "FloatType" and isinstance(given, int):
            return self.constant(float(given))
        if kind == "BoolType" and isinstance(given, int):
            return self.constant(bool(given))
        if isinstance(given, torch.dtype):
            return self.constant(SCALAR_TYPE[given])
        if isinstance(given, torch.device):
            return self.device(str(given))
        if isinstance(given, torch.layout):
            return self.constant(_LAYOUT[given])
        if isinstance(given, torch.memory_format):
            return self.constant(_MEMORY_FORMAT[given])
        if isinstance(given, torch.Tensor):
            return self.literal(given, "tensor_constant")
        if isinstance(given, complex):
            return self.complex_number(given)
        if isinstance(given, torch.Generator):
            raise ImportFailed("a random generator cannot be captured", advice="pass the random tensor as an input")
        return self.constant(given)

    def _list_operand(self, given: Any, element_type: Any) -> ir.Value:
        if not isinstance(given, (list, tuple, torch.Size)):
            given = [given]
        if not given and element_type.kind() not in ("TensorType", "OptionalType"):
            return self.list_of([], self.types.parse(f"!torch.{_list_element_text(element_type)}"))
        values = [self.operand(item, element_type) for item in given]
        return self.list_of(values, self._element_type(values, element_type))

    def _element_type(self, values: Sequence[ir.Value], element_type: Any) -> ir.Type:
        if element_type.kind() == "OptionalType":
            return self.types.parse("!torch.optional<vtensor>")
        kinds = {str(value.type) for value in values}
        if len(kinds) == 1:
            return values[0].type
        if all(kind.startswith("!torch.vtensor") for kind in kinds):
            return self.types.parse("!torch.vtensor")
        return self.types.parse("!torch.number") if kinds else self.types.parse("!torch.int")


def _list_element_text(element_type: Any) -> str:
    kinds = {
        "IntType": "int",
        "SymIntType": "int",
        "FloatType": "float",
        "BoolType": "bool",
        "NumberType": "int",
    }
    return kinds.get(element_type.kind(), "int")


def dialect_name(overload: torch._ops.OpOverload) -> str:
    """``aten::add.Tensor`` is ``torch.aten.add.Tensor``; the overload ``default`` has no suffix."""
    name = overload._schema.name.replace("::", ".")
    suffix = overload._schema.overload_name
    return f"torch.{name}.{suffix}" if suffix else f"torch.{name}"


def _admitted(overload: torch._ops.OpOverload, args: Sequence[Any]) -> torch._ops.OpOverload:
    """``norm.Scalar`` of bfloat16, which torch-mlir's verifier takes for no float, is ``linalg_vector_norm``."""
    if overload is torch.ops.aten.norm.Scalar and str(getattr(args[0], "type", "")).endswith("bf16>"):
        return torch.ops.aten.linalg_vector_norm.default
    return overload


def _scalar_overload(
    context: ir.Context, overload: torch._ops.OpOverload, args: Sequence[Any]
) -> tuple[torch._ops.OpOverload, Sequence[Any]]:
    """``add.Tensor`` with a Python number for a tensor is ``add.Scalar``, where the dialect has it."""
    arguments = overload._schema.arguments
    for index, given in enumerate(args[: len(arguments)]):
        numeric = isinstance(given, (bool, int, float)) or (
            isinstance(given, ir.Value) and str(given.type) in ("!torch.int", "!torch.float", "!torch.bool")
        )
        if numeric and arguments[index].type.kind() == "TensorType":
            sibling = _sibling(overload, index, "NumberType")
            if sibling is not None and context.is_registered_operation(dialect_name(sibling)):
                return sibling, args
    return overload, args


_OF_BOOLS = frozenset(
    f"aten::{stem}"
    for stem in ("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__")
)
"""Ops of a tensor and a number that give bools for bools, and integers for bools and integers."""


def _sibling(overload: torch._ops.OpOverload, index: int, kind: str) -> torch._ops.OpOverload | None:
    """The overload that differs in nothing but the kind of the argument at ``index``: a Scalar for a Tensor, say."""
    packet = overload.overloadpacket
    wanted = [a.type.kind() for a in overload._schema.arguments]
    wanted[index] = kind
    for name in packet.overloads():
        candidate = getattr(packet, name)
        kinds = [a.type.kind() for a in candidate._schema.arguments]
        if kinds == wanted and not candidate._schema.is_mutable:
            return candidate
    return None


# What numpy has instead of a dtype that it does not have.
_SAME_SIZE = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.uint8, torch.float8_e5m2: torch.uint8}


def literal_attribute(
    tensor: torch.Tensor, name: str, context: ir.Context, resources: dict[str, torch.Tensor]
) -> ir.Attribute:
    """Elements of a literal: small integers, booleans and 0-d tensors inline, everything else as a resource."""
    detached = tensor.detach().resolve_conj().resolve_neg().contiguous().cpu()
    element = _storage_type(detached.dtype, context)
    shaped = ir.RankedTensorType.get(list(detached.shape), element, loc=ir.Location.unknown(context))
    if detached.numel() <= 1 and not detached.dtype.is_complex:
        bits = detached.view(_SAME_SIZE.get(detached.dtype, detached.dtype))
        if detached.numel() == 0:
            return ir.Attribute.parse(f"dense<> : {shaped}", context)
        if detached.dtype == torch.bool:
            return ir.Attribute.parse(f"dense<{str(bool(detached)).lower()}> : {shaped}", context)
        return ir.DenseElementsAttr.get(bits.numpy(), type=shaped, context=context)
    resources[name] = tensor if detached.data_ptr() == tensor.data_ptr() else detached
    raw = detached.reshape(-1).view(torch.uint8).numpy()
    return ir.DenseResourceElementsAttr.get_from_buffer(
        memoryview(raw), name, shaped, alignment=_alignment(detached), context=context
    )


def _alignment(tensor: torch.Tensor) -> int:
    return min(16, tensor.data_ptr() & -tensor.data_ptr()) if tensor.data_ptr() else 1


def _storage_type(dtype: torch.dtype, context: ir.Context) -> ir.Type:
    return ir.Type.parse(DTYPE_TEXT[dtype], context)
