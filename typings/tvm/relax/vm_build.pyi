from typing import Any

import tvm
from tvm.relax import _ffi_api as _ffi_api

def _filter_tir(mod: Any) -> Any: ...
def _vmcodegen(builder: Any, mod: Any, exec_mode: Any = ...) -> tvm.IRModule: ...
