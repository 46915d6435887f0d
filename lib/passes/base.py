"""What a pass is: a small class whose fields are its options, and the registry of those in this folder.

A file of this folder that defines a pass is named after it: ``fold_constants.py`` holds ``FoldConstants``,
which pipelines call ``fold-constants``.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from functools import cache
from typing import Any, ClassVar

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.support.errors import InternalError
from torch_tvm.support.passes import NamedPass

MODULE = "builtin.module"
FUNCTION = "func.func"


class Pass(NamedPass):
    """A Torch-to-Torch pass. ``anchor`` says what :meth:`run` is given: the :class:`TorchModule`, or one ``func.func``
    at a time.
    """

    anchor: ClassVar[str] = MODULE

    def run(self, root: Any) -> None:
        """Rewrite ``root`` in place: the :class:`TorchModule` or, where ``anchor`` says so, a ``func.func``."""
        raise NotImplementedError

    def apply(self, module: TorchModule) -> None:
        """Run on a whole module; a function pass runs on each function that has a body."""
        if self.anchor == MODULE:
            self.run(module)
            return
        for function in view.functions(module.mlir).values():
            if function.regions[0].blocks:
                self.run(function)


@cache
def registry() -> dict[str, type[Pass]]:
    """The passes of this folder by name; a file that is not named after its pass raises ``InternalError``."""
    package = sys.modules[__package__ or "torch_tvm.passes"]
    found: dict[str, type[Pass]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            is_pass = isinstance(value, type) and issubclass(value, Pass) and value is not Pass
            if not is_pass or value.__module__ != module.__name__ or value.__name__.startswith("_"):
                continue
            if value.name != info.name.replace("_", "-"):
                raise InternalError(
                    f"the file should be named {value.name.replace('-', '_')}.py",
                    subject=f"pass {value.__name__} in {info.name}.py",
                )
            found[value.name] = value
    return found
