"""The walk over a canonical Torch dialect module that makes a Relax module of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import tvm
from tvm import relax, tirx

from torch_tvm.dialect import locations, view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.types import TensorType, parse_tensor_type
from torch_tvm.lowering import control_flow, fallback, loops, ops, scalars
from torch_tvm.lowering.builder import (
    Builder,
    NeedsEffects,
    Requirement,
    Result,
    function_scope,
    is_symbolic,
    is_tensor,
)
from torch_tvm.lowering.ops.creation import filled
from torch_tvm.lowering.pointwise import round_to_bfloat16
from torch_tvm.lowering.registry import LOWERINGS, RELAX_DTYPE, bind
from torch_tvm.lowering.symbols import ArgumentShapes, argument_shapes
from torch_tvm.support.errors import InternalError, Refusal, SourceLocation, UnsupportedOp, bug_of

ops.load()


@dataclass(frozen=True)
class Fallback:
    """An op that runs in ATen: its name, the user's line and why it has no kernel."""

    op: str
    location: SourceLocation
    reason: str
    is_bug: bool = False


@dataclass
class LoweredModule:
    """``mod`` holds ``main(arguments…, weights…)`` with attribute ``num_input``; ``weights`` are in its order.

    The caller tests the ``requirements`` before each call.
    """

    mod: tvm.IRModule
    weights: dict[str, torch.Tensor]
    fallbacks: list[Fallback] = field(default_factory=list)
    requirements: list[Requirement] = field(default_factory=list)


def lower(
    module: TorchModule,
    *,
    fallback: bool = True,
    check_indices: bool = True,
    refused: str = "",
    rounds: bool = False,
) -> LoweredModule:
    """Lower ``@main`` of a canonical module.

    With ``rounds`` each result of bfloat16 is rounded, also where the next op computes with it in float32.
    With ``check_indices`` the program raises :class:`InvalidIndex` for a position out of range, otherwise it takes the
    nearest one. With a reason in ``refused`` every op runs in PyTorch. Raises :class:`UnsupportedOp` with every op that
    has no lowering when ``fallback`` is false, :class:`InternalError` where a lowering has a bug.
    """
    how: dict[str, Any] = {"check_indices": check_indices, "refused": refused, "rounds": rounds}
    lowering = ModuleLowering(module, pure=not _has_structure(module), **how)
    try:
        mod = lowering.run()
    except NeedsEffects:
        lowering = ModuleLowering(module, pure=False, **how)
        mod = lowering.run()
    if not fallback:
        for item in lowering.fallbacks:
            if item.is_bug:
                raise InternalError(item.reason, subject=item.op, location=item.location, stage="lowering")
        if lowering.fallbacks:
            raise UnsupportedOp(_list_fallbacks(lowering.fallbacks), advice=_ADVICE)
    weights = {name: module.weights[name] for name in lowering.weights}
    return LoweredModule(mod, weights, lowering.fallbacks, lowering.builder.requirements)


_METADATA = {"torch.symbolic_int", "torch.bind_symbolic_shape"}
_STRUCTURED = {"torch.prim.If", "torch.prim.Loop", "torch.prim.RaiseException"}
_HANDLERS = {**control_flow.HANDLERS, **loops.HANDLERS}
_ADVICE = "compile with fallback=True to run these ops in PyTorch"


def is_lowered(op: ir.Operation | str) -> bool:
    """Whether an operation, or any of this name, is lowered by its name: it may still be refused for its operands."""
    name = op if isinstance(op, str) else view.op_name(op)
    if name in LOWERINGS or name in _HANDLERS or name in _METADATA or not name.startswith("torch."):
        return True
    if name == "torch.vtensor.literal" or name.startswith("torch.constant."):
        return True
    types = [] if isinstance(op, str) else [str(value.type) for value in op.results]
    return bool(types) and scalars.is_scalar_op(name, types)


def _list_fallbacks(fallbacks: list[Fallback]) -> str:
    lines = [f"{len(fallbacks)} op{'s' if len(fallbacks) > 1 else ''} cannot be compiled"]
    for item in fallbacks:
        scope = f" in {item.location.scope}" if item.location.scope else ""
        lines.append(f"  {item.location}: {item.op}: {item.reason}{scope}")
    return "\n".join(lines)


