from typing import Any

import tvm

def ir_module(mod: Any = ..., check_well_formed: Any = ..., s_tir: Any = ...) -> tvm.IRModule: ...
