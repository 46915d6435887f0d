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

_NO_DEFAULT = object()

COMPLEX_NUMBER = "torch.aten.Complex.float_float"
"""The op that stands for a complex number: its parts are constants."""


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


def is_used(value: ir.Value) -> bool:
    return next(iter(value.uses), None) is not None


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
    if name == "torch.operator" and op_name(operation) == COMPLEX_NUMBER:
        return complex(*(_constant(operand) for operand in operation.operands))
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
_DENSE = re.compile(r"dense<(.*?)> : tensor<((?:\d+x)*)([^<>]*(?:<[^<>]*>)?)>", re.DOTALL)
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
    return unquote(found.group(1)) if found else None


def unquote(name: str) -> str:
    """A name as MLIR prints it, bare or quoted with ``\\`` and two hexadecimal digits, to the name itself."""
    if not name.startswith('"'):
        return name
    raw = re.sub(
        rb"\\([0-9A-Fa-f]{2}|.)",
        lambda m: bytes.fromhex(m[1].decode()) if len(m[1]) == 2 else m[1],
        name[1:-1].encode(),
    )
    return raw.decode()


def literal(operation: ir.Operation | ir.OpView, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The tensor of a ``torch.vtensor.literal``: a blob of ``weights`` (not copied) or a new tensor.

    A blob that was elided from the text or is not in ``weights`` raises :class:`InvalidInput`.
    """
    kind = parse_tensor_type(operation.results[0].type)
    assert kind is not None
    name = resource_name(operation)
    if name is None:
        return _inline(operation.operation, kind)
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
        # bfloat16, float8 and complex elements
        return _only_tensor(operation)
    tensor = torch.from_numpy(np.ascontiguousarray(array)).clone()
    dtype = kind.dtype or tensor.dtype
    return tensor.to(dtype).reshape(shape if shape is not None and None not in shape else tensor.shape)


def _only_tensor(operation: ir.Operation) -> torch.Tensor:
    found = tensors_of_text(operation.get_asm(large_elements_limit=None, use_local_scope=True))
    if len(found) != 1:
        raise ImportFailed(
            "a literal of this form cannot be read", subject=operation.name, location=location(operation)
        )
    return found[0]


def tensors_of_text(text: str) -> list[torch.Tensor]:
    """The tensors of the printed ``dense<…> : tensor<…>`` attributes in ``text``."""
    return [_dense(found) for found in _DENSE.finditer(text)]


def _dense(found: re.Match[str]) -> torch.Tensor:
    body, sizes, element = found.group(1).strip(), found.group(2), found.group(3)
    shape = [int(size) for size in sizes.split("x")[:-1]]
    dtype = TEXT_DTYPE[element]
    count = math.prod(shape)
    if not body or count == 0:
        return torch.empty(shape, dtype=dtype)
    if body.startswith('"'):
        values = torch.frombuffer(bytearray.fromhex(body.strip('"')[2:]), dtype=dtype)
    else:
        values = _elements(_ELEMENT.findall(body), dtype)
    return (values.expand(count) if values.numel() == 1 else values).reshape(shape).clone()


def _elements(tokens: list[str], dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.tensor([token == "true" for token in tokens])
    if not dtype.is_floating_point and not dtype.is_complex:
        return torch.tensor([int(token, 0) for token in tokens], dtype=dtype)
    parts = torch.cat([_element(token, dtype) for token in tokens])
    return torch.view_as_complex(parts.reshape(-1, 2)) if dtype.is_complex else parts


def _element(token: str, dtype: torch.dtype) -> torch.Tensor:
    """One number; a hexadecimal one spells the bits (that is how MLIR writes NaN and infinity)."""
    real = dtype.to_real() if dtype.is_complex else dtype
    if token[:2] in ("0x", "0X"):
        size = torch.empty((), dtype=real).element_size()
        return torch.frombuffer(bytearray(int(token, 16).to_bytes(size, "little")), dtype=real)
    return torch.tensor([float(token)], dtype=torch.float64).to(real)
