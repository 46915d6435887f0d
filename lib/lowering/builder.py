"""What a lowering builds with: a thin layer over ``relax.BlockBuilder``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import tvm
from tvm import relax, tirx

from torch_tvm.lowering.conversion import held
from torch_tvm.support.errors import Refusal, SourceLocation
from torch_tvm.support.packed_functions import ASSERT
from torch_tvm.tir import SizeLike, as_size

_SIZES = tvm.ir.Range(tirx.IntImm("int64", 0), tirx.IntImm("int64", 1 << 62))


@dataclass(frozen=True)
class Result:
    """What the Torch dialect says of one result of the op: sizes (``None`` unknown), Relax dtype,
    whether it is read.
    """

    shape: tuple[int | None, ...] | None
    dtype: str | None
    is_used: bool = True


@dataclass(frozen=True)
class Requirement:
    """What a call's sizes must fulfil, or the program raises: a condition on symbols of the arguments."""

    condition: tvm.ir.Expr
    message: str
    location: SourceLocation


class InLibrary(Exception):
    """Raised in place of a lowering by an op that compiled code calls in a ``library``."""

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self.library = library


class NeedsEffects(Exception):
    """An op may raise at run time, and the function being lowered was taken for one without effects."""


@contextmanager
def function_scope(
    bb: relax.BlockBuilder, name: str, params: Sequence[relax.Var], attrs: dict[str, Any]
) -> Iterator[None]:
    """``bb.function``, which ends its block where an exception leaves it: TVM warns of an open one on stderr."""
    with bb.function(name, params, attrs=attrs):
        try:
            yield
        except BaseException:
            bb._end_block()
            raise


