"""Relax ops become kernels: TVM's own, but for those of which we have better."""

from __future__ import annotations

import tvm
from tvm import relax

from torch_tvm.transforms.base import Transform
from torch_tvm.transforms.convolution.pools import legalize_max_pools
from torch_tvm.transforms.reshapes import legalize_reshape


class LegalizeOps(Transform):
    """Every op on whole tensors becomes a call of a kernel.

    ``R.add(x, y)``  →  ``R.call_tir(add, (x, y))``
    """

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        return relax.transform.LegalizeOps({"relax.reshape": legalize_reshape, **legalize_max_pools})(mod)