def _has_structure(module: TorchModule) -> bool:
    return any(view.op_name(op) in _STRUCTURED for op in view.walk(module.main))


class ModuleLowering:
    """State of one lowering: the value environment, the weights met so far and the fallbacks.

    A ``pure`` lowering makes one dataflow block, in which no op may raise or have another effect. With a reason in
    ``refused`` all ops run in PyTorch.
    """

    def __init__(
        self,
        module: TorchModule,
        *,
        pure: bool = True,
        check_indices: bool = True,
        refused: str = "",
        rounds: bool = False,
    ) -> None:
        self.module = module
        self.refused = refused
        self.rounds = rounds
        self.bb = relax.BlockBuilder()
        self.builder = Builder(self.bb, checks_indices=check_indices)
        self.builder.pure = pure
        self.env: dict[ir.Value, Any] = {}
        self.weights: dict[str, relax.Expr] = {}
        self.fallbacks: list[Fallback] = []
        self.functions = 0
        self.loop_functions: dict[tvm.ir.GlobalVar, tvm.ir.BaseFunc] = {}

    # -- the entry function --------------------------------------------------------------------------

    def run(self) -> tvm.IRModule:
        function = self.module.main
        block = function.regions[0].blocks[0]
        symbols = argument_shapes(function)
        self._know(symbols)
        arguments = []
        for index, argument in enumerate(block.arguments):
            parameter = self._parameter(f"arg{index}", argument, symbols.shapes.get(index))
            self.env[argument] = parameter
            arguments.append(parameter)
        weights = self._weight_parameters(function)
        terminator = block.operations[len(block.operations) - 1]
        pure = self.builder.pure
        attrs = {"num_input": len(arguments), "global_symbol": "main"}
        with function_scope(self.bb, "main", [*arguments, *weights], attrs):
            if not pure:
                self.block(block)
                self.finish(self._results(terminator))
            else:
                with self.bb.dataflow():
                    self.block(block)
                    result = self.bb.emit_output(self._results(terminator))
                self.bb.emit_func_output(result)
        mod = self.bb.finalize()
        for name, function in self.loop_functions.items():
            mod.update_func(name, function)
        return mod if pure else relax.transform.ConvertToDataflow()(mod)

    def _know(self, symbols: ArgumentShapes) -> None:
        """The symbols that are sizes of arguments, and their ranges."""
        b = self.builder
        users = len(self.module.main.type.inputs) - len(self.module.state)
        sizes = [size for index, shape in symbols.shapes.items() if index < users for size in shape]
        b.arguments = [size for size in sizes if isinstance(size, tirx.Var)]
        for name in symbols.unsettled:
            b.computed.append(symbols.symbols[name])
            b.analyzer.bind(symbols.symbols[name], tvm.ir.Range(0, 1 << 62))
        for name, (low, high) in symbols.ranges.items():
            if name in symbols.symbols:
                b.analyzer.bind(symbols.symbols[name], tvm.ir.Range(low, high + 1))

    def finish(self, result: relax.Expr, effects: int = 0) -> None:
        """End the current function; it has effects if more were emitted than there were at its start."""
        self.bb._func._is_pure = self.builder.effects == effects
        self.bb.emit_func_output(result)

    def use_builder(self, block_builder: relax.BlockBuilder) -> None:
        """Emit into another function, until the next call."""
        self.bb = self.builder.bb = block_builder

    def take_functions(self, block_builder: relax.BlockBuilder) -> None:
        """Keep the functions of a finished builder; their names are unique by :attr:`Builder.suffix`.

        Symbols belong to one function, so a function that shares sizes with the enclosing one gets its own.
        """
        for name, function in block_builder.finalize().functions_items():
            is_relax = isinstance(function, relax.Function)
            self.loop_functions[name] = relax.utils.copy_with_new_vars(function) if is_relax else function

    def _parameter(self, name: str, argument: ir.Value, shape: list[Any] | None) -> relax.Var:
        tensor = parse_tensor_type(argument.type)
        if tensor is None:
            dtype = scalars.SCALAR_DTYPE.get(str(argument.type))
            if dtype is None:
                raise InternalError(f"argument type {argument.type} has no Relax form", stage="lowering")
            return relax.Var(name, relax.TensorType([], dtype))
        return relax.Var(name, self.tensor_type(tensor, shape))

    def tensor_type(self, tensor: TensorType, shape: list[Any] | None = None) -> relax.TensorType:
        """The Relax type of a Torch type: unknown sizes become fresh symbols unless ``shape`` names them."""
        if tensor.shape is None or tensor.dtype is None:
            raise InternalError("a tensor without rank or dtype reached the lowering", stage="lowering")
        sizes = (
            shape
            if shape is not None
            else [self.builder.symbol("s") if size is None else size for size in tensor.shape]
        )
        return fallback.relax_tensor_type(tensor.dtype, sizes)

    def _weight_parameters(self, function: ir.OpView) -> list[relax.Var]:
        parameters = []
        for op in view.walk(function):
            if view.op_name(op) != "torch.vtensor.literal":
                continue
            name = view.resource_name(op)
            if _is_empty(op.results[0]):
                continue  # made where it stands: TVM cannot load a constant without elements
            if name is None:
                self.env[op.results[0]] = self._inline_literal(op)
                continue
            if name not in self.weights:
                if name not in self.module.weights:
                    raise InternalError(f"literal '{name}' has no tensor", stage="lowering")
                tensor = parse_tensor_type(op.results[0].type)
                assert tensor is not None
                self.weights[name] = relax.Var(f"w{len(self.weights)}", self.tensor_type(tensor))
                parameters.append(self.weights[name])
            self.env[op.results[0]] = self.weights[name]
        return parameters

    def _inline_literal(self, op: ir.Operation) -> relax.Expr:
        return fallback.constant_tensor(view.literal(op, self.module.weights))

    def _results(self, terminator: ir.Operation) -> relax.Expr:
        results = [
            self.as_tensor(self.env[v], dtype=self.scalar_dtype(v.type, [self.env[v]]))
            for v in terminator.operands
        ]
        return relax.Tuple(results)

    def scalar_dtype(self, kind: ir.Type, values: list[Any]) -> str | None:
        """The dtype of a scalar of this type that takes one of these values; ``None`` for a tensor."""
        text = str(kind).removeprefix("!torch.optional<").removesuffix(">")
        if parse_tensor_type(kind) is not None or "tensor" in text:
            return None
        return scalars.SCALAR_DTYPE.get(text) or scalars.common_dtype(self.builder, values)

    def as_tensor(self, value: Any, *, dtype: str | None = None) -> relax.Expr:
        """A value as a Relax tensor: a scalar becomes a 0-d one, of int64, float64 or bool unless ``dtype`` is given."""
        if is_tensor(value):
            return self.builder.cast(value, dtype) if dtype is not None else value
        if isinstance(value, (bool, int, float)) or is_symbolic(value):
            return self.builder.tensor(value, dtype or scalars.common_dtype(self.builder, [value]))
        raise InternalError(f"a result of type {type(value).__name__} has no Relax form", stage="lowering")

    # -- blocks ----------------------------------------------------------------------------------------

    def block(self, block: ir.Block) -> None:
        """Lower every operation of a block but its terminator."""
        operations = list(block.operations)
        self.builder.depth += 1
        for op in operations[:-1]:
            self.operation(op.operation)
        self.builder.depth -= 1

    def operation(self, op: ir.Operation) -> None:
        name = view.op_name(op)
        if name in _METADATA or (name == "torch.vtensor.literal" and op.results[0] in self.env):
            return
        b = self.builder
        b.op = name
        b.op_name = name.removeprefix("torch.").replace(".", "_")
        b.location = locations.from_mlir(op.location)
        b.results = [_result(value.type) for value in op.results]
        if name == "torch.vtensor.literal":
            self.env[op.results[0]] = filled(b, b.results[0].shape or (), 0)
            return
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, op)
            return
        if name.startswith("torch.constant."):
            constant = view.constant_of_op(op)
            self.env[op.results[0]] = str(constant) if isinstance(constant, torch.device) else constant
            return
        self._define(op, self._values(name, op))

    def leave_to_aten(self, op: ir.Operation, reason: str) -> None:
        """Run an op in PyTorch, and say why."""
        self.fallbacks.append(Fallback(view.op_name(op), self.builder.location, reason))
        self.run_in_aten(op)

    def run_in_aten(self, op: ir.Operation) -> None:
        """Run an op in PyTorch as part of one that already does: it reads what only PyTorch has."""
        operands = [self.env[operand] for operand in op.operands]
        values = fallback.emit(self, op, view.op_name(op), operands)
        self._define(op, values)

    def _values(self, name: str, op: ir.Operation) -> Any:
        operands = [self.env[operand] for operand in op.operands]
        types = [str(value.type) for value in op.results]
        try:
            if scalars.is_scalar_op(name, types):
                return scalars.evaluate(self.builder, name, operands, types[0])
            entry = LOWERINGS.get(name)
            if self.refused:
                raise Refusal(self.refused)
            if entry is None:
                raise Refusal("no lowering for this op")
            if any(_is_complex(value.type) for value in (*op.operands, *op.results)):
                raise Refusal("TVM has no complex numbers")
            return entry.function(self.builder, *bind(entry, operands, self.builder))
        except Refusal as refusal:
            self.fallbacks.append(Fallback(name, self.builder.location, refusal.reason))
        except NeedsEffects:
            raise
        except Exception as error:
            self.fallbacks.append(Fallback(name, self.builder.location, bug_of(error), is_bug=True))
        return fallback.emit(self, op, name, operands)

    def _define(self, op: ir.Operation, values: Any) -> None:
        results = list(op.results)
        if not results:
            return
        if len(results) == 1:
            self.env[results[0]] = self._as_told(self.shaped(results[0], values))
            return
        for result, value in zip(results, values, strict=True):
            self.env[result] = self._as_told(self.shaped(result, value)) if view.is_used(result) else value

    def _as_told(self, value: Any) -> Any:
        if self.rounds and is_tensor(value) and self.builder.dtype(value) == "bfloat16":
            return round_to_bfloat16(self.builder, value)
        return value

    def shaped(self, result: ir.Value, value: Any) -> Any:
        """A value with every size that the dialect knows; sizes that nobody knows become symbols."""
        expected = parse_tensor_type(result.type)
        if expected is None or expected.shape is None or not is_tensor(value) or expected.dtype is None:
            return value
        wanted = fallback.relax_tensor_type(expected.dtype, [-1 if s is None else s for s in expected.shape])
        if str(value.ty.dtype) != str(wanted.dtype):
            raise InternalError(
                f"{view.op_name(result.owner)} gave {value.ty.dtype}, the dialect says {wanted.dtype}",
                location=self.builder.location,
                stage="lowering",
            )
        if isinstance(value.ty.shape, relax.ShapeExpr):
            sizes = list(value.ty.shape.values)
            if len(sizes) < len(expected.shape):
                value = self.builder.reshape(value, [1 if size is None else size for size in expected.shape])
                sizes = list(value.ty.shape.values)
            known = [int(s) if isinstance(s, tirx.IntImm) else None for s in sizes]
            merged = [
                e if e is not None and k is None else s
                for e, k, s in zip(
                    [*expected.shape, *[None] * (len(sizes) - len(expected.shape))], known, sizes, strict=True
                )
            ]
            if all(a is b for a, b in zip(merged, sizes, strict=True)):
                return value
        else:
            rank = len(wanted.shape.values)
            merged = [self.builder.found_size() if int(s) == -1 else s for s in wanted.shape.values]
            assert len(merged) == rank
        return self.builder.match_shape(value, merged, str(wanted.dtype))


def _is_complex(mlir_type: ir.Type) -> bool:
    return "complex<" in str(mlir_type)


def _is_empty(value: ir.Value) -> bool:
    kind = parse_tensor_type(value.type)
    return kind is not None and kind.shape is not None and 0 in kind.shape and not _is_complex(value.type)


def _result(mlir_type: ir.Type) -> Result:
    tensor = parse_tensor_type(mlir_type)
    if tensor is None:
        return Result(None, None)
    return Result(tensor.shape, RELAX_DTYPE.get(str(tensor.dtype)))


__all__ = ["Fallback", "LoweredModule", "ModuleLowering", "is_lowered", "lower"]
