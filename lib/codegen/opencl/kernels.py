"""Scheduled kernels as OpenCL C, and what the host does for each as Python.

    fused_add(a, b, out)

becomes ``__kernel void fused_add_kernel(…) {…}``, and

    def f_fused_add(a, b, out):
        s0 = a.shape[0]
        launch("fused_add_kernel", ((s0 + 255) // 256, 1, 1), (256, 1, 1), a, b, out, int64(s0))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir import Call, Var
from tvm.tirx.buffer import is_buffer_var

from torch_tvm.codegen.opencl.expressions import Names, dtype_of, function_name, number
from torch_tvm.codegen.tir.flatten_buffers import flatten_buffers
from torch_tvm.support.errors import InternalError

_ON_DEVICE = 2
"""``calling_conv`` of a kernel, as opposed to the function that launches it."""

_LONGEST_NAME = 96
_AXES = ("x", "y", "z")


def split(kernels: tvm.IRModule, target: tvm.target.Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scheduled PrimFuncs as functions of the host and, by name, the kernels that those launch."""
    named = {gvar: func.with_attr("global_symbol", _short(gvar.name_hint)) for gvar, func in kernels.functions_items()}
    lowered = tvm.transform.Sequential([tirx.transform.BindTarget(target), *_passes()])(tvm.IRModule(named))
    functions = {gvar.name_hint: func for gvar, func in lowered.functions_items()}
    is_kernel = lambda func: int(func.attrs.get("calling_conv", 0)) == _ON_DEVICE
    host = {name: func for name, func in functions.items() if not is_kernel(func)}
    device = {name: func for name, func in functions.items() if is_kernel(func)}
    return host, device


def _short(name: str) -> str:
    """A name that drivers can give a file: PoCL ends the process over one of more than 255 characters."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _passes() -> list[tvm.transform.Pass]:
    """TVM's own pipeline for kernels, up to the split of host and device."""
    return [*_passes_over_blocks(), *_passes_over_loops()]


def _passes_over_blocks() -> list[tvm.transform.Pass]:
    """Up to loops over flat buffers."""
    s = s_tir.transform
    return [
        s.CanonicalizeLoop(),
        s.LowerCrossThreadReduction(),
        s.LowerInitBlock(),
        s.PlanAndUpdateBufferAllocationLocation(),
        s.ConvertBlocksToOpaque(),
        s.LiftThreadBinding(),
        s.ManifestSharedMemoryLocalStage(),
        s.CompactBufferAllocation(),
        s.LowerAutoCopy(),
        s.UnifyThreadBinding(),
        s.LowerMatchBuffer(),
        s.StmtSimplify(),
        s.InjectPermutedLayout(),
        s.AnnotateIrregularLoop(),
        s.InjectSoftwarePipeline(),
        s.TransformMmaBufferLayout(),
        s.LowerOpaqueBlock(),
        flatten_buffers,
    ]


def _passes_over_loops() -> list[tvm.transform.Pass]:
    s = s_tir.transform
    t = tirx.transform
    return [
        t.BF16ComputeLegalize(),
        t.NarrowDataType(32),
        s.LoopPartition(),
        t.VectorizeLoop(True),
        s.InjectVirtualThread(),
        s.InjectDoubleBuffer(),
        t.StorageRewrite(),
        s.HoistIfThenElse(),
        t.UnrollLoop(),
        s.RenormalizeSplitPattern(),
        t.StmtSimplify(),
        t.RemoveNoOp(),
        s.RewriteUnsafeSelect(),
        t.FP8ComputeLegalize(),
        t.VerifyMemory(),
        t.AnnotateEntryFunc(),
        s.ThreadSync("shared"),
        s.ThreadSync("shared.dyn"),
        s.ThreadSync("warp"),
        s.InferFragment(),
        s.LowerThreadAllreduce(),
        s.MergeSharedMemoryAllocations(),
        t.SplitHostDevice(),
    ]


