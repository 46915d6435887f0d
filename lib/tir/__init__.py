"""One vocabulary for building TIR: sizes, expressions, loops, vectors and dtypes.

``from torch_tvm.tir import loop``, or ``from torch_tvm import tir`` and ``tir.loop``.
"""

from torch_tvm.tir.dtypes import *  # noqa: F403
from torch_tvm.tir.expressions import *  # noqa: F403
from torch_tvm.tir.loops import *  # noqa: F403
from torch_tvm.tir.registers import *  # noqa: F403
from torch_tvm.tir.sizes import *  # noqa: F403
