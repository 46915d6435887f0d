"""The functions by which kernels run on torch's own threads (``lib/runtime/openmp.py`` says why), as machine code.

::

    TVMBackendParallelLaunch(lambda, data, tasks)    ->    GOMP_parallel(share, {lambda, data, tasks}, threads, 0)

A task that fails (TVM has no memory for a temporary) ends the process: TVM's lowering lets no function but a packed one
return anything.
"""

from __future__ import annotations

import tvm
from tvm import tirx

from torch_tvm.codegen.tir.pipeline import CPU_PIPELINE, PACKED
from torch_tvm.runtime import openmp
from torch_tvm.runtime.openmp import OpenMP

_IR = """
@torch_tvm_wanted = internal global i32 0
@torch_tvm_parallel = internal global ptr null
@torch_tvm_get_thread = internal global ptr null
@torch_tvm_get_threads = internal global ptr null
%job = type { ptr, ptr, i32, i32 }
%environment = type { ptr, i32 }

declare void @abort()
declare i32 @torch_tvm_share(ptr)
declare i32 @torch_tvm_launch(ptr, ptr, i32)
declare i32 @torch_tvm_tell(i32, ptr, ptr)

define i32 @torch_tvm_share_(ptr %job) {
entry:
  %data_at = getelementptr %job, ptr %job, i32 0, i32 1
  %tasks_at = getelementptr %job, ptr %job, i32 0, i32 2
  %failed_at = getelementptr %job, ptr %job, i32 0, i32 3
  %lambda = load ptr, ptr %job
  %data = load ptr, ptr %data_at
  %given = load i32, ptr %tasks_at
  %get_thread = load ptr, ptr @torch_tvm_get_thread
  %get_threads = load ptr, ptr @torch_tvm_get_threads
  %thread = call i32 %get_thread()
  %threads = call i32 %get_threads()
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
}

define i32 @torch_tvm_launch_(ptr %lambda, ptr %data, i32 %tasks) {
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
  %parallel = load ptr, ptr @torch_tvm_parallel
  call void %parallel(ptr @torch_tvm_share, ptr %job, i32 %wanted, i32 0)
  %failed = load i32, ptr %failed_at
  %is_good = icmp eq i32 %failed, 0
  br i1 %is_good, label %good, label %bad
bad:
  call void @abort()
  unreachable
good:
  ret i32 0
}

define i32 @torch_tvm_tell_(i32 %task, ptr %environment, ptr %data) {
  %tasks_of = getelementptr %environment, ptr %environment, i32 0, i32 1
  %tasks = load i32, ptr %tasks_of
  store atomic i32 %tasks, ptr %data monotonic, align 4
  ret i32 0
}

define i64 @torch_tvm_bind_(i64 %parallel, i64 %get_thread, i64 %get_threads) {
  %parallel_at = inttoptr i64 %parallel to ptr
  %get_thread_at = inttoptr i64 %get_thread to ptr
  %get_threads_at = inttoptr i64 %get_threads to ptr
  store ptr %parallel_at, ptr @torch_tvm_parallel
  store ptr %get_thread_at, ptr @torch_tvm_get_thread
  store ptr %get_threads_at, ptr @torch_tvm_get_threads
  ret i64 0
}

define i64 @torch_tvm_address_() {
  %address = ptrtoint ptr @torch_tvm_launch to i64
  ret i64 %address
}

define i64 @torch_tvm_want_(i32 %threads) {
  store atomic i32 %threads, ptr @torch_tvm_wanted monotonic, align 4
  ret i64 0
}

define i64 @torch_tvm_count_() {
  %count = alloca i32
  store i32 0, ptr %count
  %failed = call i32 @torch_tvm_launch(ptr @torch_tvm_tell, ptr %count, i32 0)
  %threads = load i32, ptr %count
  %result = sext i32 %threads to i64
  ret i64 %result
}
"""


def use_openmp() -> OpenMP | None:
    """From now on, libraries that are loaded run parallel loops on torch's threads; None where torch has no OpenMP."""
    return openmp.use_openmp(lambda: openmp_library("llvm"))


def openmp_library(target: tvm.target.Target | str) -> tvm.runtime.Module:
    """The functions, compiled for a target, as ``torch_tvm.runtime.openmp.use_openmp`` takes them."""
    functions = {
        "torch_tvm_share": _plain("torch_tvm_share_", "handle"),
        "torch_tvm_launch": _plain("torch_tvm_launch_", "handle", "handle", "int32"),
        "torch_tvm_tell": _plain("torch_tvm_tell_", "int32", "handle", "handle"),
        "torch_tvm_bind": _packed("torch_tvm_bind_", "int64", "int64", "int64"),
        "torch_tvm_address": _packed("torch_tvm_address_"),
        "torch_tvm_want": _packed("torch_tvm_want_", "int32"),
        "torch_tvm_count": _packed("torch_tvm_count_"),
    }
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    body = tirx.AttrStmt(
        tirx.const(0, "int32"), "pragma_import_llvm", tvm.ir.StringImm(_IR), named["torch_tvm_count"].body
    )
    named["torch_tvm_count"] = named["torch_tvm_count"].with_body(body)
    return tvm.tirx.build(tvm.IRModule(named), target, pipeline=CPU_PIPELINE)


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


__all__ = ["openmp_library", "use_openmp"]
