"""Reading a Torch dialect module: operations in order, their resolved names, constants, types and weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from torch_tvm.dialect import locations
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.types import TEXT_DTYPE, TensorType, parse_tensor_type
from torch_tvm.support.errors import ImportFailed, InvalidInput, SourceLocation

ELIDED = "__elided__"
HOW_TO_PRINT = "print the module with its weights: str(module), asm(elide=False), or save() to a file"

_CONSTANTS = {f"torch.constant.{kind}" for kind in ("int", "float", "bool", "str", "number")}
_NO_DEFAULT = object()


def functions(module: ir.Module) -> dict[str, ir.Operation]:
    """The ``func.func`` operations of a module by name, in order."""
    found = {}
    for view in module.body.operations:
        if view.operation.name == "func.func":
            found[ir.StringAttr(view.operation.attributes["sym_name"]).value] = view.operation
    return found


def walk(root: ir.Operation | ir.OpView | ir.Module | ir.Block) -> Iterator[ir.Operation]:
    """Every operation nested in ``root`` in textual order (outer before inner), without ``root`` itself.

    The caller may erase the operation that it was just given.
    """
    blocks = [root] if isinstance(root, ir.Block) else _blocks(root.operation)
    for block in blocks:
        for view in list(block.operations):
            operation = view.operation
            regions = list(operation.regions)
            yield operation
            if regions:
                yield from walk(operation)


def _blocks(operation: ir.Operation) -> list[ir.Block]:
    return [block for region in operation.regions for block in region.blocks]


def op_name(operation: ir.Operation | ir.OpView) -> str:
    """``torch.aten.add.Tensor``; a ``torch.operator "ns.op"`` is named ``torch.ns.op``."""
    name: str = operation.operation.name
    if name != "torch.operator":
        return name
    inner = ir.StringAttr(operation.operation.attributes["name"]).value
    return inner if inner.startswith("torch.") else f"torch.{inner}"


def location(operation: ir.Operation | ir.OpView) -> SourceLocation:
    """The user's file and line behind an operation, with its module path."""
    return locations.from_mlir(operation.operation.location)


def tensor_type(value: ir.Value) -> TensorType | None:
    """Shape and dtype of a tensor value; ``None`` for a scalar, list or other type."""
    return parse_tensor_type(value.type)


def defining_op(value: ir.Value) -> ir.Operation | None:
    """The operation that a value is a result of; ``None`` for a block argument."""
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


# -- constants -------------------------------------------------------------------------------------


def constant(value: ir.Value, default: Any = None) -> Any:
    """The Python value of a constant or of a list or tuple of constants, else ``default``.

    ``torch.constant.none`` gives ``None``, a device a ``torch.device``. Looks through ``torch.derefine``.
    """
    found = _constant(value)
    return default if found is _NO_DEFAULT else found


def is_constant(value: ir.Value) -> bool:
    """Whether :func:`constant` knows the value."""
    return _constant(value) is not _NO_DEFAULT


def _constant(value: ir.Value) -> Any:
    operation = defining_op(value)
    if operation is None:
        return _NO_DEFAULT
    name = operation.name
    if name.startswith("torch.constant."):
        return constant_of_op(operation)
    if name == "torch.derefine":
        return _constant(operation.operands[0])
    if name in ("torch.prim.ListConstruct", "torch.prim.TupleConstruct"):
        items = [_constant(operand) for operand in operation.operands]
        if any(item is _NO_DEFAULT for item in items):
            return _NO_DEFAULT
        return items if name == "torch.prim.ListConstruct" else tuple(items)
    return _NO_DEFAULT


def constant_of_op(operation: ir.Operation) -> Any:
    """The Python value of a ``torch.constant.*`` operation."""
    if operation.name == "torch.constant.none":
        return None
    value = operation.attributes["value"].value
    if operation.name == "torch.constant.device":
        return torch.device(value)
    if operation.name == "torch.constant.bool":
        return bool(value)
    return value


