"""What a transform is: a small class whose fields are its options; the registry of those in this folder, and what they
share.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Collection, Iterator
from enum import IntEnum
from functools import cache
from typing import Any, ClassVar

import tvm
from tvm import relax

from torch_tvm.schedules.target import CpuModel
from torch_tvm.support.errors import InternalError
from torch_tvm.support.passes import NamedPass


class Level(IntEnum):
    """What each ``opt_level`` adds: what no program runs without, ops in one kernel, work on weights, and layouts."""

    NEEDED = 0
    FUSION = 1
    WEIGHTS = 2
    LAYOUTS = 3


class Transform(NamedPass):
    """A rewrite of a Relax module, run with its target as TVM's current one.

    ``level`` is the least ``opt_level`` of a compile that it belongs to.
    """

    level: ClassVar[int] = Level.NEEDED

    def run(self, mod: tvm.IRModule) -> tvm.IRModule:
        """The module rewritten, or ``mod`` itself."""
        raise NotImplementedError


def current_cpu() -> CpuModel:
    """The processor that the module is compiled for."""
    return CpuModel.from_target(tvm.target.Target.current(allow_none=False))


def of_tvm(name: str, level: int = Level.NEEDED) -> Transform:
    """TVM's own pass of that name, without options: ``FuseOps`` is ``fuse-ops``."""
    make = getattr(relax.transform, name, None) or getattr(relax.backend, name)

    def run(self: Transform, mod: tvm.IRModule) -> tvm.IRModule:
        return make()(mod)

    found: dict[str, Any] = {"run": run, "level": level, "__doc__": make.__doc__}
    made: Transform = type(name, (Transform,), found)()
    return made


def functions_with_weights(mod: tvm.IRModule) -> Iterator[tuple[tvm.ir.GlobalVar, relax.Function]]:
    """The functions that tell inputs from weights, by the attribute ``num_input``."""
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function) and func.attrs and "num_input" in func.attrs:
            yield gvar, func


def rewrite_function(mutator: Any, gvar: tvm.ir.GlobalVar, func: relax.Function) -> tvm.IRModule:
    """The module of a ``PyExprMutator`` with what it makes of one function, and the functions that it adds."""
    mutator.builder_.update_func(gvar, mutator.visit_expr(func))
    module: tvm.IRModule = mutator.builder_.get()
    return module


def replace_functions(mutator: Any, mod: tvm.IRModule, replaced: Collection[tvm.ir.GlobalVar]) -> tvm.IRModule:
    """``mod`` as a ``PyExprMutator`` leaves it, without the functions of which it has ``replaced`` the calls."""
    for gvar, function in mod.functions_items():
        if isinstance(function, relax.Function) and gvar not in replaced:
            mutator.builder_.update_func(gvar, mutator.visit_expr(function))
    functions = {g: f for g, f in mutator.builder_.get().functions_items() if g not in replaced}
    return tvm.IRModule(functions, attrs=mod.attrs)


@cache
def registry() -> dict[str, type[Transform]]:
    """The transforms of this folder and of the folders in it by name; two of one name raise ``InternalError``."""
    package = sys.modules[__package__ or "torch_tvm.transforms"]
    found: dict[str, type[Transform]] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            is_transform = isinstance(value, type) and issubclass(value, Transform) and value is not Transform
            if not is_transform or value.__module__ != info.name:
                continue
            if value.name in found:
                raise InternalError(f"two transforms are called '{value.name}'", subject=info.name)
            found[value.name] = value
    return found
