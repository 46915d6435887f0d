from typing import Any

import torch_mlir.ir

class FuncOp(torch_mlir.ir.OpView):
    Adaptor: Any
    OPERATION_NAME: Any
    def __init__(
        self,
        sym_name: Any,
        function_type: Any,
        *,
        sym_visibility: Any = ...,
        arg_attrs: Any = ...,
        res_attrs: Any = ...,
        no_inline: Any = ...,
        loc: Any = ...,
        ip: Any = ...,
    ) -> None: ...
    arg_attrs: Any
    body: Any
    function_type: Any
    no_inline: Any
    res_attrs: Any
    sym_name: Any
    sym_visibility: Any
