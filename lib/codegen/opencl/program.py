"""Relax functions as Python source that a runtime for a device executes.

    lv = call_tir(fused_add, (x, w), Tensor((s0, 64), "float32"))
    gv = (lv,)

becomes

    def f_main(x, w):
        s0 = x.shape[0]
        lv = allocate((s0, 64,), 'float32')
        f_fused_add(x, w, lv)
        return [lv]

What nobody reads any more is let go at once, so that the next value gets its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import Call, Expr, GlobalVar, PrimType, StringImm, TupleGetItem, Var

from torch_tvm.codegen.opencl.expressions import Names, function_name, number
from torch_tvm.support.errors import InternalError

ENTRY = "main"
"""The function that a user calls: nobody has looked at its arguments before."""


class DeviceFunction:
    """One Relax function as the source of a Python function; ``constants`` are shared by the functions of a module."""

    def __init__(self, name: str, function: relax.Function, constants: list[Any]) -> None:
        self._names = Names()
        self._constants = constants
        self._lines: list[str] = []
        self._sizes: set[Var] = set()
        self._reads = _Reads(function)
        parameters = [self._names[param] for param in function.params]
        for param, text in zip(function.params, parameters, strict=True):
            self._bind_sizes(param.ty, text, 1, checks=name == ENTRY)
        result = self._block(function.body, 1, is_last=True)
        self._line(1, f"return {result}")
        self.source = "\n".join([f"def {function_name(name)}({', '.join(parameters)}):", *self._lines])

    def _line(self, depth: int, text: str) -> None:
        self._lines.append("    " * depth + text)

    # -- sizes -----------------------------------------------------------------------------------------

    def _bind_sizes(self, kind: Any, text: str, depth: int, *, checks: bool) -> None:
        """Symbols that a type introduces get the sizes of the value; sizes that are known must be those."""
        if isinstance(kind, relax.TupleType):
            for index, field in enumerate(kind.fields):
                self._bind_sizes(field, f"{text}[{index}]", depth, checks=checks)
            return
        if isinstance(kind, relax.ShapeType) and kind.values is not None:
            sizes, shape = list(kind.values), text
        elif isinstance(kind, relax.TensorType) and isinstance(kind.shape, relax.ShapeExpr):
            sizes, shape = list(kind.shape.values), f"{text}.shape"
        else:
            return
        later: list[tuple[int, Expr]] = []
        if checks:
            self._line(depth, f"match_rank({shape}, {len(sizes)})")
        for axis, size in enumerate(sizes):
            if isinstance(size, Var) and size not in self._sizes:
                self._sizes.add(size)
                self._line(depth, f"{self._names[size]} = {shape}[{axis}]")
            else:
                later.append((axis, size))
        if checks and later:
            wanted = ", ".join(f"({axis}, {number(size, self._names)})" for axis, size in later)
            self._line(depth, f"match_cast({shape}, {wanted})")

    def _sizes_of(self, values: Sequence[Expr]) -> str:
        return f"({''.join(number(value, self._names) + ', ' for value in values)})"

    # -- bindings --------------------------------------------------------------------------------------

    def _block(self, body: Expr, depth: int, *, is_last: bool = False) -> str:
        """The bindings of a body; returns its result."""
        if not isinstance(body, relax.SeqExpr):
            return self._value(body)
        for block in body.blocks:
            for binding in block.bindings:
                self._binding(binding, depth)
                gone = self._reads.last.get(binding.var, [])
                names = [self._names[var] for var in gone if var in self._names]
                if names:
                    self._line(depth, f"{' = '.join(names)} = None")
        return self._value(body.body)

    def _binding(self, binding: Any, depth: int) -> None:
        name, value = self._names[binding.var], binding.value
        if isinstance(binding, relax.MatchCast):
            self._line(depth, f"{name} = {self._value(value)}")
            self._bind_sizes(binding.ty, name, depth, checks=True)
        elif isinstance(value, relax.If):
            self._line(depth, f"if truth({self._value(value.cond)}):")
            self._line(depth + 1, f"{name} = {self._block(value.true_branch, depth + 1)}")
            self._line(depth, "else:")
            self._line(depth + 1, f"{name} = {self._block(value.false_branch, depth + 1)}")
        elif isinstance(value, Call):
            self._call(name, value, depth)
        else:
            self._line(depth, f"{name} = {self._value(value)}")
            if isinstance(binding.var.ty, PrimType):
                self._sizes.add(binding.var)

    def _value(self, value: Expr) -> str:
        match value:
            case Var():
                return self._names[value]
            case tvm.ir.Tuple():
                return f"[{', '.join(map(self._value, value.fields))}]"
            case TupleGetItem():
                return f"{self._value(value.tuple_value)}[{value.index}]"
            case tvm.ir.expr.GenericConst():
                self._constants.append(value.value)
                return f"constants[{len(self._constants) - 1}]"
            case relax.ShapeExpr():
                return self._sizes_of(value.values)
            case StringImm():
                return repr(str(value.value))
            case relax.SeqExpr() if not value.blocks:
                return self._value(value.body)
        if isinstance(value.ty, PrimType):
            return number(value, self._names)
        raise InternalError(f"no Python for {type(value).__name__} {value}", stage="code generation")

    # -- calls -----------------------------------------------------------------------------------------

    def _call(self, name: str, call: Call, depth: int) -> None:
        op, args = call.op, list(call.args)
        if isinstance(op, (GlobalVar, relax.ExternFunc)):
            self._line(depth, f"{name} = {self._called(op, args)}")
            return
        match op.name:
            case "relax.call_tir" | "relax.call_dps_packed":
                self._kernel(name, call, depth)
            case "relax.call_tir_inplace":
                self._in_place(name, call, depth)
            case "relax.call_pure_packed" | "relax.invoke_pure_closure":
                self._line(depth, f"{name} = {self._called(args[0], args[1:])}")
            case "relax.reshape" | "relax.memory.view":
                self._view(name, call, depth)
            case "relax.shape_of":
                self._line(depth, f"{name} = tuple({self._value(args[0])}.shape)")
            case "relax.tensor_to_shape":
                self._line(depth, f"{name} = tuple(numbers({self._value(args[0])}))")
            case "relax.memory.ensure_zero_offset" | "relax.stop_lift_params":
                self._line(depth, f"{name} = {self._value(args[0])}")
            case _:
                raise InternalError(f"no Python for a call of {op.name}", stage="code generation")

    def _called(self, callee: Any, args: Sequence[Expr]) -> str:
        values = [self._value(arg) for arg in args]
        if isinstance(callee, Var):
            return f"{self._names[callee]}({', '.join(values)})"
        return _call(callee, values, "foreign")

    def _kernel(self, name: str, call: Call, depth: int) -> None:
        callee, operands, *scalars = call.args
        (kind,) = call.ty_args
        fields = list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]
        is_one = not isinstance(kind, relax.TupleType)
        results = [name] if is_one else [self._names.fresh(f"{name}_{index}") for index in range(len(fields))]
        for result, field in zip(results, fields, strict=True):
            sizes = self._sizes_of(field.shape.values)
            self._line(depth, f"{result} = allocate({sizes}, {str(field.dtype)!r})")
        given = [self._value(operand) for operand in operands.fields]
        numbers = [number(value, self._names) for shape in scalars for value in shape.values]
        self._line(depth, _call(callee, [*given, *results, *numbers]))
        if not is_one:
            self._line(depth, f"{name} = [{', '.join(results)}]")
            self._line(depth, f"{' = '.join(results)} = None")

    def _in_place(self, name: str, call: Call, depth: int) -> None:
        callee, operands, *scalars = call.args
        (kind,) = call.ty_args
        fields = list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]
        given = [self._value(operand) for operand in operands.fields]
        results, fresh = [], []
        for index, field in zip(call.attrs.inplace_indices, fields, strict=True):
            if int(index) >= 0:
                results.append(given[int(index)])
                continue
            result = self._names.fresh(f"{name}_new")
            self._line(depth, f"{result} = allocate({self._sizes_of(field.shape.values)}, {str(field.dtype)!r})")
            results.append(result)
            fresh.append(result)
        numbers = [number(value, self._names) for shape in scalars for value in shape.values]
        self._line(depth, _call(callee, [*given, *fresh, *numbers]))
        is_one = not isinstance(kind, relax.TupleType)
        self._line(depth, f"{name} = {results[0] if is_one else '[' + ', '.join(results) + ']'}")

    def _view(self, name: str, call: Call, depth: int) -> None:
        """The same memory with the sizes of the result."""
        kind = call.ty
        if call.op.name == "relax.memory.view" and any(not isinstance(extra, tvm.ir.Tuple) for extra in call.args[2:]):
            raise InternalError(f"no Python for {call}", stage="code generation")
        sizes = self._sizes_of(kind.shape.values)
        self._line(depth, f"{name} = {self._value(call.args[0])}.viewed({sizes})")


def _call(callee: Any, values: Sequence[str], foreign: str = "foreign_into") -> str:
    """Python's call of a function of the module, or by ``foreign`` of a packed one, with operands as written."""
    if isinstance(callee, GlobalVar):
        return f"{function_name(callee.name_hint)}({', '.join(values)})"
    return f"{foreign}({', '.join([repr(str(callee.global_symbol)), *values])})"


class _Reads:
    """Where each variable is read last, within the body that binds it: ``last[var]`` are those that
    end with ``var``.
    """

    def __init__(self, function: relax.Function) -> None:
        self.last: dict[Var, list[Var]] = {}
        self._body(function.body)

    def _body(self, body: Expr) -> None:
        if not isinstance(body, relax.SeqExpr):
            return
        kept = set(relax.analysis.free_vars(body.body))
        bindings = [binding for block in body.blocks for binding in block.bindings]
        own = {binding.var for binding in bindings}
        for binding in reversed(bindings):
            if isinstance(binding.value, relax.If):
                self._body(binding.value.true_branch)
                self._body(binding.value.false_branch)
            read = [var for var in _variables(binding.value) if var in own and var not in kept]
            if binding.var not in kept:
                read.append(binding.var)
            kept |= {binding.var, *read}
            self.last[binding.var] = [var for var in read if not isinstance(var.ty, PrimType)]


def _variables(value: Expr) -> list[Var]:
    return list(relax.analysis.free_vars(value))


def symbols(function: relax.Function) -> list[tirx.Var]:
    """The symbolic sizes of a function."""
    return list(relax.analysis.defined_symbolic_vars(function))


__all__ = ["DeviceFunction", "symbols"]
