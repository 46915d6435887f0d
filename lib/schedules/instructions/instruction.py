"""What an instruction is to a schedule: what it computes, who has it, and how it is spelled."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeVar

from tvm import tirx
from tvm.ir import Expr, StringImm

Self = TypeVar("Self", bound="Instruction")


@dataclass(frozen=True)
class Instruction:
    """One instruction, called as a function of expressions that gives an expression or a statement.

    ``name`` is that of the manual, ``computes`` a formula of its operands, ``features`` are LLVM's names of what a
    processor of ``architecture`` must have, and ``bits`` is how wide its vectors are; 0 is any. With ``is_portable`` it
    is spelled in operations that every processor has: slower, with the same numbers.
    """

    name: str
    computes: str
    architecture: str = ""
    features: tuple[str, ...] = ()
    bits: int = 0
    is_portable: bool = False

    def fits(self, architecture: str, features: Collection[str], bits: int) -> bool:
        """Whether a processor with these features computes with it on vectors of ``bits``."""
        return (
            self.architecture in ("", architecture)
            and self.bits in (0, bits)
            and all(feature in features for feature in self.features)
        )

    def portable(self: Self) -> Self:
        """The same, for any processor."""
        return replace(self, is_portable=True)

    def defined_in(self, body: tirx.Stmt) -> tirx.Stmt:
        """``body`` with what calls of this instruction in it need."""
        return body


@dataclass(frozen=True)
class PackedDot(Instruction):
    """``total + left · right`` lane by lane: a lane of the operands is a word of 32 bits, which holds ``size``
    elements.

    The words are int32, those of bfloat16 its bits: TVM turns vectors of bfloat16 into float32 before code generation,
    and leaves integers and LLVM IR of our own alone. Calls go to the function ``symbol``: one call of an ``intrinsic``
    on elements of LLVM's types ``operands`` and ``result``, or the body ``native`` that uses it; ``plain`` is the body
    for any processor.
    """

    size: int = 1
    symbol: str = ""
    result: str = ""
    operands: tuple[str, str] = ("", "")
    intrinsic: str = ""
    native: str = ""
    plain: str = ""

    def __call__(self, total: Expr, left: Expr, right: Expr) -> Expr:
        """A body with this in it goes through :meth:`defined_in`."""
        return tirx.call_pure_extern(str(total.ty.dtype), self.symbol, total, left, right)

    def defined_in(self, body: tirx.Stmt) -> tirx.Stmt:
        return with_llvm(self.definition(), body)

    def definition(self) -> str:
        """The function that calls go to, in LLVM IR."""
        lanes = self.bits // 32
        total, words = f"<{lanes} x {self.result}>", f"<{lanes} x i32>"
        left, right = (f"<{lanes * self.size} x {element}>" for element in self.operands)
        head = f"define linkonce_odr {total} @{self.symbol}({total} %sum, {words} %a, {words} %b) alwaysinline {{"
        if self.is_portable:
            return f"\n{head}\n{self.plain}}}\n"
        call = (
            f"  %x = bitcast {words} %a to {left}\n"
            f"  %y = bitcast {words} %b to {right}\n"
            f"  %r = call {total} @{self.intrinsic}({total} %sum, {left} %x, {right} %y)\n"
            f"  ret {total} %r\n"
        )
        declared = f"declare {total} @{self.intrinsic}({total}, {left}, {right})"
        return f"\n{declared}\n{head}\n{self.native or call}}}\n"


def with_llvm(definitions: str, body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with functions in LLVM IR that it calls."""
    return tirx.AttrStmt(tirx.IntImm("int64", 0), "pragma_import_llvm", StringImm(definitions), body)
