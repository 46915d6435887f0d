"""Torch functions compiled for this machine, with the rules that took their kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import tvm

from torch_tvm.driver.pipeline import compile_module
from torch_tvm.importers.fx import import_fx
from torch_tvm.lowering.module import lower
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.reporting.report import Report
from torch_tvm.schedules.target import host_target


class _Program(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


def lowered(function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> tvm.IRModule:
    """The Relax module of ``function``, before any transform."""
    return lower(canonicalize(import_fx(_Program(function), tuple(arguments))), fallback=False).mod


class CompiledFunction:
    """``function`` compiled without fallback; ``rules`` are the schedule rules of its kernels."""

    def __init__(
        self, function: Callable[..., Any], arguments: Sequence[torch.Tensor], dynamic_shapes: Any = None
    ) -> None:
        target = host_target()
        report = Report(target=str(target))
        module = import_fx(_Program(function), tuple(arguments), dynamic_shapes=dynamic_shapes)
        self._call = compile_module(module, target, fallback=False, report=report)
        self.rules = [kernel.rule for kernel in report.kernels]

    def __call__(self, *tensors: torch.Tensor) -> Any:
        return self._call(*tensors)
