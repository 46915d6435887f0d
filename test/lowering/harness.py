"""From a row's program to results: import, canonicalise, lower without fallback, compile, run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.driver.pipeline import compile_module
from torch_tvm.importers.fx import import_fx
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.schedules.target import host_target

Importer = Callable[[torch.nn.Module, Sequence[torch.Tensor], Any], TorchModule]


def _fx(program: torch.nn.Module, arguments: Sequence[torch.Tensor], dynamic_shapes: Any) -> TorchModule:
    return import_fx(program, tuple(arguments), dynamic_shapes=dynamic_shapes)


IMPORTERS: dict[str, Importer] = {"fx": _fx}


class Compiled:
    """A row's program, compiled: ``ops`` are the names in its canonical form, ``layout`` is what it asks of its
    arguments.
    """

    def __init__(
        self,
        importer: str,
        program: torch.nn.Module,
        arguments: Sequence[torch.Tensor],
        dynamic_shapes: Any = None,
    ) -> None:
        module = canonicalize(IMPORTERS[importer](program, arguments, dynamic_shapes))
        self.ops = {view.op_name(op).removeprefix("torch.") for op in view.walk(module.main)}
        self.layout = module.layout
        self._call = compile_module(module, host_target(), fallback=False)

    def __call__(self, *tensors: torch.Tensor) -> Any:
        return self._call(*tensors)