class HostFunction:
    """What the host does for one scheduled kernel, as the source of a Python function."""

    def __init__(self, name: str, func: tirx.PrimFunc, kernels: dict[str, tirx.PrimFunc]) -> None:
        self._names = Names()
        self._kernels = kernels
        self._lines: list[str] = []
        self._data: dict[Var, str] = {}
        parameters = [self._names[param] for param in func.params]
        self._bind_sizes(func.params)
        self._statement(func.body, 1)
        self.source = "\n".join(
            [f"def {function_name(name)}({', '.join(parameters)}):", *(self._lines or ["    pass"])]
        )

    def _bind_sizes(self, params: Iterable[Var]) -> None:
        """Variables that sizes of buffers introduce get the sizes of the arguments, which begin where their memory
        does.
        """
        known = {param for param in params if not is_buffer_var(param)}
        for param in filter(is_buffer_var, params):
            if isinstance(param.elem_offset, Var):
                self._names[param.elem_offset] = "0"
            for axis, size in enumerate(param.shape):
                if isinstance(size, Var) and size not in known:
                    known.add(size)
                    self._line(1, f"{self._names[size]} = {self._names[param]}.shape[{axis}]")

    def _line(self, depth: int, text: str) -> None:
        self._lines.append("    " * depth + text)

    def _number(self, expr: Any) -> str:
        return number(expr, self._names)

    def _statement(self, stmt: tirx.Stmt, depth: int) -> None:
        match stmt:
            case tirx.SeqStmt():
                for part in stmt.seq:
                    self._statement(part, depth)
            case tirx.Bind():
                self._line(depth, f"{self._names[stmt.var]} = {self._number(stmt.value)}")
            case tirx.DeclBuffer():
                self._declare(stmt, depth)
            case tirx.AllocBuffer():
                sizes = "".join(f"{self._number(size)}, " for size in stmt.buffer.shape)
                name = self._names[stmt.buffer]
                self._line(depth, f"{name} = allocate(({sizes}), {str(stmt.buffer.dtype)!r})")
            case tirx.For():
                start, extent = self._number(stmt.min), self._number(stmt.extent)
                span = extent if start == "0" else f"{start}, {start} + {extent}"
                self._line(depth, f"for {self._names[stmt.loop_var]} in range({span}):")
                self._statement(stmt.body, depth + 1)
            case tirx.IfThenElse():
                self._line(depth, f"if {self._number(stmt.condition)}:")
                self._statement(stmt.then_case, depth + 1)
                if stmt.else_case is not None:
                    self._line(depth, "else:")
                    self._statement(stmt.else_case, depth + 1)
            case tirx.AttrStmt():
                self._statement(stmt.body, depth)
            case tirx.Evaluate() if isinstance(stmt.value, Call):
                self._launch(stmt.value, depth)
            case tirx.Evaluate():
                self._line(depth, "pass")
            case _:
                raise InternalError(f"the host would have to run {stmt}", stage="code generation")

    def _declare(self, stmt: tirx.DeclBuffer, depth: int) -> None:
        """Another view of a buffer; kernels get the whole memory."""
        offset = stmt.buffer.elem_offset
        if offset is not None and self._number(offset) != "0":
            raise InternalError(f"a view in the middle of a buffer: {stmt}", stage="code generation")
        self._line(depth, f"{self._names[stmt.buffer]} = {self._pointer(stmt.data)}")

    def _pointer(self, expr: Any) -> str:
        if isinstance(expr, Call) and getattr(expr.op, "name", "") == "tirx.buffer_data":
            return self._names[expr.args[0]]
        return self._names[expr]

    def _launch(self, call: Call, depth: int) -> None:
        name = getattr(call.args[0], "value", "")
        if getattr(call.op, "name", "") != "tirx.call_ffi_kernel" or name not in self._kernels:
            raise InternalError(f"the host would have to call {call}", stage="code generation")
        kernel = self._kernels[name]
        count = len(kernel.params)
        operands = [
            self._pointer(value) if _is_pointer(value) else f"{dtype_of(param)}({self._number(value)})"
            for value, param in zip(call.args[1 : count + 1], kernel.params, strict=True)
        ]
        axes = [str(axis) for axis in call.attrs.launch_params]
        extents = dict(zip(axes, map(self._number, call.args[count + 1 :]), strict=True))
        groups = ", ".join(extents.get(f"blockIdx.{axis}", "1") for axis in _AXES)
        items = ", ".join(extents.get(f"threadIdx.{axis}", "1") for axis in _AXES)
        self._line(depth, f"launch({', '.join([repr(name), f'({groups})', f'({items})', *operands])})")


def _is_pointer(value: Any) -> bool:
    return isinstance(value, Call) and getattr(value.op, "name", "") == "tirx.buffer_data"


__all__ = ["HostFunction", "split"]
