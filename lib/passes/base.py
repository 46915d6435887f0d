"""What a pass is: a small class whose fields are its options, and the registry of those in this folder.

A file of this folder that defines a pass is named after it: ``fold_batch_norm.py`` holds ``FoldBatchNorm``,
which pipelines call ``fold-batch-norm``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, get_type_hints

from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.support.errors import InternalError, InvalidInput

MODULE = "builtin.module"
FUNCTION = "func.func"
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Pass:
    """A Torch-to-Torch pass. Subclasses are dataclasses; each field, with a default, is an option.

    ``anchor`` says what :meth:`run` is given: the :class:`TorchModule`, or one ``func.func`` at a time. ``name``
    comes from the class: ``FoldBatchNorm`` is ``fold-batch-norm``.
    """

    anchor: ClassVar[str] = MODULE
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = _WORD_START.sub("-", cls.__name__).lower()

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

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    @classmethod
    def option_types(cls) -> dict[str, type]:
        """Type of each option by its command-line name (``legal_ops`` is ``legal-ops``)."""
        if not dataclasses.is_dataclass(cls):
            return {}
        hints = get_type_hints(cls)
        return {field.name.replace("_", "-"): hints[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def from_options(cls, given: Mapping[str, str]) -> Pass:
        """The pass with options read from text; :class:`InvalidInput` for an unknown name or wrong value."""
        types = cls.option_types()
        values = {}
        for key, text in given.items():
            if key not in types:
                known = ", ".join(types) or "none"
                raise InvalidInput(f"no such option '{key}'; its options: {known}", subject=cls.name)
            values[key.replace("-", "_")] = _option_value(cls, key, types[key], text)
        return cls(**values)

    def __str__(self) -> str:
        options = [
            f"{key}={_option_text(getattr(self, key.replace('-', '_')))}" for key in type(self).option_types()
        ]
        return f"{self.name}{{{' '.join(options)}}}" if options else self.name


def _option_value(owner: type[Pass], key: str, kind: Any, text: str) -> Any:
    if kind is bool:
        if text in ("true", "false"):
            return text == "true"
        raise InvalidInput(f"option '{key}' must be true or false, got '{text}'", subject=owner.name)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise InvalidInput(
                f"option '{key}' must be {kind.__name__}, got '{text}'", subject=owner.name
            ) from None
    if kind is str:
        return text
    if getattr(kind, "__origin__", None) is tuple:
        return tuple(item for item in text.split(",") if item)
    raise InternalError(f"option '{key}' has type {kind}, which has no text form", subject=owner.name)


def _option_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
