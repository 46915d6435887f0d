from typing import Any

import tvm.ir
from tvm.tirx import Cast as Cast
from tvm.tirx import Select as Select

def Buffer(
    shape: Any,
    dtype: Any = ...,
    data: Any = ...,
    strides: Any = ...,
    elem_offset: Any = ...,
    byte_offset: Any = ...,
    scope: Any = ...,
    align: Any = ...,
    offset_factor: Any = ...,
    layout: Any = ...,
) -> tvm.ir.Var: ...
def call_extern(dtype: Any, func_name: Any, *args: Any, span: Any = ...) -> Any: ...
def func_attr(attrs: Any) -> None: ...
def int32(expr: Any = ...) -> Any: ...
def int64(expr: Any = ...) -> Any: ...

let: Any

def prim_func(
    func: Any = ..., private: Any = ..., check_well_formed: Any = ..., s_tir: Any = ..., persistent: Any = ...
) -> Any: ...
def unroll(start: Any, stop: Any = ..., *, annotations: Any = ..., step: Any = ..., dtype: Any = ...) -> Any: ...
