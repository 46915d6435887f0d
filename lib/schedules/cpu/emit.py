"""What kernels ask of the processor and of LLVM beyond arithmetic: prefetches, loops left rolled,
functions in LLVM IR.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr

from torch_tvm.schedules.instructions.instruction import with_llvm
from torch_tvm.schedules.instructions.prefetch import PREFETCH
from torch_tvm.support.attributes import HIDDEN
from torch_tvm.tir import INDEX, Body, SizeLike, as_size, bind_index, bits_of, ceil_div, const, sequence

LINE = 64
"""Bytes in a line of the cache."""

INTERLEAVED = 4
"""Vectors that a transcendental function is computed for side by side, at most: its steps wait for each other."""


_HIDDEN_IR = f"""
define linkonce_odr i32 @{HIDDEN}(i32 %value) alwaysinline {{
  %same = call i32 asm "", "=r,0"(i32 %value)
  ret i32 %same
}}
"""


def hidden(count: int) -> Expr:
    """``count`` as a loop bound that LLVM cannot see through, so that it leaves the loop rolled.

    A body with this in it goes through :func:`with_hidden`.
    """
    return tirx.call_pure_extern("int32", HIDDEN, tirx.IntImm("int32", count)).astype(INDEX)


def with_hidden(body: tirx.Stmt) -> tirx.Stmt:
    """``body`` with the definition that :func:`hidden` calls."""
    return with_llvm(_HIDDEN_IR, body)


def vectors_in_line(lanes: int, dtype: str) -> int:
    """How many vectors of ``lanes`` elements a line of the cache holds, at least one."""
    return max(1, LINE * 8 // (lanes * bits_of(dtype)))


def prefetch_parts(
    buffer: tirx.Buffer, start: Sequence[SizeLike], size: int, iterations: SizeLike, fewest: int
) -> tuple[tirx.Bind | None, Body]:
    """Ask for the ``size`` elements from ``start`` on in equal parts: what to bind first, and the part of an iteration.

    There are ``iterations``, at least ``fewest``. A core waits for few lines at a time, and what it asks for beyond
    them delays its loads; so the requests are spread. They go into the second-level cache.
    """
    share = ceil_div(size, iterations) if isinstance(iterations, int) else (const(size - 1) + iterations) // iterations
    part, bound = bind_index("part", share)
    most = ceil_div(size, iterations if isinstance(iterations, int) else fewest)
    line = LINE * 8 // bits_of(buffer.ty.dtype)
    *head, last = (as_size(i) for i in start)

    def part_of(iteration: Expr) -> tirx.Stmt:
        places = (
            tirx.BufferLoad(buffer, [*head, last + iteration * part + const(offset)]) for offset in range(0, most, line)
        )
        return sequence(*(PREFETCH(place, 2) for place in places))

    return bound, part_of
