import collections.abc
from typing import Any

import tvm_ffi.core

class ModulePass(Pass):
    def __init__(self, pass_info: Any) -> None: ...
    pass_info: Any

class Pass(tvm_ffi.core.Object):
    def __call__(self, mod: Any) -> Any: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    info: Any

class PassContext(tvm_ffi.core.Object):
    def __enter__(self) -> Any: ...
    def __exit__(self, ptype: Any, value: Any, trace: Any) -> Any: ...
    def __init__(
        self,
        opt_level: Any = ...,
        required_pass: Any = ...,
        disabled_pass: Any = ...,
        instruments: Any = ...,
        config: Any = ...,
    ) -> None: ...
    config: collections.abc.Mapping[str, Any]
    @staticmethod
    def current() -> Any: ...
    disabled_pass: collections.abc.Sequence[str]
    instruments: collections.abc.Sequence[Any]
    @staticmethod
    def list_configs() -> Any: ...
    opt_level: int
    def override_instruments(self, instruments: Any) -> Any: ...
    required_pass: collections.abc.Sequence[str]

class Sequential(Pass):
    def __init__(
        self, passes: Any = ..., opt_level: Any = ..., name: Any = ..., required: Any = ..., traceable: Any = ...
    ) -> None: ...
    pass_info: Any
    passes: collections.abc.Sequence[Pass]

def module_pass(
    pass_func: Any = ..., opt_level: Any = ..., name: Any = ..., required: Any = ..., traceable: Any = ...
) -> Any: ...
