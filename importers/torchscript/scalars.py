"""Arithmetic on numbers: folded when every operand is known, else recorded as operations on ``!torch.int``,
``!torch.float`` and ``!torch.bool``.

The dialect has only some of ATen's scalar ops. What it lacks goes through 0-d tensors of 64 bits, which give
the same results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_tvm.aten.dtypes import SCALAR_DTYPE
from torch_tvm.dialect.emitter import Emitter
from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.torchscript.values import RuntimeText, Scalar, is_number, kind_of, origins

_PLACEHOLDER = {"int": 1, "float": 0.5, "bool": True}

_INT_OPS = {
    "add": "torch.aten.add.int",
    "sub": "torch.aten.sub.int",
    "mul": "torch.aten.mul.int",
    "floordiv": "torch.aten.floordiv.int",
    "remainder": "torch.aten.remainder.int",
    "min": "torch.prim.min.int",
    "max": "torch.prim.max.int",
    "eq": "torch.aten.eq.int",
    "ne": "torch.aten.ne.int",
    "lt": "torch.aten.lt.int",
    "le": "torch.aten.le.int",
    "gt": "torch.aten.gt.int",
    "ge": "torch.aten.ge.int",
}
_FLOAT_OPS = {
    "add": "torch.aten.add.float",
    "sub": "torch.aten.sub.float",
    "mul": "torch.aten.mul.float",
    "div": "torch.aten.div.float",
    "eq": "torch.aten.eq.float",
    "lt": "torch.aten.lt.float",
    "gt": "torch.aten.gt.float",
    "ge": "torch.aten.ge.float",
}
_BOOL_OPS = {
    "and": "torch.aten.__and__.bool",
    "or": "torch.aten.__or__.bool",
    "eq": "torch.aten.eq.bool",
    "ne": "torch.aten.ne.bool",
    "xor": "torch.aten.ne.bool",
}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
_SYMBOLIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "remainder": operator.mod,
    "min": torch.sym_min,
    "max": torch.sym_max,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_BINARY_TENSOR = {
    "floordiv": "floor_divide.default",
    "remainder": "remainder.Tensor",
    "fmod": "fmod.Tensor",
    "pow": "pow.Tensor_Tensor",
    "min": "minimum.default",
    "max": "maximum.default",
    "atan2": "atan2.default",
    "and": "bitwise_and.Tensor",
    "or": "bitwise_or.Tensor",
    "xor": "bitwise_xor.Tensor",
    "lshift": "bitwise_left_shift.Tensor",
    "rshift": "bitwise_right_shift.Tensor",
}
UNARY_TENSOR = {
    **{
        name: f"{name}.default"
        for name in (
            "exp expm1 log log2 log10 log1p sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
            "floor ceil trunc erf lgamma"
        ).split()
    },
    "fabs": "abs.default",
    "gamma": "lgamma.default",
    "invert": "bitwise_not.default",
}
_NAMES = {
    "__and__": "and",
    "__or__": "or",
    "__xor__": "xor",
    "__lshift__": "lshift",
    "__rshift__": "rshift",
    "bitwise_not": "invert",
    "mod": "fmod",
}


class ScalarContext(Protocol):
    """Where scalar operations are recorded: :class:`~torch_tvm.importers.torchscript.context.Context`."""

    @property
    def emitter(self) -> Emitter: ...

    def new_symbol(self) -> torch.SymInt: ...

    def failure(
        self, problem: str, *, subject: str = "", advice: str = "", origin: frozenset[int] = frozenset()
    ) -> Exception: ...


class Scalars:
    """Records scalar operations for one import."""

    def __init__(self, context: ScalarContext) -> None:
        self.context = context
        self.emitter = context.emitter

    # -- making and converting -----------------------------------------------------------------------

    def make(self, kind: str, value: ir.Value, fake: Any = None, origin: frozenset[int] = frozenset()) -> Any:
        """A run-time number, or the number itself when its symbolic value is known."""
        if kind == "int":
            if fake is None:
                fake = self.context.new_symbol()
            if isinstance(fake, int):
                return fake
            known = fake.node.maybe_as_int()
            if known is not None:
                return int(known)
        return Scalar(kind, value, fake, origin)

    def op(self, name: str, operands: list[ir.Value], kind: str) -> ir.Value:
        return self.emitter.op(name, operands, [self.emitter.types.parse(f"!torch.{kind}")]).result

    def value(self, number: Any, kind: str | None = None) -> ir.Value:
        """``number`` as an MLIR value, converted to ``kind`` when one is given."""
        have = kind_of(number)
        if not isinstance(number, Scalar):
            return self.emitter.constant(number if kind is None else self.convert(number, kind))
        if kind is None or have == kind:
            return number.value
        if kind == "float":
            source = number.value if have == "int" else self.op("torch.aten.Int.bool", [number.value], "int")
            return self.op("torch.aten.Float.Scalar", [source], "float")
        if kind == "int":
            return self.op(f"torch.aten.Int.{have}", [number.value], "int")
        return self.op(f"torch.aten.Bool.{have}", [number.value], "bool")

    def convert(self, number: Any, kind: str) -> Any:
        """``int(x)``, ``float(x)`` or ``bool(x)``."""
        if not isinstance(number, Scalar):
            return {"int": int, "float": float, "bool": bool}[kind](number)
        if number.kind == kind:
            return number
        if kind == "bool" and number.kind == "int":
            return self.binary("ne", number, 0)
        return self.make(kind, self.value(number, kind), None, number.origin)

    def placeholder(self, number: Scalar) -> Any:
        return _PLACEHOLDER[number.kind]

    def tensor(self, number: Any) -> ir.Value:
        """``number`` as a 0-d tensor of 64 bits (or ``bool``)."""
        kind = kind_of(number)
        meta = torch.empty((), dtype=SCALAR_DTYPE[kind or "float"], device="meta")
        operand = self.value(number)
        return self.emitter.op("torch.prim.NumToTensor.Scalar", [operand], [self.emitter.types.tensor(meta)]).result

    def from_tensor(self, value: ir.Value, kind: str, origin: frozenset[int] = frozenset()) -> Any:
        """The element of a one-element tensor value."""
        name = {"int": "Int", "float": "Float", "bool": "Bool"}[kind]
        return self.make(kind, self.op(f"torch.aten.{name}.Tensor", [value], kind), None, origin)

    # -- operations ------------------------------------------------------------------------------------

    def binary(self, name: str, a: Any, b: Any) -> Any:
        """One of ATen's binary scalar ops, at least one operand a run-time number."""
        origin = origins((a, b))
        kinds = {kind_of(a), kind_of(b)}
        if name == "div" or name == "truediv":
            return self.make("float", self._float_op("div", a, b), None, origin)
        if kinds == {"bool"} and name in _BOOL_OPS:
            return Scalar("bool", self.op(_BOOL_OPS[name], [self.value(a), self.value(b)], "bool"), None, origin)
        if "float" in kinds:
            return self._binary_float(name, a, b, origin)
        return self._binary_int(name, a, b, origin)

    def _binary_int(self, name: str, a: Any, b: Any, origin: frozenset[int]) -> Any:
        fake = self._symbolic(name, a, b)
        if isinstance(fake, (bool, int)):
            return fake
        if name not in _INT_OPS:
            return self._through_tensors(name, a, b, "int", origin)
        kind = "bool" if name in _COMPARISONS else "int"
        value = self.op(_INT_OPS[name], [self.value(a, "int"), self.value(b, "int")], kind)
        return self.make(kind, value, fake if kind == "int" else None, origin)

    def _symbolic(self, name: str, a: Any, b: Any) -> Any:
        function = _SYMBOLIC.get(name)
        x, y = (n.fake if isinstance(n, Scalar) else int(n) for n in (a, b))
        if function is None or x is None or y is None:
            return None
        if name in ("floordiv", "remainder") and isinstance(y, int) and y == 0:
            return None
        try:
            result = function(x, y)
        except Exception:
            return None
        if name not in _COMPARISONS or isinstance(result, bool):
            return result
        if statically_known_true(result):
            return True
        return False if statically_known_true(torch.sym_not(result)) else None

    def _binary_float(self, name: str, a: Any, b: Any, origin: frozenset[int]) -> Any:
        if name == "le":
            return self._binary_float("ge", b, a, origin)
        if name == "ne":
            return self.negate(self._binary_float("eq", a, b, origin))
        if name not in _FLOAT_OPS:
            return self._through_tensors(name, a, b, "float", origin)
        kind = "bool" if name in _COMPARISONS else "float"
        return Scalar(kind, self._float_op(name, a, b), None, origin)

    def _float_op(self, name: str, a: Any, b: Any) -> ir.Value:
        kind = "bool" if name in _COMPARISONS else "float"
        return self.op(_FLOAT_OPS[name], [self.value(a, "float"), self.value(b, "float")], kind)

    def _through_tensors(self, name: str, a: Any, b: Any, kind: str, origin: frozenset[int]) -> Any:
        target = _BINARY_TENSOR.get(name)
        if target is None:
            raise self.context.failure(f"'{name}' of run-time numbers has no Torch dialect form")
        operands = [self.tensor(self.convert(number, kind)) for number in (a, b)]
        return self.from_tensor(self._tensor_op(target, operands, kind), kind, origin)

    def _tensor_op(self, target: str, operands: list[ir.Value], kind: str) -> ir.Value:
        packet, _, overload = target.partition(".")
        meta = torch.empty((), dtype=SCALAR_DTYPE[kind], device="meta")
        found = getattr(getattr(torch.ops.aten, packet), overload)
        return self.emitter.call(found, operands, {}, [meta])[0]

    def negate(self, condition: Any) -> Any:
        """Logical not."""
        if not isinstance(condition, Scalar):
            return not condition
        value = self.op("torch.aten.__not__", [self.value(condition, "bool")], "bool")
        return Scalar("bool", value, None, condition.origin)

    def unary(self, name: str, a: Scalar) -> Any:
        if name == "neg":
            fake = -a.fake if a.kind == "int" else None
            return self.make(a.kind, self.op(f"torch.aten.neg.{a.kind}", [a.value], a.kind), fake, a.origin)
        if name == "abs":
            return self.binary("max", a, self.unary("neg", a))
        if name in ("floor", "ceil", "trunc", "round"):
            return self._rounded(name, a)
        if name == "sqrt" or name in UNARY_TENSOR:
            kind = "int" if name == "invert" else "float"
            operand = self.tensor(self.convert(a, kind))
            return self.from_tensor(self._tensor_op(UNARY_TENSOR[name], [operand], kind), kind, a.origin)
        raise self.context.failure(f"'{name}' of a run-time number has no Torch dialect form")

    def _rounded(self, name: str, a: Scalar) -> Any:
        if a.kind != "float":
            return self.convert(a, "int")
        rounded = self._tensor_op(f"{name}.default", [self.tensor(a)], "float")
        number = self.from_tensor(rounded, "float", a.origin)
        return number if name == "round" else self.convert(number, "int")

    # -- from a schema -----------------------------------------------------------------------------------

    def call(self, overload: torch._ops.OpOverload, args: list[Any]) -> Any:
        """A scalar op by its schema; every argument known folds to PyTorch's own result."""
        short = overload._schema.name.split("::")[1]
        if not origins_or_runtime(args):
            result = overload(*args)
            if not _has_runtime_text(args):
                return result
            if not isinstance(result, str):
                raise self.context.failure(
                    f"'{overload._schema.name}' of text that has run-time values in it or is chosen at run time",
                    advice="decide by the values themselves",
                )
            return RuntimeText(result)
        if str(overload._schema.returns[0].type) == "float":  # ``2 ** n`` is a float in scripts
            args = [self.convert(a, "float") if kind_of(a) in ("int", "bool") else a for a in args]
        return self.apply(short, args)

    def apply(self, op: str, args: list[Any]) -> Any:
        """A scalar op by its name in ATen, of which at least one operand is a run-time number."""
        name = _NAMES.get(op, op)
        if name in ("Int", "Float", "Bool"):
            return self.convert(args[0], name.lower())
        if name == "__not__":
            return self.negate(args[0])
        if name in ("__range_length", "__derive_index"):
            return self._range(name, args)
        if name in ("Scalar", "ScalarImplicit"):
            return args[0]
        if len(args) == 2 and all(is_number(a) for a in args):
            return self.binary(name, *args)
        if len(args) == 1 and isinstance(args[0], Scalar):
            return self.unary(name, args[0])
        raise self.context.failure(f"'aten::{op}' needs values that are known at import", origin=origins(args))

    def _range(self, name: str, args: list[Any]) -> Any:
        if name == "__derive_index":
            index, start, step = args
            return self.add(start, self.mul(index, step))
        low, high, step = args  # ceil((high - low) / step) = -floor((low - high) / step)
        if isinstance(step, int) and step == 1:
            return self.at_least_zero(self.sub(high, low))
        count = self.binary("floordiv", self.sub(low, high), step)
        return self.at_least_zero(self.unary("neg", count) if isinstance(count, Scalar) else -count)

    def add(self, a: Any, b: Any) -> Any:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int) and a == 0:
            return b
        return self.binary("add", a, b)

    def sub(self, a: Any, b: Any) -> Any:
        if isinstance(b, int) and b == 0:
            return a
        return a - b if isinstance(a, int) and isinstance(b, int) else self.binary("sub", a, b)

    def mul(self, a: Any, b: Any) -> Any:
        if isinstance(b, int) and b == 1:
            return a
        return a * b if isinstance(a, int) and isinstance(b, int) else self.binary("mul", a, b)

    def at_least_zero(self, number: Any) -> Any:
        if isinstance(number, int):
            return max(number, 0)
        if statically_known_true(number.fake >= 0):
            return number
        return self.binary("max", number, 0)


def origins_or_runtime(args: list[Any]) -> bool:
    """Whether a run-time number is among the arguments."""
    return any(isinstance(a, Scalar) for a in args)


def _has_runtime_text(args: list[Any]) -> bool:
    return any(isinstance(a, RuntimeText) for a in args)
