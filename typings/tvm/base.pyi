from typing import Any

_LOADED_LIBS: Any

def load_lib_ctypes(package: Any, target_name: Any, mode: Any, extra_lib_paths: Any = ...) -> Any: ...
