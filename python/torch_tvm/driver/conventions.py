"""The runtime's calling convention of a canonical module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tvm import tirx

from torch_tvm.aten.dtypes import SCALAR_DTYPE, dtype_name
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import func, ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.types import parse_tensor_type
from torch_tvm.lowering.builder import Requirement as Found
from torch_tvm.lowering.fallback import has_kernel_form
from torch_tvm.lowering.symbols import unnamed_sizes
from torch_tvm.runtime.calls.convention import Argument, Convention, Requirement, Size, SizeExpression
from torch_tvm.support.errors import InternalError, InvalidInput

_UNBOUNDED = 2**62


def convention_of(module: TorchModule) -> Convention:
    """What a call of the module looks like: names, types, symbolic sizes and nesting.

    Raises :class:`InvalidInput` for an argument that is neither a tensor nor a number.
    """
    signature, main = module.signature, module.main
    inputs, outputs = list(main.type.inputs), list(main.type.results)
    users = len(inputs) - len(module.state)
    results = len(outputs) - len(module.writes)
    names = _names(module, users)
    sizes, ranges = _symbolic_sizes(main)
    arguments = [_argument(names[i], kind, sizes.get(i)) for i, kind in enumerate(inputs[:users])]
    return Convention(
        arguments=arguments,
        results=[_result(kind) for kind in outputs[:results]],
        in_spec=signature.in_spec,
        out_spec=signature.out_spec,
        state=list(module.state),
        writes=list(module.writes),
        constants=dict(signature.constants),
        constant_names={
            p: signature.names[p]
            for p in signature.constants
            if _has_all_names(module, users) and p < len(signature.names)
        },
        outputs=signature.outputs,
        ranges=ranges,
        layout=module.layout,
    )


def _has_all_names(module: TorchModule, users: int) -> bool:
    return len(module.signature.names) == users + len(module.signature.constants)


def _names(module: TorchModule, users: int) -> list[str]:
    """A name for each function argument; a signature names those, or every flat argument of the user."""
    signature = module.signature
    names = list(signature.names)
    if signature.constants and _has_all_names(module, users):
        names = [name for position, name in enumerate(names) if position not in signature.constants]
    return names if len(names) == users else [str(index) for index in range(users)]


def _argument(name: str, kind: ir.Type, sizes: tuple[Size, ...] | None) -> Argument:
    tensor = parse_tensor_type(kind)
    if tensor is None:
        scalar = str(kind).removeprefix("!torch.")
        if scalar not in SCALAR_DTYPE:
            raise InvalidInput(
                f"an argument of type {kind} cannot be passed to compiled code",
                subject=f"argument '{name}'",
                advice="compile with a tensor or a number there, or fix the value before compiling",
            )
        return Argument(name, scalar, SCALAR_DTYPE[scalar])
    if tensor.shape is None or tensor.dtype is None:
        raise InvalidInput("an argument needs a dtype and a rank", subject=f"argument '{name}'")
    if not has_kernel_form(tensor.dtype):
        raise InvalidInput(
            f"kernels do not read {dtype_name(tensor.dtype)}",
            subject=f"argument '{name}'",
            advice="pass it as another dtype, and convert it outside",
        )
    return Argument(name, "tensor", tensor.dtype, sizes if sizes is not None else tensor.shape)


def _result(kind: ir.Type) -> torch.dtype | str:
    tensor = parse_tensor_type(kind)
    if tensor is None:
        scalar = str(kind).removeprefix("!torch.")
        return scalar if scalar in SCALAR_DTYPE else "float"
    assert tensor.dtype is not None
    return tensor.dtype


def _symbolic_sizes(main: func.FuncOp) -> tuple[dict[int, tuple[Size, ...]], dict[str, tuple[int, int]]]:
    """Sizes of the arguments as numbers and expressions, and the range of every symbol."""
    block = main.regions[0].blocks[0]
    positions = {argument: index for index, argument in enumerate(block.arguments)}
    sizes: dict[int, tuple[Size, ...]] = {}
    ranges: dict[str, tuple[int, int]] = {}
    for op in block.operations:
        name, attributes = view.op_name(op), op.operation.attributes
        if name == "torch.symbolic_int":
            low = attributes["min_val"].value if "min_val" in attributes else 0
            high = attributes["max_val"].value if "max_val" in attributes else _UNBOUNDED
            ranges[attributes["symbol_name"].value] = (max(low, 0), min(high, _UNBOUNDED))
        elif name == "torch.bind_symbolic_shape" and op.operands[0] in positions:
            symbols = [value.owner.attributes["symbol_name"].value for value in list(op.operands)[1:]]
            expressions = attributes["shape_expressions"].value.results
            sizes[positions[op.operands[0]]] = tuple(_expression(e, symbols) for e in expressions)
    sizes.update({index: tuple(found) for index, found in unnamed_sizes(main, sizes).items()})
    return sizes, ranges


def _expression(expression: Any, symbols: list[str]) -> Size:
    """An affine expression of a shape binding."""
    if isinstance(expression, ir.AffineConstantExpr):
        return int(expression.value)
    if isinstance(expression, ir.AffineSymbolExpr):
        return symbols[expression.position]
    operation = next(text for kind, text in _AFFINE if isinstance(expression, kind))
    return SizeExpression(operation, _expression(expression.lhs, symbols), _expression(expression.rhs, symbols))


_AFFINE = (
    (ir.AffineAddExpr, "+"),
    (ir.AffineMulExpr, "*"),
    (ir.AffineModExpr, "%"),
    (ir.AffineFloorDivExpr, "//"),
    (ir.AffineCeilDivExpr, "ceildiv"),
)


# -- what the lowering found -------------------------------------------------------------------------------


def add_requirements(convention: Convention, found: Sequence[Found]) -> None:
    """What a program's ops ask of the sizes becomes ranges of symbols where it can, requirements otherwise."""
    for each in found:
        for condition in _conjuncts(each.condition):
            size = _size(condition)
            bound = _bound(size)
            if bound is not None:
                name, low, high = bound
                before = convention.ranges.get(name, (0, _UNBOUNDED))
                convention.ranges[name] = (max(low, before[0]), min(high, before[1]))
                continue
            place = f"{each.location}: " if each.location.file else ""
            requirement = Requirement(size, place + each.message)
            if all(requirement.condition != known.condition for known in convention.requirements):
                convention.requirements.append(requirement)


