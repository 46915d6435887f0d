"""Kernels on torch's own threads.

TVM has a pool of its own. Where both pools have a thread for each core, the one that has just worked still spins, and
a kernel of the other waits until the scheduler takes the core away: 4 ms on two cores, for every change between
PyTorch and compiled code. So parallel loops go to the OpenMP runtime that PyTorch has loaded, instead::

    TVMBackendParallelLaunch(lambda, data, tasks)    ->    GOMP_parallel(share, {lambda, data, tasks}, threads, 0)

Libraries find the function to launch with by name when they are loaded, so :func:`use_openmp` comes before the first.
That goes for every TVM library of the process. A task that fails (TVM has no memory for a temporary) ends the process:
TVM's lowering lets no function but a packed one return anything.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import tvm
import tvm_ffi
from tvm import tirx

from torch_tvm.codegen.tir_pipeline import CPU_PIPELINE, PACKED

_SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

_IR = """
@torch_tvm_wanted = global i32 0
%job = type {{ ptr, ptr, i32, i32 }}
%environment = type {{ ptr, i32 }}

declare void @abort()
declare i32 @torch_tvm_share(ptr)
declare i32 @torch_tvm_launch(ptr, ptr, i32)
declare i32 @torch_tvm_tell(i32, ptr, ptr)

define i32 @torch_tvm_share_(ptr %job) {{
entry:
  %data_at = getelementptr %job, ptr %job, i32 0, i32 1
  %tasks_at = getelementptr %job, ptr %job, i32 0, i32 2
  %failed_at = getelementptr %job, ptr %job, i32 0, i32 3
  %lambda = load ptr, ptr %job
  %data = load ptr, ptr %data_at
  %given = load i32, ptr %tasks_at
  %thread = call i32 inttoptr (i64 {omp_get_thread_num} to ptr)()
  %threads = call i32 inttoptr (i64 {omp_get_num_threads} to ptr)()
  %is_free = icmp eq i32 %given, 0
  %tasks = select i1 %is_free, i32 %threads, i32 %given
  %environment = alloca %environment
  %tasks_of = getelementptr %environment, ptr %environment, i32 0, i32 1
  store ptr null, ptr %environment
  store i32 %tasks, ptr %tasks_of
  br label %test
test:
  %task = phi i32 [ %thread, %entry ], [ %next, %after ]
  %goes_on = icmp slt i32 %task, %tasks
  br i1 %goes_on, label %run, label %done
run:
  %result = call i32 %lambda(i32 %task, ptr %environment, ptr %data)
  %is_good = icmp eq i32 %result, 0
  br i1 %is_good, label %after, label %fail
fail:
  store atomic i32 -1, ptr %failed_at monotonic, align 4
  br label %after
after:
  %next = add i32 %task, %threads
  br label %test
done:
  ret i32 0
}}

define i32 @torch_tvm_launch_(ptr %lambda, ptr %data, i32 %tasks) {{
entry:
  %job = alloca %job
  %data_at = getelementptr %job, ptr %job, i32 0, i32 1
  %tasks_at = getelementptr %job, ptr %job, i32 0, i32 2
  %failed_at = getelementptr %job, ptr %job, i32 0, i32 3
  store ptr %lambda, ptr %job
  store ptr %data, ptr %data_at
  store i32 %tasks, ptr %tasks_at
  store i32 0, ptr %failed_at
  %wanted = load atomic i32, ptr @torch_tvm_wanted monotonic, align 4
  call void inttoptr (i64 {GOMP_parallel} to ptr)(ptr @torch_tvm_share, ptr %job, i32 %wanted, i32 0)
  %failed = load i32, ptr %failed_at
  %is_good = icmp eq i32 %failed, 0
  br i1 %is_good, label %good, label %bad
bad:
  call void @abort()
  unreachable
good:
  ret i32 0
}}

