"""Ways to put two partial results together that TVM does not know by itself: without them one thread reduces a row
alone.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence

import tvm
import tvm_ffi
import tvm_ffi.libinfo
from tvm import tirx
from tvm.ir import Expr

Combine = Callable[[Expr, Expr], Expr]
Identity = Callable[[str], Expr]


@functools.cache
def register_reducers() -> None:
    """Make them known to TVM; once a process."""
    register = tvm.get_global_func("s_tir.schedule.RegisterReducer")
    for combine, identity in _REDUCERS:
        functions = [
            tvm_ffi.convert(lambda left, right, combine=combine: [combine(left[0], right[0])]),
            tvm_ffi.convert(lambda values, identity=identity: [identity(str(values[0].ty.dtype))]),
        ]
        for function in functions:
            _keep_forever(function)
        register(1, *functions)

    for is_better, identity in ((tirx.GT, _least), (tirx.LT, _greatest)):
        functions = [
            tvm_ffi.convert(lambda left, right, is_better=is_better: _first(left, right, is_better)),
            tvm_ffi.convert(
                lambda values, identity=identity: [
                    tirx.const(-1, str(values[0].ty.dtype)),
                    identity(str(values[1].ty.dtype)),
                ]
            ),
        ]
        for function in functions:
            _keep_forever(function)
        register(2, *functions)


def checked_combiners(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """A scheduled kernel; raises TVM's error where several threads would have to combine what only one can."""
    tvm.s_tir.transform.LowerCrossThreadReduction()(tvm.IRModule({"main": func}))
    return func


def _first(left: Sequence[Expr], right: Sequence[Expr], is_better: Combine) -> list[Expr]:
    """Position and value of the best, of the first among equals, of one that is no number before any."""
    (i, x), (j, y) = left, right
    is_none = tirx.And(tirx.isnan(x), tirx.Not(tirx.isnan(y)))
    beats = tirx.And(is_better(x, y), tirx.Not(tirx.isnan(y)))
    ties = tirx.Or(tirx.EQ(x, y), tirx.And(tirx.isnan(x), tirx.isnan(y)))
    wins = tirx.Or(tirx.Or(is_none, beats), tirx.And(ties, tirx.LT(i, j)))
    stays = tirx.Or(
        tirx.LT(j, tirx.const(0, str(j.ty.dtype))), tirx.And(tirx.GE(i, tirx.const(0, str(i.ty.dtype))), wins)
    )
    return [tirx.Select(stays, i, j), tirx.Select(stays, x, y)]


def _keep_forever(function: tvm_ffi.Function) -> None:
    """TVM lets go of its reducers when the process ends, after Python has: one more reference that nobody drops."""
    library = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())
    library.TVMFFIObjectIncRef(ctypes.c_void_p(function.__chandle__()))


def _kept(is_better: Callable[[Expr, Expr], Expr]) -> Combine:
    """The better of two numbers, and a number that is none before any."""
    return lambda a, b: tirx.Select(tirx.Or(tirx.isnan(a), is_better(a, b)), a, b)


def _choice(is_better: Callable[[Expr, Expr], Expr]) -> Combine:
    return lambda a, b: tirx.Select(is_better(a, b), a, b)


def _least(dtype: str) -> Expr:
    if dtype == "bool":
        return tirx.const(False, dtype)
    return tirx.min_value(dtype) if "int" in dtype else tirx.const(float("-inf"), dtype)


def _greatest(dtype: str) -> Expr:
    if dtype == "bool":
        return tirx.const(True, dtype)
    return tirx.max_value(dtype) if "int" in dtype else tirx.const(float("inf"), dtype)


_REDUCERS: Sequence[tuple[Combine, Identity]] = (
    (_kept(tirx.GT), _least),
    (_kept(tirx.LT), _greatest),
    (_choice(tirx.GT), _least),
    (_choice(tirx.LT), _greatest),
    (tirx.Or, lambda dtype: tirx.const(False, dtype)),
    (tirx.And, lambda dtype: tirx.const(True, dtype)),
)

__all__ = ["checked_combiners", "register_reducers"]
