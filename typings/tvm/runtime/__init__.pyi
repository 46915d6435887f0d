import collections.abc
from typing import Any

import tvm_ffi
from tvm.runtime import _ffi_api as _ffi_api
from tvm.runtime import script_printer as script_printer

class Executable:
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __getitem__(self, name: Any) -> tvm_ffi.Function: ...
    def __init__(self, mod: Any) -> None: ...
    def export_library(
        self, file_name: Any, *, fcompile: Any = ..., addons: Any = ..., workspace_dir: Any = ..., **kwargs: Any
    ) -> Any: ...
    def jit(self, *, fcompile: Any = ..., addons: Any = ..., force_recompile: Any = ..., **kwargs: Any) -> Module: ...
    mod: Any

class Module(tvm_ffi.Module):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def export_library(
        self,
        file_name: Any,
        *,
        fcompile: Any = ...,
        fpack_imports: Any = ...,
        addons: Any = ...,
        workspace_dir: Any = ...,
        **kwargs: Any,
    ) -> Any: ...
    imports_: collections.abc.Sequence[Any]
    def time_evaluator(
        self,
        func_name: Any,
        dev: Any,
        number: Any = ...,
        repeat: Any = ...,
        min_repeat_ms: Any = ...,
        limit_zero_time_iterations: Any = ...,
        cooldown_interval_ms: Any = ...,
        repeats_to_cooldown: Any = ...,
        cache_flush_bytes: Any = ...,
        f_preproc: Any = ...,
    ) -> Any: ...

class Tensor(tvm_ffi.Tensor):
    def __setitem__(self, in_slice: Any, value: Any) -> Any: ...
    def copyfrom(self, source_array: Any) -> Any: ...
    def copyto(self, target: Any, mem_scope: Any = ...) -> Any: ...
    def numpy(self) -> Any: ...

def empty(shape: Any, dtype: Any = ..., device: Any = ..., mem_scope: Any = ...) -> Any: ...
def from_dlpack(ext_tensor: Any) -> Any: ...
def load_module(path: Any) -> Any: ...
def save_param_dict(params: Any) -> Any: ...
