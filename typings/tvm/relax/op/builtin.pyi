from typing import Any

import tvm.ir

def alloc_tensor(shape: Any, dtype: Any, runtime_device_index: Any, storage_scope: Any = ...) -> tvm.ir.Call: ...
