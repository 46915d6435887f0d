"""Products of words, lane by lane, in operations of any processor: the bodies of :class:`PackedDot` in LLVM IR."""

from __future__ import annotations

PAIR = 2
"""bfloat16 values of a word."""

GROUP = 4
"""Bytes of a word."""

PAIRS_SYMBOL = "torch_tvm_dot_pairs"
BYTES_SYMBOL = "torch_tvm_dot_bytes"
"""What kernels call, whichever instruction it is."""


def plain_pairs(lanes: int) -> str:
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


def plain_bytes(lanes: int) -> str:
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