# -- literals --------------------------------------------------------------------------------------

_RESOURCE = re.compile(r"dense_resource<(\"(?:[^\"\\]|\\.)*\"|[^>\s]+)>")
_ELEMENT = re.compile(r"0[xX][0-9A-Fa-f]+|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|true|false")


def resource_name(operation: ir.Operation | ir.OpView) -> str | None:
    """The name of the blob behind a literal, ``None`` when its elements are written inline."""
    try:
        attribute = operation.operation.attributes["value"]
    except TypeError:  # an element type that the bindings cannot cast; such a literal is never a resource
        return None
    if type(attribute) is not ir.Attribute and not isinstance(attribute, ir.DenseResourceElementsAttr):
        return None
    found = _RESOURCE.match(str(attribute))
    return _unquote(found.group(1)) if found else None


def _unquote(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name.startswith('"') else name


def literal(operation: ir.Operation | ir.OpView, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The tensor of a ``torch.vtensor.literal``: a blob of ``weights`` (not copied) or a new tensor.

    A blob that was elided from the text or is not in ``weights`` raises :class:`InvalidInput`.
    """
    operation = operation.operation
    kind = parse_tensor_type(operation.results[0].type)
    assert kind is not None
    name = resource_name(operation)
    if name is None:
        return _inline(operation, kind)
    found = weights.get(name)
    if found is None:
        elided = name == ELIDED
        raise InvalidInput(
            "the elements of this literal were left out of the text"
            if elided
            else f"the module has no data for resource '{name}'",
            subject="torch.vtensor.literal",
            location=location(operation),
            advice=HOW_TO_PRINT,
        )
    return found.detach()


def _inline(operation: ir.Operation, kind: TensorType) -> torch.Tensor:
    shape = kind.shape
    try:
        attribute = operation.attributes["value"]
        array = np.array(attribute)
    except (TypeError, ValueError):
        return _from_text(operation)
    tensor = torch.from_numpy(np.ascontiguousarray(array)).clone()
    dtype = kind.dtype or tensor.dtype
    return tensor.to(dtype).reshape(shape if shape is not None and None not in shape else tensor.shape)


def _from_text(operation: ir.Operation) -> torch.Tensor:
    """Elements that the bindings cannot read (bfloat16, float8, complex), out of the printed attribute."""
    text = operation.get_asm(large_elements_limit=None, use_local_scope=True)
    found = re.search(r"dense<(.*?)> : tensor<((?:\d+x)*)([^<>]*(?:<[^<>]*>)?)>", text, re.DOTALL)
    if found is None:
        raise ImportFailed(
            "this literal cannot be read", subject=operation.name, location=location(operation)
        )
    body, sizes, element = found.group(1).strip(), found.group(2), found.group(3)
    shape = [int(size) for size in sizes.split("x")[:-1]]
    dtype = TEXT_DTYPE[element]
    if not body or math.prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    if body.startswith('"'):
        raw = torch.frombuffer(bytearray.fromhex(body.strip('"')[2:]), dtype=dtype)
        return raw.expand(math.prod(shape)).reshape(shape) if raw.numel() == 1 else raw.reshape(shape)
    parts = torch.cat([_element(token, dtype) for token in _ELEMENT.findall(body)])
    values = torch.view_as_complex(parts.reshape(-1, 2)) if dtype.is_complex else parts
    return (values.expand(math.prod(shape)) if values.numel() == 1 else values).reshape(shape).clone()


def _element(token: str, dtype: torch.dtype) -> torch.Tensor:
    """One number; a hexadecimal one spells the bits (that is how MLIR writes NaN and infinity)."""
    real = dtype.to_real() if dtype.is_complex else dtype
    if token[:2] in ("0x", "0X"):
        size = torch.empty((), dtype=real).element_size()
        return torch.frombuffer(bytearray(int(token, 16).to_bytes(size, "little")), dtype=real)
    return torch.tensor([float(token)], dtype=torch.float64).to(real)