define i32 @torch_tvm_tell_(i32 %task, ptr %environment, ptr %data) {{
  %tasks_of = getelementptr %environment, ptr %environment, i32 0, i32 1
  %tasks = load i32, ptr %tasks_of
  store atomic i32 %tasks, ptr %data monotonic, align 4
  ret i32 0
}}

define i64 @torch_tvm_address() {{
  %address = ptrtoint ptr @torch_tvm_launch to i64
  ret i64 %address
}}

define i64 @torch_tvm_want(i32 %threads) {{
  store atomic i32 %threads, ptr @torch_tvm_wanted monotonic, align 4
  ret i64 0
}}

define i64 @torch_tvm_count() {{
  %count = alloca i32
  store i32 0, ptr %count
  %failed = call i32 @torch_tvm_launch(ptr @torch_tvm_tell, ptr %count, i32 0)
  %threads = load i32, ptr %count
  %result = sext i32 %threads to i64
  ret i64 %result
}}
"""


@dataclass(frozen=True)
class OpenMP:
    """``want(threads)`` sets how many threads parallel loops get (0: as many as torch), ``count()`` runs one to see."""

    want: Callable[[int], object]
    count: Callable[[], int]


@lru_cache(maxsize=1)
def use_openmp() -> OpenMP | None:
    """From now on, libraries that are loaded run parallel loops on torch's threads; None where torch has no OpenMP."""
    addresses = _addresses()
    if addresses is None:
        return None
    functions = {
        "torch_tvm_share": _plain("torch_tvm_share_", "handle"),
        "torch_tvm_launch": _plain("torch_tvm_launch_", "handle", "handle", "int32"),
        "torch_tvm_tell": _plain("torch_tvm_tell_", "int32", "handle", "handle"),
        "address": _packed("torch_tvm_address"),
        "want": _packed("torch_tvm_want", "int32"),
        "count": _packed("torch_tvm_count"),
    }
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    code = tvm.ir.StringImm(_IR.format(**addresses))
    body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", code, named["count"].body)
    named["count"] = named["count"].with_body(body)
    library = tvm.tirx.build(tvm.IRModule(named), "llvm", pipeline=CPU_PIPELINE)
    register = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi()).TVMFFIEnvModRegisterContextSymbol
    register.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    if register(b"__TVMBackendParallelLaunch", library["address"]()):
        return None
    want = library["want"]
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _in_child(want))
    return OpenMP(lambda threads: want(1 if _is_forked() else threads), library["count"])


_parent = os.getpid()


def _is_forked() -> bool:
    return os.getpid() != _parent


def _in_child(want: Callable[[int], object]) -> None:
    """A forked process has no OpenMP threads but its own: GNU's runtime would wait for the others for ever."""
    want(1)


def _packed(callee: str, *dtypes: str) -> tirx.PrimFunc:
    """A function for Python that calls ``callee``."""
    params = [tirx.Var(f"arg{index}", dtype) for index, dtype in enumerate(dtypes)]
    value = tirx.call_extern("int64", callee, *params)
    return tirx.PrimFunc(params, tirx.Return(value), tvm.ir.PrimType("int64"))


def _plain(callee: str, *dtypes: str) -> tirx.PrimFunc:
    """A function for C that calls ``callee``: TVM inlines what it imports, and it then has no address."""
    params = [tirx.Var(f"arg{index}", dtype) for index, dtype in enumerate(dtypes)]
    call = tirx.Evaluate(tirx.call_extern("int32", callee, *params))
    body = tirx.SeqStmt([call, tirx.Return(tirx.const(0, "int32"))])
    return tirx.PrimFunc(params, body, tvm.ir.PrimType("int32")).with_attr("calling_conv", PACKED)


def _addresses() -> dict[str, int] | None:
    """Of the OpenMP functions that torch itself uses: other packages bring runtimes of their own."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        functions = {name: getattr(library, name) for name in _SYMBOLS}
    except (OSError, AttributeError):
        return None
    return {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in functions.items()}


__all__ = ["OpenMP", "use_openmp"]
