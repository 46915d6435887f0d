"""What every lowering of one module shares: the environment of values, the walk over blocks, the way into PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import tvm
from tvm import relax, tirx

from torch_tvm.aten.libraries import library_of
from torch_tvm.dialect import locations, view
from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.types import TensorType, parse_tensor_type
from torch_tvm.lowering import complex_parts, fallback, scalars
from torch_tvm.lowering.builder import Builder, InLibrary, NeedsEffects, Result, is_symbolic, is_tensor
from torch_tvm.lowering.ops.shapes.creation import filled
from torch_tvm.lowering.pointwise import round_to_bfloat16
from torch_tvm.lowering.registry import COMPLEX, LOWERINGS, RELAX_DTYPE, Entry, Parts, bind
from torch_tvm.support.errors import InternalError, Refusal, SourceLocation, bug_of

METADATA = {"torch.symbolic_int", "torch.bind_symbolic_shape"}
"""Ops that say what is known of sizes, and compute nothing."""


@dataclass(frozen=True)
class Fallback:
    """An op that runs in ATen: its name, the user's line and why it has no kernel, or which ``library`` has it."""

    op: str
    location: SourceLocation
    reason: str
    is_bug: bool = False
    library: str = ""


class LoweringContext:
    """State of one lowering, given to what lowers an op with regions or lists: values, weights met so far, fallbacks.

    A ``pure`` lowering makes one dataflow block, in which no op may raise or have another effect. Ops run in PyTorch
    that are named in ``in_torch``, or whose position in the module is in ``refused``, with the reason. ``lowerings``
    are asked before those of the registry.
    """

    def __init__(
        self,
        module: TorchModule,
        *,
        pure: bool = True,
        check_indices: bool = True,
        many_threads: bool = False,
        refused: Mapping[int, str] | None = None,
        rounds: bool = False,
        in_torch: Collection[str] = (),
        lowerings: Mapping[str, Entry] | None = None,
    ) -> None:
        self.module = module
        self.refused = _at_positions(module, refused or {})
        self.in_torch = in_torch
        self.own = lowerings or {}
        self.rounds = rounds
        self.bb = relax.BlockBuilder()
        self.builder = Builder(self.bb, checks_indices=check_indices, many_threads=many_threads)
        self.builder.pure = pure
        self.env: dict[ir.Value, Any] = {}
        self.weights: dict[str, relax.Expr] = {}
        self.fallbacks: list[Fallback] = []
        self.refusals: list[ir.Operation] = []
        self.functions = 0
        self.loop_functions: dict[tvm.ir.GlobalVar, tvm.ir.BaseFunc] = {}

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

    def scalar_dtype(self, kind: ir.Type, values: list[Any]) -> str | None:
        """The dtype of a scalar of this type that takes one of these values; ``None`` for a tensor."""
        text = str(kind).removeprefix("!torch.optional<").removesuffix(">")
        if parse_tensor_type(kind) is not None or "tensor" in text:
            return None
        return scalars.SCALAR_DTYPE.get(text) or scalars.common_dtype(self.builder, values)

    def as_tensor(self, value: Any, *, dtype: str | None = None) -> relax.Expr:
        """A value as a Relax tensor: a scalar becomes a 0-d one, of int64, float64 or bool unless
        ``dtype`` is given.
        """
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
        if name in METADATA or (name == "torch.vtensor.literal" and op.results[0] in self.env):
            return
        b = self.builder
        b.op = name
        b.op_name = name.removeprefix("torch.").replace(".", "_")
        b.location = locations.from_mlir(op.location)
        b.results = [_result(value) for value in op.results]
        if name == "torch.vtensor.literal":
            pair = [2] if complex_parts.is_complex(op.results[0]) else []
            self.env[op.results[0]] = filled(b, [*(b.results[0].shape or ()), *pair], 0)
            return
        handler = STRUCTURED.get(name)
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
        values = fallback.emit(self.builder, self.module.check_admitted, op, view.op_name(op), operands)
        self._define(op, values)

    def _values(self, name: str, op: ir.Operation) -> Any:
        operands = self._rounded([self.env[operand] for operand in op.operands], op)
        types = [str(value.type) for value in op.results]
        try:
            if scalars.is_scalar_op(name, types):
                return scalars.evaluate(self.builder, name, operands, types[0])
            entry = LOWERINGS.get(name)
            if op in self.refused:
                raise Refusal(self.refused[op])
            if name in self.in_torch:
                raise Refusal("the options name it as one for PyTorch")
            is_complex = complex_parts.has_complex(op)
            if is_complex and (complex_parts.is_lowered(name) or library_of(name) is None):
                return complex_parts.lower(self.builder, op, name, operands)
            if entry is None or is_complex:
                library = library_of(name)
                raise Refusal("no lowering for this op") if library is None else InLibrary(library)
            if name in self.own:
                try:
                    return self.own[name].function(self.builder, *bind(self.own[name], operands, self.builder))
                except Refusal:
                    pass  # the built-in one may take it
            return entry.function(self.builder, *bind(entry, operands, self.builder))
        except InLibrary as call:
            self.fallbacks.append(Fallback(name, self.builder.location, "", library=call.library))
        except Refusal as refusal:
            self.fallbacks.append(Fallback(name, self.builder.location, refusal.reason))
            is_known = name in LOWERINGS or name in COMPLEX
            if is_known and op not in self.refused and name not in self.in_torch:
                self.refusals.append(op)
        except NeedsEffects:
            raise
        except Exception as error:
            if name in self.own:  # code of the user's
                raise
            self.fallbacks.append(Fallback(name, self.builder.location, bug_of(error), is_bug=True))
        return fallback.emit(self.builder, self.module.check_admitted, op, name, operands)

    def _rounded(self, operands: list[Any], op: ir.Operation) -> list[Any]:
        """The operands; those of bfloat16 that are computed are rounded first where a small difference may change a
        whole result: the place of the least of equal numbers, a comparison, ``floor``.
        """
        if self.rounds or not _jumps(op):
            return operands
        is_computed = lambda value: isinstance(value, relax.Var) and self.bb.lookup_binding(value) is not None
        return [
            round_to_bfloat16(self.builder, value)
            if is_computed(value) and self.builder.dtype(value) == "bfloat16"
            else value
            for value in operands
        ]

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
        if isinstance(value, list):
            return [self._together(item) for item in value]
        if isinstance(value, Parts) and expected is not None:
            kind = TensorType(expected.shape, _real(expected.dtype))
            parts = complex_parts.dense(self.builder, value)
            return self._together(Parts(*(self._shaped(result, kind, part) for part in (parts.re, parts.im))))
        return self._shaped(result, expected, value)

    def _together(self, value: Any) -> Any:
        return complex_parts.together(self.builder, value) if isinstance(value, Parts) else value

    def _shaped(self, result: ir.Value, expected: TensorType | None, value: Any) -> Any:
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


