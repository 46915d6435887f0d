"""OpenCL devices, through ``pyopencl``: GPUs, and by PoCL every CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm

from torch_tvm.backends.backend import dict_of, parse_target
from torch_tvm.backends.gpu import Gpu
from torch_tvm.codegen.opencl.build import OpenClExecutable, build_for_opencl, why_no_device
from torch_tvm.schedules.target import host_target

LIMITS = {"max_threads_per_block": 256, "max_num_threads": 256, "max_shared_memory_per_block": 32768}
"""What every device has whose OpenCL is of the full profile: code depends on nothing of the machine that compiles."""


class OpenCl(Gpu):
    """OpenCL 1.2; ``{"kind": "opencl", "device": NAME}`` runs on the device of that name, or with that index."""

    def complete(self, options: Mapping[str, Any]) -> tvm.target.Target:
        described = {**LIMITS, **options, "host": dict_of(host_target())}
        device = described.pop("device", "")
        tag = {"tag": f"{_DEVICE}{device}"} if str(device) else {}
        return parse_target({**described, **tag})

    def why_not_runnable(self, target: tvm.target.Target) -> str:
        return why_no_device(_device(target))

    def build(
        self, mod: tvm.IRModule, target: tvm.target.Target, *, is_native: bool = True, joined: bool = True
    ) -> OpenClExecutable:
        return build_for_opencl(mod, target, _device(target))


_DEVICE = "device="
"""A target of TVM has no place for the device but its tag."""


def _device(target: tvm.target.Target) -> str:
    tag = str(target.tag)
    return tag.removeprefix(_DEVICE) if tag.startswith(_DEVICE) else ""


BACKEND = OpenCl("opencl")
