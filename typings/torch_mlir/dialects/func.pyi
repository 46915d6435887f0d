from typing import Any

import torch_mlir.dialects._func_ops_gen
import torch_mlir.ir

class FuncOp(torch_mlir.dialects._func_ops_gen.FuncOp):
    def __init__(
        self, name: Any, type: Any, *, visibility: Any = ..., body_builder: Any = ..., loc: Any = ..., ip: Any = ...
    ) -> None: ...
    def add_entry_block(self, arg_locs: Any = ...) -> Any: ...
    arg_attrs: Any
    arguments: Any
    body: Any
    entry_block: Any
    @classmethod
    def from_py_func(FuncOp, *inputs: Any, results: Any = ..., name: Any = ...) -> Any: ...
    is_external: Any
    name: Any
    result_attrs: Any
    type: Any
    visibility: Any

class ReturnOp(torch_mlir.ir.OpView):
    Adaptor: Any
    OPERATION_NAME: Any
    def __init__(self, operands_: Any, *, loc: Any = ..., ip: Any = ...) -> None: ...
    operands_: Any
