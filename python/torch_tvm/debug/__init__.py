"""Finding where numbers go wrong: ``torch_tvm.debug.lockstep`` and ``torch_tvm.debug.minimize``."""

from torch_tvm.debug.lockstep import Lockstep, Step, lockstep
from torch_tvm.debug.minimize import Minimized, minimize

__all__ = ["Lockstep", "Minimized", "Step", "lockstep", "minimize"]