def _conjuncts(condition: Any) -> list[Any]:
    if isinstance(condition, tirx.And):
        return [*_conjuncts(condition.a), *_conjuncts(condition.b)]
    return [condition]


def _bound(size: Size) -> tuple[str, int, int] | None:
    """The bounds of the symbol in ``s0 >= 3`` and its like."""
    if not isinstance(size, SizeExpression):
        return None
    left, operation, right = size.left, size.operation, size.right
    if isinstance(left, int):
        mirrored = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "=="}
        left, operation, right = right, mirrored.get(operation, ""), left
    if not isinstance(left, str) or not isinstance(right, int):
        return None
    bounds = {
        ">=": (right, _UNBOUNDED),
        ">": (right + 1, _UNBOUNDED),
        "<=": (0, right),
        "<": (0, right - 1),
        "==": (right, right),
    }
    if operation == "!=" and right == 0:
        return left, 1, _UNBOUNDED
    return (left, *bounds[operation]) if operation in bounds else None


def _size(expression: Any) -> Size:
    """A TIR expression over symbols of the arguments."""
    if isinstance(expression, tirx.Var):
        return str(expression.name)
    if isinstance(expression, tirx.IntImm):
        return int(expression)
    if isinstance(expression, tirx.Not):
        return SizeExpression("==", _size(expression.a), 0)
    if isinstance(expression, tirx.Cast):
        return _size(expression.value)
    if isinstance(expression, tirx.Select):
        condition = _size(expression.condition)
        chosen = SizeExpression("*", condition, _size(expression.true_value))
        other = SizeExpression("*", SizeExpression("==", condition, 0), _size(expression.false_value))
        return SizeExpression("+", chosen, other)
    for kind, operation in _TIR:
        if isinstance(expression, kind):
            return SizeExpression(operation, _size(expression.a), _size(expression.b))
    raise InternalError(f"a condition on sizes has no form outside of TVM: {expression}", stage="lowering")


_TIR = (
    (tirx.Add, "+"),
    (tirx.Sub, "-"),
    (tirx.Mul, "*"),
    (tirx.FloorDiv, "//"),
    (tirx.FloorMod, "%"),
    (tirx.Min, "min"),
    (tirx.Max, "max"),
    (tirx.EQ, "=="),
    (tirx.NE, "!="),
    (tirx.LT, "<"),
    (tirx.LE, "<="),
    (tirx.GT, ">"),
    (tirx.GE, ">="),
    (tirx.And, "and"),
    (tirx.Or, "or"),
)

__all__ = ["add_requirements", "convention_of"]
