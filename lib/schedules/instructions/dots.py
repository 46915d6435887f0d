"""Products of words, lane by lane, in operations of any processor: the bodies of :class:`PackedDot` in LLVM IR."""

from __future__ import annotations

from typing import Any

from torch_tvm.schedules.instructions.instruction import PackedDot

PAIR = 2
"""bfloat16 values of a word."""

GROUP = 4
"""Bytes of a word."""

PAIRS_SYMBOL = "torch_tvm_dot_pairs"
BYTES_SYMBOL = "torch_tvm_dot_bytes"
"""What kernels call, whichever instruction it is."""


def dot_of_bytes(name: str, bits: int, **its_own: Any) -> PackedDot:
    """An instruction that adds four products of an unsigned byte with a signed one to each lane."""
    kind: dict[str, Any] = {
        "computes": "total[i] + sum_j uint8(left[i], j) * int8(right[i], j), modulo 2**32; j < 4",
        "size": GROUP,
        "symbol": BYTES_SYMBOL,
        "result": "i32",
        "operands": ("i8", "i8"),
        "plain": _plain_bytes(bits // 32),
    }
    return PackedDot(name=name, bits=bits, **{**kind, **its_own})


def dot_of_pairs(name: str, bits: int, **its_own: Any) -> PackedDot:
    """An instruction that adds two products of bfloat16 to each lane."""
    kind: dict[str, Any] = {
        "computes": "total[i] + sum_j bfloat16(left[i], j) * bfloat16(right[i], j), in float32; j < 2",
        "size": PAIR,
        "symbol": PAIRS_SYMBOL,
        "result": "float",
        "operands": ("bfloat", "bfloat"),
        "plain": _plain_pairs(bits // 32),
    }
    return PackedDot(name=name, bits=bits, **{**kind, **its_own})


def _plain_pairs(lanes: int) -> str:
    """``%sum + low(%a) · low(%b) + high(%a) · high(%b)`` of bfloat16, summed in float32, each step rounded."""
    ints, floats = f"<{lanes} x i32>", f"<{lanes} x float>"
    lines, total = [], "%sum"
    for part in ("low", "high"):
        for side in "ab":
            change = f"shl {ints} %{side}, {splat(16, lanes)}"
            change = change if part == "low" else f"and {ints} %{side}, {splat(-65536, lanes)}"
            lines.append(f"%{side}.{part} = {change}")
            lines.append(f"%{side}.{part}.f = bitcast {ints} %{side}.{part} to {floats}")
        lines.append(f"%{part} = fmul {floats} %a.{part}.f, %b.{part}.f")
        lines.append(f"%sum.{part} = fadd {floats} {total}, %{part}")
        total = f"%sum.{part}"
    return body(lines, f"{floats} {total}")


def _plain_bytes(lanes: int) -> str:
    """``%sum`` and four products of an unsigned byte of ``%a`` with a signed one of ``%b``; sums wrap around."""
    ints = f"<{lanes} x i32>"
    lines, total = [], "%sum"
    for byte in range(GROUP):
        for side, shift in (("a", "lshr"), ("b", "ashr")):
            lines.append(f"%{side}{byte}.up = shl {ints} %{side}, {splat(24 - 8 * byte, lanes)}")
            lines.append(f"%{side}{byte} = {shift} {ints} %{side}{byte}.up, {splat(24, lanes)}")
        lines.append(f"%p{byte} = mul {ints} %a{byte}, %b{byte}")
        lines.append(f"%s{byte} = add {ints} {total}, %p{byte}")
        total = f"%s{byte}"
    return body(lines, f"{ints} {total}")


def splat(value: int, lanes: int, kind: str = "i32") -> str:
    """A constant vector of one value."""
    return "<" + ", ".join([f"{kind} {value}"] * lanes) + ">"


def body(lines: list[str], result: str) -> str:
    """The lines of a function that returns ``result``, a type and a name."""
    return "\n".join([*(f"  {line}" for line in lines), f"  ret {result}", ""])
