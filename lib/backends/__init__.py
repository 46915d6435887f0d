"""What differs from one kind of target to another: a folder for each, named as TVM names the kind.

``backend_of(target)`` is its :class:`Backend`; ``optimize``, ``schedule`` and ``build`` are the stages of a compile by
it.
"""

from torch_tvm.backends.backend import Backend
from torch_tvm.backends.registry import backend_named, backend_of, register
from torch_tvm.backends.stages import build, optimize, schedule

__all__ = ["Backend", "backend_named", "backend_of", "build", "optimize", "register", "schedule"]
