"""Building replacement operations in front of the one that is being rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import SCALAR_TYPE, TensorType, TypeTable


class Rewriter:
    """Inserts operations before ``anchor``, with its location."""

    def __init__(self, context: ir.Context) -> None:
        self.types = TypeTable(context)
        self.context = context
        self.anchor: ir.Operation | None = None

    def op(self, name: str, operands: Sequence[ir.Value], result: ir.Type, **attributes: ir.Attribute) -> ir.Value:
        """The first result of a new operation; a name outside the dialect becomes a ``torch.operator``."""
        assert self.anchor is not None
        if not self.context.is_registered_operation(name):
            attributes["name"] = ir.StringAttr.get(name, self.context)
            name = "torch.operator"
        return ir.Operation.create(
            name,
            results=[result],
            operands=list(operands),
            attributes=attributes or None,
            loc=self.anchor.location,
            ip=ir.InsertionPoint(self.anchor),
        ).result

    def none(self) -> ir.Value:
        return self.op("torch.constant.none", [], self.types.parse("!torch.none"))

    def boolean(self, value: bool) -> ir.Value:
        attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(1, self.context), int(value))
        return self.op("torch.constant.bool", [], self.types.parse("!torch.bool"), value=attribute)

    def integer(self, value: int) -> ir.Value:
        attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64, self.context), value)
        return self.op("torch.constant.int", [], self.types.parse("!torch.int"), value=attribute)

    def floating(self, value: float) -> ir.Value:
        assert self.anchor is not None
        attribute = ir.FloatAttr.get(ir.F64Type.get(self.context), value, loc=self.anchor.location)
        return self.op("torch.constant.float", [], self.types.parse("!torch.float"), value=attribute)

    def number(self, value: bool | int | float) -> ir.Value:
        if isinstance(value, bool):
            return self.boolean(value)
        return self.integer(value) if isinstance(value, int) else self.floating(value)

    def integers(self, values: Sequence[int | ir.Value]) -> ir.Value:
        items = [self.integer(v) if isinstance(v, int) else v for v in values]
        return self.op("torch.prim.ListConstruct", items, self.types.parse("!torch.list<int>"))

    def size(self, tensor: ir.Value, axis: int) -> ir.Value:
        return self.op("torch.aten.size.int", [tensor, self.integer(axis)], self.types.parse("!torch.int"))

    def sizes(self, tensor: ir.Value) -> list[int | ir.Value]:
        """The shape of a tensor: numbers where known, ``aten.size.int`` where not."""
        kind = view.tensor_type(tensor)
        assert kind is not None and kind.shape is not None
        return [self.size(tensor, axis) if size is None else size for axis, size in enumerate(kind.shape)]

    def as_type(self, value: ir.Value, wanted: ir.Type) -> ir.Value:
        """``value`` seen as ``wanted``, a type that says more or less of the same tensor."""
        return value if value.type == wanted else self.op("torch.tensor_static_info_cast", [value], wanted)

    def as_dtype(self, value: ir.Value, dtype: torch.dtype, wanted: ir.Type | None = None) -> ir.Value:
        """``value`` converted to ``dtype``, with its own shape unless ``wanted`` is the type of the result."""
        kind = view.tensor_type(value)
        assert kind is not None
        if kind.dtype == dtype:
            return value
        operands = [
            value,
            self.integer(SCALAR_TYPE[dtype]),
            self.boolean(False),
            self.boolean(False),
            self.none(),
        ]
        return self.op("torch.aten.to.dtype", operands, wanted or self.types.tensor(TensorType(kind.shape, dtype)))


@lru_cache(maxsize=4096)
def schema_of(name: str) -> torch.FunctionSchema | None:
    """The ATen schema behind a dialect op's name, ``None`` where torch has none."""
    parts = name.split(".")
    if len(parts) < 3:
        return None
    qualified, overload = f"{parts[1]}::{parts[2]}", ".".join(parts[3:])
    try:
        return torch._C._get_schema(qualified, overload)
    except RuntimeError:
        return None


@lru_cache(maxsize=4096)
def argument_index(name: str, argument: str) -> int | None:
    """The position of a named argument in an op's schema."""
    schema = schema_of(name)
    if schema is None:
        return None
    return next((i for i, a in enumerate(schema.arguments) if a.name == argument), None)


def is_static(kind: TensorType | None) -> bool:
    return kind is not None and kind.shape is not None and None not in kind.shape
