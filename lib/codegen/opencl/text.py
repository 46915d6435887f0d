"""A kernel as OpenCL C, mended where TVM's code generation is wrong.

TVM writes floating-point constants with seven digits, so that ``0.1`` in float64 is another number; it takes functions
of OpenCL for those of C (``expm1f``); it reads a bfloat16 that is converted as the integer in the same bits; it takes
the address of a number to see its bits; and it leaves in 32 bits what C computes there. OpenCL's ``max`` loses what is
no number, and ``tanh(inf)`` may be less than 1, as it is with PoCL.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call
from tvm.s_tir.pipeline import finalize_device_passes

_CONSTANT = "torch_tvm_constant_"
"""The function that stands for a constant until the text is there; ``torch_tvm_constant_<dtype>_<bits as float64>``."""

_OURS = "torch_tvm_"
"""What the names of our own functions begin with."""

_TYPES = {
    "bool": "char",
    "int8": "char",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "uint8": "uchar",
    "uint16": "ushort",
    "uint32": "uint",
    "uint64": "ulong",
    "float16": "half",
    "float32": "float",
    "float64": "double",
}

_OF_C = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp10 exp2 expm1 fabs floor fma "
    "fmax fmin fmod hypot ldexp lgamma log log10 log1p log2 nextafter pow rint round rsqrt sin sinh sqrt tan tanh "
    "tgamma trunc"
)
_NAMES = re.compile(rf"\b({'|'.join(_OF_C.split())})f\(")


def source(name: str, kernel: tirx.PrimFunc, target: tvm.target.Target) -> str:
    """One kernel as OpenCL C."""
    body = tvm_ffi.structural_map(kernel.body, (tirx.Cast, _widened))
    legal = tvm.transform.Sequential(
        [
            tirx.transform.FP8StorageLegalize(),
            tirx.transform.BF16StorageLegalize(),
            _call_functions_of_opencl,
            finalize_device_passes(),
        ]
    )(tvm.IRModule({name: kernel.with_body(body)}))
    function = legal[name]
    body = tvm_ffi.structural_map(function.body, (_ARITHMETIC, _in_own_type))
    named = function.with_body(tvm_ffi.structural_map(body, (tirx.FloatImm, _named)))
    text = str(tvm.get_global_func("target.build.opencl")(tvm.IRModule({name: named}), target).inspect_source())
    text = _NAMES.sub(r"\1(", re.sub(rf"{_CONSTANT}(\w+?)_(\w+)\(\)", _constant, text))
    used = sorted(set(re.findall(rf"{_OURS}({'|'.join(_DEFINITIONS)})_(\w+)\(", text)))
    return "\n".join([*(_definition(*each) for each in used), text])


@tirx.transform.prim_func_pass(opt_level=0, name="CallFunctionsOfOpenCl")
def _call_functions_of_opencl(func: tirx.PrimFunc, _mod: object, _ctx: object) -> tirx.PrimFunc:
    """Bits by ``as_uint`` and its kin, and functions of ours for those that differ from PyTorch's."""

    def call(node: Call) -> tvm.ir.Expr:
        name = getattr(node.op, "name", "")
        if name == "tirx.reinterpret" and isinstance(node.args[0].ty, tvm.ir.PrimType):
            same = str(node.ty.dtype) == str(node.args[0].ty.dtype)
            return node.args[0] if same else _extern(node, f"as_{_type(node)}", [_in_own_type(node.args[0])])
        return _extern(node, f"{_OURS}tanh_{_type(node)}", node.args) if name == "tirx.tanh" else node

    def extreme(node: tirx.Max | tirx.Min) -> tvm.ir.Expr:
        if not str(node.ty.dtype).startswith("float"):
            return node
        name = "max" if isinstance(node, tirx.Max) else "min"
        return _extern(node, f"{_OURS}{name}_{_type(node)}", [node.a, node.b])

    return func.with_body(tvm_ffi.structural_map(func.body, [(Call, call), ((tirx.Max, tirx.Min), extreme)]))


_ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Mod)


def _in_own_type(expr: tvm.ir.Expr) -> tvm.ir.Expr:
    """Arithmetic of 8 and 16 bits, which C does in 32, back in its own type: it wraps around, and
    ``select`` knows it.
    """
    if str(expr.ty.dtype) not in ("int8", "uint8", "int16", "uint16"):
        return expr
    return tirx.call_pure_extern(str(expr.ty.dtype), f"({_type(expr)})", expr)


def _extern(like: tvm.ir.Expr, function: str, operands: Sequence[tvm.ir.Expr]) -> tvm.ir.Expr:
    return tirx.call_pure_extern(str(like.ty.dtype), function, *operands)


def _type(expr: tvm.ir.Expr) -> str:
    """The name that OpenCL has for the type of a number, or of several."""
    kind, _, lanes = str(expr.ty.dtype).partition("x")
    return f"{_TYPES[kind]}{lanes}"


_DEFINITIONS = {
    "tanh": ("x", "fabs(x) > {far}", "copysign({one}, x)", "tanh(x)"),
    "max": ("x, y", "x > y || x != x", "x", "y"),
    "min": ("x, y", "x < y || x != x", "x", "y"),
}
"""Operands, a condition, the value where it holds and the other: of numbers, or of each in a vector."""


def _definition(name: str, kind: str) -> str:
    """A function of ours for one type."""
    operands, condition, value, other = _DEFINITIONS[name]
    is_double = kind.startswith("double")
    words = {
        "one": f"({kind})({'1.0' if is_double else '1.0f'})",
        "far": f"({kind})({'20.0' if is_double else '10.0f'})",
    }
    condition, value = condition.format(**words), value.format(**words)
    if kind[-1].isdigit():
        chosen = f"select({other}, {value}, {condition.replace('||', '|')})"
    else:
        chosen = f"{condition} ? {value} : {other}"
    parameters = ", ".join(f"{kind} {operand}" for operand in operands.split(", "))
    function = f"{kind} {_OURS}{name}_{kind}({parameters}) {{ return {chosen}; }}"
    guard = f"{_OURS}{name}_{kind}".upper()
    return f"#ifndef {guard}\n#define {guard}\n{function}\n#endif"


def _widened(cast: tirx.Cast) -> tvm.ir.Expr:
    """``float32(x)`` of a bfloat16 by its bits."""
    kind, _, lanes = str(cast.value.ty.dtype).partition("x")
    if kind != "bfloat16":
        return cast
    suffix = f"x{lanes}" if lanes else ""
    bits = tirx.Cast(f"uint32{suffix}", tirx.reinterpret(f"uint16{suffix}", cast.value))
    number = tirx.reinterpret(f"float32{suffix}", tirx.shift_left(bits, _filled("uint32", 16, lanes)))
    wanted = str(cast.ty.dtype)
    return number if wanted.partition("x")[0] == "float32" else tirx.Cast(wanted, number)


def _filled(dtype: str, value: int, lanes: str) -> tvm.ir.Expr:
    one = tirx.const(value, dtype)
    return tirx.Broadcast(one, int(lanes)) if lanes else one


def _named(constant: tirx.FloatImm) -> tvm.ir.Expr:
    """A constant whose digits matter, as a call that stands for it."""
    dtype, value = str(constant.ty.dtype), float(constant.value)
    is_short = float(f"{value:.6e}") == value if math.isfinite(value) else dtype == "float32"
    if dtype not in ("float32", "float64") or is_short:
        return constant
    return tirx.call_pure_extern(dtype, f"{_CONSTANT}{dtype}_{struct.pack('>d', value).hex()}")


def _constant(found: re.Match[str]) -> str:
    dtype, bits = found.groups()
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    if not math.isfinite(value):
        name = "NAN" if math.isnan(value) else "INFINITY"
        return f"(({'-' if value < 0 else ''}(double){name}))"
    return f"({value.hex()}{'f' if dtype == 'float32' else ''})"


__all__ = ["source"]
