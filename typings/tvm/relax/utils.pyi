from typing import Any

import tvm.relax

def copy_with_new_vars(func: Any) -> tvm.relax.Function: ...
