"""What all passes share: a name, options as fields, and their text on a command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_type_hints

from torch_tvm.support.errors import InternalError, InvalidInput

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
Self = TypeVar("Self", bound="NamedPass")


class NamedPass:
    """A pass whose ``name`` comes from its class: ``FoldBatchNorm`` is ``fold-batch-norm``.

    Subclasses are dataclasses; each field, with a default, is an option.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = _WORD_START.sub("-", cls.__name__).lower()

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
    def from_options(cls: type[Self], given: Mapping[str, str]) -> Self:
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
        options = [f"{key}={_option_text(getattr(self, key.replace('-', '_')))}" for key in type(self).option_types()]
        return f"{self.name}{{{' '.join(options)}}}" if options else self.name


def split_options(text: str) -> dict[str, str]:
    """``key=value other=a,b`` as a dictionary; a key alone is ``true``; braces around a value are dropped."""
    found: dict[str, str] = {}
    for item in text.split():
        key, has_value, value = item.partition("=")
        found[key] = value.removeprefix("{").removesuffix("}") if has_value else "true"
    return found


def _option_value(owner: type[NamedPass], key: str, kind: Any, text: str) -> Any:
    if kind is bool:
        if text in ("true", "false"):
            return text == "true"
        raise InvalidInput(f"option '{key}' must be true or false, got '{text}'", subject=owner.name)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise InvalidInput(f"option '{key}' must be {kind.__name__}, got '{text}'", subject=owner.name) from None
    if kind is str:
        return text
    if getattr(kind, "__origin__", None) is tuple:
        return tuple(item for item in text.split(",") if item)
    raise InternalError(f"option '{key}' has type {kind}, which has no text form", subject=owner.name)


def _option_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
