from typing import Any

from tvm.relax.frontend import torch as torch

def detach_params(mod: Any) -> Any: ...