class Builder:
    """Emits Relax bindings for one op at a time.

    ``results`` describe the op's results, ``op`` is its name and ``location`` the user's line; these change from op
    to op. With ``checks_indices`` a position out of range is an error when the program runs. With ``many_threads`` the
    program is for a GPU, where no loop may be left to few threads.
    """

    def __init__(
        self, block_builder: relax.BlockBuilder, *, checks_indices: bool = True, many_threads: bool = False
    ) -> None:
        self.bb = block_builder
        self.checks_indices, self.many_threads = checks_indices, many_threads
        self.results: list[Result] = []
        self.location = SourceLocation()
        self.op = ""
        self.op_name = ""
        self.suffix = ""
        self.pure = True
        self.effects = 0
        self.requirements: list[Requirement] = []
        self.arguments: list[tirx.Var] = []
        self.depth = 0
        self.analyzer = tvm.sym.Analyzer()
        self.sizes: dict[Any, tuple[relax.Expr, Any]] = {}
        self.computed: list[tirx.Var] = []
        self.found: list[tirx.Var] = []
        self.sums: dict[int, tuple[relax.Expr, Callable[..., Any], list[Any]]] = {}
        self.truths: dict[int, tuple[relax.Expr, tvm.ir.Expr]] = {}
        # What was made later than its key would not be there in every branch, so these are looked up one way only.
        self.put_together: dict[int, tuple[relax.Expr, Any]] = {}
        self.taken_apart: dict[tuple[int, int], tuple[relax.Expr, Any]] = {}
        self._symbols = 0

    def unsupported(self, reason: str) -> NoReturn:
        """Refuse the op, before anything was emitted for it."""
        raise Refusal(reason)

    def emit(self, expr: relax.Expr) -> relax.Expr:
        """Bind ``expr`` to a variable with an inferred type."""
        return self.bb.emit(expr)

    def te(
        self,
        function: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> relax.Expr:
        """Emit a call of a tensor-expression function on Relax tensors and constants."""
        hint = (name or self.op_name) + self.suffix
        return self.bb.emit_te(function, *args, primfunc_name_hint=hint, primfunc_attrs=attributes)

    def const(self, value: Any, dtype: str) -> relax.Expr:
        """A 0-d constant."""
        return relax.const(value, dtype)

    # -- asking -----------------------------------------------------------------------------------------

    def shape(self, x: relax.Expr) -> list[SizeLike]:
        """The sizes of ``x``: Python ints, and TIR expressions where symbolic."""
        shape = x.ty.shape
        if not isinstance(shape, relax.ShapeExpr):
            raise Refusal("a tensor whose shape is known only at run time")
        return [plain_size(size) for size in shape.values]

    def rank(self, x: relax.Expr) -> int:
        rank = int(x.ty.ndim)
        if rank < 0:
            raise Refusal("a tensor of unknown rank")
        return rank

    def dtype(self, x: relax.Expr) -> str:
        return str(x.ty.dtype)

    def axis(self, dim: int, rank: int) -> int:
        """A possibly negative dimension as an index; rank 0 counts as rank 1, as in ATen."""
        rank = max(rank, 1)
        if not -rank <= dim < rank:
            raise Refusal(f"dimension {dim} is out of range for rank {rank}")
        return dim % rank

    @property
    def result(self) -> Result:
        return self.results[0]

    @property
    def result_dtype(self) -> str:
        dtype = self.results[0].dtype
        if dtype is None:
            raise Refusal("a result dtype that TVM does not have")
        return dtype

    # -- numbers of the running program ------------------------------------------------------------------

    def size(self, value: Any) -> SizeLike:
        """An integer that the program computes (0-d int64) as a symbolic one, the same for the same value."""
        if not is_tensor(value):
            return value
        key = value.__chandle__()
        if key not in self.sizes:
            self.sizes[key] = (value, self._as_symbol(value))
        return self.sizes[key][1]

    def _as_symbol(self, value: relax.Expr) -> SizeLike:
        if isinstance(value, tvm.ir.GenericConst):
            return int(value.value.numpy())
        origin = self.sums.get(value.__chandle__())
        if origin is not None:
            _, combine, operands = origin
            return combine(*[self.size(operand) for operand in operands])
        symbol = tirx.Var(self._fresh("n"), "int64")
        self.computed.append(symbol)
        shape = self.emit(relax.op.tensor_to_shape(self.reshape(self.cast(value, "int64"), [1])))
        self.bb.match_cast(shape, relax.ShapeType([symbol]))
        return symbol

    def is_computed(self, size: Any) -> bool:
        """Whether a size depends on an integer that the program computes, or on a size of a text: nobody asked its
        range.
        """
        return _depends_on(size, self.computed)

    def is_of_values(self, size: Any) -> bool:
        """Whether a size depends on what the program computes: on an integer, or on a size that only a result has."""
        return _depends_on(size, [*self.computed, *self.found])

    def found_size(self) -> tirx.Var:
        """A symbol for a size that nothing tells but the result that has it: that of ``nonzero``."""
        self.found.append(self.symbol("d"))
        return self.found[-1]

    def counted(self, count: relax.Expr) -> tirx.Var:
        """The size that a kernel counted (one int64, not negative): a result may have it."""
        size = self.found_size()
        shape = self.emit(relax.op.tensor_to_shape(self.reshape(count, [1])))
        self.bb.match_cast(shape, relax.ShapeType([size]))
        return size

    def once(self, what: str, value: relax.Expr, make: Callable[[], Any]) -> Any:
        """``make()``, which computes ``what`` of ``value``; its first result is used again within this region."""
        key = what, value.__chandle__()
        if key not in self.sizes:
            self.sizes[key] = value, make()
        return self.sizes[key][1]

    def expect(self, condition: Any, message: str) -> None:
        """Check a condition on sizes that no importer has looked at."""
        if self.is_of_values(condition):
            self.check(condition, message)

    def expect_equal(self, sizes: Sequence[SizeLike], others: Sequence[SizeLike], message: str) -> None:
        """Check that sizes are equal pair by pair, where no importer has looked at them."""
        for size, other in zip(sizes, others, strict=True):
            if not (isinstance(size, int) and isinstance(other, int)):
                self.expect(tirx.EQ(as_size(size), as_size(other)), message)

    def expect_within(self, sizes: Sequence[SizeLike], limits: Sequence[SizeLike], message: str) -> None:
        """Check that no size is above its limit, where no importer has looked at them."""
        for size, limit in zip(sizes, limits, strict=True):
            if not (isinstance(size, int) and isinstance(limit, int)):
                self.expect(as_size(size) <= as_size(limit), message)

    def has_effect(self) -> None:
        """The op being lowered must run in its place; raises :class:`NeedsEffects` where nothing can."""
        if self.pure:
            raise NeedsEffects
        self.effects += 1

    def check(self, condition: Any, message: str, kind: str = "RuntimeError", values: Sequence[SizeLike] = ()) -> None:
        """Raise ``kind`` with the message, after the user's line, unless ``condition`` holds.

        ``condition`` is a Python bool, a TIR expression or a 0-d bool tensor. The message may have a place in braces
        for each of the ``values``. What depends on nothing but the sizes of the arguments is tested before the call
        (an ``InvalidInput``) and costs the program nothing.
        """
        if is_tensor(condition) and condition.__chandle__() in self.truths:
            condition = self.truths[condition.__chandle__()][1]
        if is_symbolic(condition):
            condition = self.analyzer.simplify(condition)
            condition = bool(condition) if isinstance(condition, tirx.IntImm) else condition
        if condition is True:
            return
        if is_symbolic(condition) and self._is_of_arguments(condition):
            text = message.format(*values) if values else message
            self.requirements.append(Requirement(condition, text, self.location))
            return
        self.has_effect()
        condition = relax.const(condition, "bool") if isinstance(condition, bool) else condition
        texts = [
            tvm.ir.StringImm(text) for text in (kind, f"{self.location if self.location.file else self.op}: {message}")
        ]
        operands = [condition, *texts, *map(as_size, values)]
        self.bb.emit(relax.Call(relax.ExternFunc(ASSERT), operands, ty_args=[relax.TupleType([])]))

    def require(
        self,
        condition: tvm.ir.Expr,
        message: str,
        kind: str = "RuntimeError",
        values: Sequence[SizeLike] = (),
    ) -> None:
        """Check a condition on sizes where nobody else has: before the call, or of sizes that the program computes."""
        if self._is_of_arguments(condition) or self.is_of_values(condition):
            self.check(condition, message, kind, values)

    def _is_of_arguments(self, condition: tvm.ir.Expr) -> bool:
        """Whether every call meets a condition, and its symbols are sizes of the arguments."""
        free = tirx.analysis.undefined_vars(condition)
        return self.depth == 1 and all(any(s.same_as(known) for known in self.arguments) for s in free)

    # -- small conversions ------------------------------------------------------------------------------

    def cast(self, x: relax.Expr, dtype: str) -> relax.Expr:
        """``x`` as ``dtype``; nothing when it is already."""
        if self.dtype(x) == dtype:
            return x
        if isinstance(x, tvm.ir.GenericConst) and x.value.shape == ():
            return self.tensor(x.value.numpy().item(), dtype)
        return self.emit(relax.op.astype(x, dtype))

    def tensor(self, value: Any, dtype: str) -> relax.Expr:
        """A tensor operand or number as a tensor of ``dtype`` (numbers become 0-d)."""
        if is_tensor(value):
            return self.cast(value, dtype)
        if isinstance(value, (bool, int, float)):
            return relax.const(held(value, dtype), dtype)
        if isinstance(value, tvm.ir.Expr):
            return self.te(lambda v: tvm.te.compute((), lambda: tirx.Cast(dtype, v)), value, name="size")
        raise Refusal(f"a {type(value).__name__} cannot become a tensor")

    def reshape(self, x: relax.Expr, shape: Sequence[SizeLike]) -> relax.Expr:
        return self.emit(relax.op.reshape(x, relax.ShapeExpr([as_size(s) for s in shape])))

    def broadcast(self, x: relax.Expr, shape: Sequence[SizeLike]) -> relax.Expr:
        return self.emit(relax.op.broadcast_to(x, relax.ShapeExpr([as_size(s) for s in shape])))

    def symbol(self, stem: str = "d") -> tirx.Var:
        """A fresh symbolic size: not negative."""
        symbol = tirx.Var(self._fresh(stem), "int64")
        self.analyzer.bind(symbol, _SIZES)
        return symbol

    def _fresh(self, stem: str) -> str:
        self._symbols += 1
        return f"{stem}{self._symbols}"

    def match_shape(self, x: relax.Expr, shape: Sequence[SizeLike], dtype: str) -> relax.Expr:
        """Tell Relax the shape of ``x`` (checked at run time); fresh symbols in it become defined."""
        return self.bb.match_cast(x, relax.TensorType([as_size(s) for s in shape], dtype))


def _depends_on(size: Any, symbols: Sequence[tirx.Var]) -> bool:
    free = tirx.analysis.undefined_vars(size) if is_symbolic(size) else []
    return any(symbol.same_as(known) for symbol in free for known in symbols)


def is_tensor(value: Any) -> bool:
    return isinstance(value, tvm.ir.Expr) and isinstance(value.ty, relax.TensorType)


def is_symbolic(value: Any) -> bool:
    """A TIR expression: a size, or a number computed from sizes."""
    return isinstance(value, tvm.ir.Expr) and isinstance(value.ty, tvm.ir.PrimType)


def plain_size(size: Any) -> SizeLike:
    """A TIR immediate as a Python int, anything else as it is."""
    return int(size) if isinstance(size, (int, tirx.IntImm)) else size
