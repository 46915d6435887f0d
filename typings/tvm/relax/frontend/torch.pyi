from typing import Any

import tvm

def from_exported_program(
    exported_program: Any,
    *,
    keep_params_as_input: Any = ...,
    unwrap_unit_return_tuple: Any = ...,
    no_bind_return_tuple: Any = ...,
    custom_convert_map: Any = ...,
    run_ep_decomposition: Any = ...,
) -> tvm.IRModule: ...
