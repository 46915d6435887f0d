"""From a row's program to results: import, canonicalise, lower without fallback, compile, run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import tvm
from torch.utils import _pytree as pytree
from tvm import relax

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.importers.fx import import_fx
from torch_tvm.lowering.module import lower
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.runtime.arguments import dense
from torch_tvm.runtime.build import build
from torch_tvm.schedules import schedule
from torch_tvm.schedules.target import host_target
from torch_tvm.transforms.params import TRANSFORM_PARAMS
from torch_tvm.transforms.pipeline import optimize

Importer = Callable[[torch.nn.Module, Sequence[torch.Tensor], Any], TorchModule]


def _fx(program: torch.nn.Module, arguments: Sequence[torch.Tensor], dynamic_shapes: Any) -> TorchModule:
    return import_fx(program, tuple(arguments), dynamic_shapes=dynamic_shapes)


IMPORTERS: dict[str, Importer] = {"fx": _fx}


class Compiled:
    """A row's program, compiled: ``ops`` are the names in its canonical form, a call gives torch tensors."""

    def __init__(
        self,
        importer: str,
        program: torch.nn.Module,
        arguments: Sequence[torch.Tensor],
        dynamic_shapes: Any = None,
    ) -> None:
        module = canonicalize(IMPORTERS[importer](program, arguments, dynamic_shapes))
        self.ops = {view.op_name(op).removeprefix("torch.") for op in view.walk(module.main)}
        self._spec = module.signature.out_spec
        target = host_target()
        lowered = lower(module, fallback=False)
        optimized = optimize(lowered.mod, target)
        scheduled, self.decisions = schedule(optimized, target)
        self._vm = relax.VirtualMachine(build(scheduled, target), tvm.cpu())
        self._main = self._vm["main"]
        self._weights: tuple[Any, ...] = ()
        if any(gvar.name_hint == TRANSFORM_PARAMS for gvar in optimized.get_global_vars()):
            tensors = [
                tvm.runtime.from_dlpack(weight.detach().contiguous()) for weight in lowered.weights.values()
            ]
            self._weights = (self._vm[TRANSFORM_PARAMS](tensors),)

    def __call__(self, *tensors: torch.Tensor) -> Any:
        results = self._main(*(dense(tensor) for tensor in tensors), *self._weights)
        leaves = [_as_torch(result) for result in results]
        return pytree.tree_unflatten(leaves, self._spec) if self._spec is not None else leaves


def _as_torch(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