Structured = Callable[[LoweringContext, ir.Operation], None]
STRUCTURED: dict[str, Structured] = {}
"""Ops whose lowering reads the operation itself, its regions or lists, by name."""


def structured(*names: str) -> Callable[[Structured], Structured]:
    """Register the lowering of ops with regions or lists: ``@structured("torch.prim.If")``."""

    def register(function: Structured) -> Structured:
        for name in names:
            assert name not in STRUCTURED and name not in LOWERINGS, f"{name} has a lowering"
            STRUCTURED[name] = function
        return function

    return register


_JUMPING = {
    "torch.aten." + name
    for name in (
        "ceil", "floor", "frac", "round", "round.decimals", "trunc",
        "div.Scalar_mode", "div.Tensor_mode", "floor_divide", "floor_divide.Scalar",
        "fmod.Scalar", "fmod.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor", "remainder.Tensor",
    )
}  # fmt: skip


def _jumps(op: ir.Operation) -> bool:
    """Whether an op gives booleans or integers that someone reads, or jumps where its operand passes a whole number."""
    if view.op_name(op) in _JUMPING:
        return True
    found = [parse_tensor_type(result.type) for result in op.results if view.is_used(result)]
    dtypes = [kind.dtype for kind in found if kind is not None and kind.dtype is not None]
    return any(not (dtype.is_floating_point or dtype.is_complex) for dtype in dtypes)


def _at_positions(module: TorchModule, reasons: Mapping[int, str]) -> dict[ir.Operation, str]:
    if not reasons:
        return {}
    return {op: reasons[index] for index, op in enumerate(view.walk(module.main)) if index in reasons}


def _result(value: ir.Value) -> Result:
    """What a lowering is told of a result; of a complex one what holds for each of its parts."""
    tensor = parse_tensor_type(value.type)
    if tensor is None:
        return Result(None, None, view.is_used(value))
    return Result(tensor.shape, RELAX_DTYPE.get(str(_real(tensor.dtype))), view.is_used(value))


def _real(dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype of the parts of complex numbers; any other as it is."""
    return dtype.to_real() if dtype is not None and dtype.is_complex else dtype


__all__ = ["METADATA", "STRUCTURED", "Fallback", "LoweringContext", "structured"]
