"""OpenCL: any device that a vendor's driver, or PoCL, runs."""

from __future__ import annotations

from torch_tvm.backends.gpu import Gpu

BACKEND = Gpu("opencl")
