"""The walk over a canonical Torch dialect module that makes a Relax module of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm
from tvm import relax, tirx

from torch_tvm.aten.libraries import is_library_call
from torch_tvm.dialect import view
from torch_tvm.dialect.mlir import func, ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.types import parse_tensor_type
from torch_tvm.lowering import complex_parts, fallback, ops, scalars
from torch_tvm.lowering.builder import NeedsEffects, Requirement, function_scope
from torch_tvm.lowering.context import METADATA, STRUCTURED, Fallback, LoweringContext
from torch_tvm.lowering.control import control_flow, loops  # noqa: F401
from torch_tvm.lowering.registry import LOWERINGS, own_entry
from torch_tvm.lowering.symbols import ArgumentShapes, argument_shapes
from torch_tvm.support.errors import InternalError, UnsupportedOp

ops.load()


@dataclass
class LoweredModule:
    """``mod`` holds ``main(arguments…, weights…)`` with attribute ``num_input``; ``weights`` are in its order.

    ``library_calls`` are ops that a library has, ``fallbacks`` those that PyTorch runs for want of a kernel,
    ``refused`` those that have a lowering, which does not take their operands. The caller tests the ``requirements``
    before each call.
    """

    mod: tvm.IRModule
    weights: dict[str, torch.Tensor]
    fallbacks: list[Fallback] = field(default_factory=list)
    library_calls: list[Fallback] = field(default_factory=list)
    refused: list[ir.Operation] = field(default_factory=list)
    requirements: list[Requirement] = field(default_factory=list)


def lower(
    module: TorchModule,
    *,
    fallback: bool = True,
    check_indices: bool = True,
    many_threads: bool = False,
    refused: Mapping[int, str] | None = None,
    rounds: bool = False,
    in_torch: Collection[str] = (),
    lowerings: Mapping[str, Callable[..., Any]] | None = None,
) -> LoweredModule:
    """Lower ``@main`` of a canonical module.

    With ``rounds`` each result of bfloat16 is rounded, also where the next op computes with it in float32.
    With ``check_indices`` the program raises :class:`InvalidIndex` for a position out of range, otherwise it takes the
    nearest one. With ``many_threads`` kernels are made for a GPU.
    Ops named in ``in_torch`` run in PyTorch, and those at the positions ``refused``, for that reason.
    ``lowerings`` are asked before those of the registry. Raises
    :class:`UnsupportedOp` with every op that has no lowering when ``fallback`` is false, :class:`InternalError` where a
    lowering has a bug.
    """
    how: dict[str, Any] = {
        "check_indices": check_indices,
        "many_threads": many_threads,
        "refused": refused,
        "rounds": rounds,
        "in_torch": in_torch,
        "lowerings": {name: own_entry(name, function) for name, function in (lowerings or {}).items()},
    }
    lowering = ModuleLowering(module, pure=not _has_structure(module), **how)
    try:
        mod = lowering.run()
    except NeedsEffects:
        lowering = ModuleLowering(module, pure=False, **how)
        mod = lowering.run()
    left = [item for item in lowering.fallbacks if not item.library]
    if not fallback:
        refuse_fallbacks(left)
    weights = {name: module.weights[name] for name in lowering.weights}
    calls = [item for item in lowering.fallbacks if item.library]
    return LoweredModule(mod, weights, left, calls, lowering.refusals, lowering.builder.requirements)


def refuse_fallbacks(fallbacks: list[Fallback]) -> None:
    """Raise :class:`UnsupportedOp` with every op that runs in PyTorch, :class:`InternalError` if
    one is there by a bug.
    """
    for item in fallbacks:
        if item.is_bug:
            raise InternalError(item.reason, subject=item.op, location=item.location, stage="lowering")
    if fallbacks:
        raise UnsupportedOp(_list_fallbacks(fallbacks), advice=_ADVICE)


_STRUCTURED = {"torch.prim.If", "torch.prim.Loop", "torch.prim.RaiseException"}
_ADVICE = "compile with fallback=True to run these ops in PyTorch"


def is_lowered(op: ir.Operation | str) -> bool:
    """Whether an operation, or any of this name, is lowered by its name: it may still be refused for its operands."""
    name = op if isinstance(op, str) else view.op_name(op)
    if not isinstance(op, str) and name.startswith("torch.aten.") and complex_parts.has_complex(op):
        return complex_parts.is_lowered(name) or name in STRUCTURED or is_library_call(name)
    if name in LOWERINGS or name in STRUCTURED or name in METADATA or not name.startswith("torch."):
        return True
    if is_library_call(name):
        return True
    if name == "torch.vtensor.literal" or name.startswith("torch.constant."):
        return True
    types = [] if isinstance(op, str) else [str(value.type) for value in op.results]
    return bool(types) and scalars.is_scalar_op(name, types)


def refusable(module: TorchModule) -> list[int]:
    """Positions, in the order of :func:`~torch_tvm.dialect.view.walk`, of the ops that could run in PyTorch instead."""
    names = [view.op_name(op) for op in view.walk(module.main)]
    return [index for index, name in enumerate(names) if name.startswith("torch.") and not _is_fixed(name)]


def _is_fixed(name: str) -> bool:
    if name in STRUCTURED or name in METADATA or name == "torch.vtensor.literal":
        return True
    return name.startswith(("torch.constant.", "torch.prim."))


def _list_fallbacks(fallbacks: list[Fallback]) -> str:
    lines = [f"{len(fallbacks)} op{'s' if len(fallbacks) > 1 else ''} cannot be compiled"]
    for item in fallbacks:
        scope = f" in {item.location.scope}" if item.location.scope else ""
        lines.append(f"  {item.location}: {item.op}: {item.reason}{scope}")
    return "\n".join(lines)


def _has_structure(module: TorchModule) -> bool:
    return any(view.op_name(op) in _STRUCTURED for op in view.walk(module.main))


class ModuleLowering(LoweringContext):
    """The lowering of the entry function."""

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
        for name, loop in self.loop_functions.items():
            mod.update_func(name, loop)
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

    def _parameter(self, name: str, argument: ir.Value, shape: list[Any] | None) -> relax.Var:
        tensor = parse_tensor_type(argument.type)
        if tensor is None:
            dtype = scalars.SCALAR_DTYPE.get(str(argument.type))
            if dtype is None:
                raise InternalError(f"argument type {argument.type} has no Relax form", stage="lowering")
            return relax.Var(name, relax.TensorType([], dtype))
        return relax.Var(name, self.tensor_type(tensor, shape))

    def _weight_parameters(self, function: func.FuncOp) -> list[relax.Var]:
        parameters: list[relax.Var] = []
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
                parameters.append(relax.Var(f"w{len(self.weights)}", self.tensor_type(tensor)))
                self.weights[name] = parameters[-1]
            self.env[op.results[0]] = self.weights[name]
        return parameters

    def _inline_literal(self, op: ir.Operation) -> relax.Expr:
        return fallback.constant_tensor(view.literal(op, self.module.weights))

    def _results(self, terminator: ir.Operation) -> relax.Expr:
        results = [
            self.as_tensor(self.env[v], dtype=self.scalar_dtype(v.type, [self.env[v]])) for v in terminator.operands
        ]
        return relax.Tuple(results)


def _is_empty(value: ir.Value) -> bool:
    kind = parse_tensor_type(value.type)
    return kind is not None and kind.shape is not None and 0 in kind.shape


__all__ = [
    "Fallback",
    "LoweredModule",
    "ModuleLowering",
    "is_lowered",
    "lower",
    "refusable",
    "refuse_fallbacks",
]
