"""NVIDIA GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import tvm

from torch_tvm.backends.backend import dict_of, parse_target
from torch_tvm.backends.gpu import Gpu
from torch_tvm.schedules.target import host_target
from torch_tvm.support.errors import InvalidInput

LIMITS = {"max_threads_per_block": 1024, "max_shared_memory_per_block": 49152, "thread_warp_size": 32}


class Cuda(Gpu):
    """CUDA; the architecture is that of the GPU here, unless it is given."""

    device: ClassVar[str] = "cuda"

    def complete(self, options: Mapping[str, Any]) -> tvm.target.Target:
        device = tvm.cuda(0)
        options = {"kind": "cuda", **options}
        if "arch" not in options:
            if not device.exist:
                raise InvalidInput(
                    "there is no GPU to read the architecture from",
                    subject="target",
                    advice='give it: target={"kind": "cuda", "arch": "sm_90"}',
                )
            options["arch"] = f"sm_{device.compute_version.replace('.', '')}"
        if isinstance(options["arch"], str) and not re.fullmatch(r"sm_\d+[af]?", options["arch"]):
            raise InvalidInput(
                f"{options['arch']!r} is no architecture",
                subject="target['arch']",
                advice='write "sm_90", for one',
            )
        return parse_target({**LIMITS, **options, "host": dict_of(host_target())})

    def why_not_runnable(self, target: tvm.target.Target) -> str:
        return "" if tvm.cuda(0).exist else "it has no NVIDIA GPU"


BACKEND = Cuda("cuda")
