from typing import Any

import tvm.ir.transform

class DispatchSortScan(tvm.ir.transform.ModulePass):
    def __getattr__(self, name: Any) -> Any: ...
    def __init__(self, index_bits: Any = ...) -> None: ...
    index_bits: Any
