"""Writes stubs for the names of TVM and MLIR that this project uses: their wheels have no types.

    python -m torch_tvm.tools.typings

A stub holds what the installed wheels say of themselves: bases and members of classes, the fields that C++ declares,
the names of parameters, and results that are annotated with a class. What they do not say is ``Any``. A type checker
finds what is misspelt or what another version of a wheel does not have, and where a value is a base class of what is
asked of it.
"""

from __future__ import annotations

import argparse
import ast
import collections.abc
import enum
import importlib.util
import inspect
import keyword
import re
import subprocess
import sys
import types
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tvm.ir import Attrs, DictAttrs, PrimType, Type
from tvm.ir.expr import Expr, ExprOperand
from tvm.relax import Binding
from tvm.tirx import Stmt, get_tir_pipeline

from torch_tvm.support.errors import InvalidInput

PACKAGES = ("tvm", "tvm_ffi", "torch_mlir")
_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("lib", "importers", "python/torch_tvm", "tools", "test", "docs", "examples")
_REEXPORTS = ("torch_tvm.dialect.mlir",)
_OPTIONAL = "torch_mlir.extras"  # imports packages that are not always there
_PLAIN: dict[Any, str] = {
    **{kind: kind.__name__ for kind in (int, bool, str, float)},
    **{kind: kind for kind in ("int", "bool", "str", "float")},
    **dict.fromkeys((None, type(None), "None"), "None"),
}
_GENERIC: dict[type, str] = {
    collections.abc.Sequence: "collections.abc.Sequence[Any]",
    collections.abc.Mapping: "collections.abc.Mapping[Any, Any]",
    collections.abc.MutableSequence: "collections.abc.MutableSequence[Any]",
    collections.abc.MutableMapping: "collections.abc.MutableMapping[Any, Any]",
}
_IMPORTS = {"Any": "from typing import Any", "enum": "import enum", "collections": "import collections.abc"}
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor")
_OPERATORS = frozenset(
    [f"__{side}{name}__" for name in _BINARY for side in ("", "r")]
    + [f"__{name}__" for name in ("neg", "invert", "lt", "le", "gt", "ge")]
)
_SPECIAL = _OPERATORS | {
    f"__{name}__"
    for name in "init call enter exit iter len getitem setitem contains getattr eq ne bool int float index".split()
}
_DYNAMIC = frozenset({Attrs, Binding, DictAttrs, Expr, PrimType, Stmt, Type})
"""A field declared as one of these has one of many classes below it, and code asks it for what those have."""
_OF_TYPES = frozenset(dir(type))
_MOST_PARAMETERS = 10


def in_use(root: Path) -> tuple[set[str], set[str]]:
    """Dotted names below :data:`PACKAGES` that the files under ``root`` import, or reach through what they import; and
    all attributes that they ask of anything.
    """
    names: set[str] = set()
    attributes: set[str] = set()
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            names |= _names_of_file(tree)
            attributes |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names, attributes


def _names_of_file(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] in PACKAGES:
                    top = each.name.split(".")[0]
                    bound[each.asname or top] = each.name if each.asname else top
                    found.add(each.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module.split(".")[0] in PACKAGES or node.module in _REEXPORTS:
                for each in node.names:
                    bound[each.asname or each.name] = f"{node.module}.{each.name}"
                    found.add(f"{node.module}.{each.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            chain = _chain(node.value)
            if len(chain) > 1 and chain[0] in bound:  # R = relax.op
                bound[node.targets[0].id] = ".".join([bound[chain[0]], *chain[1:]])
    for node in ast.walk(tree):
        chain = _chain(node)
        if len(chain) > 1 and chain[0] in bound:
            found.add(".".join([bound[chain[0]], *chain[1:]]))
    return found


def _chain(node: ast.AST) -> list[str]:
    """``["tvm", "ir", "Var"]`` of ``tvm.ir.Var``; empty for anything that does not start with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        inner = _chain(node.value)
        return [*inner, node.attr] if inner else []
    return []


def _located(dotted: str) -> tuple[str, str | None, Any] | None:
    """Module, name in it and object of a dotted name; what lies in a class belongs to the class."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if _is_hidden(name):
            continue
        if count == len(parts):
            return name, None, module
        if not hasattr(module, parts[count]):
            return None
        return name, parts[count], getattr(module, parts[count])
    return None


def _is_hidden(module: str) -> bool:
    """Whether the package has a function or a class of the module's name."""
    package, _, name = module.rpartition(".")
    return bool(package) and not isinstance(getattr(sys.modules[package], name, None), types.ModuleType | None)


class Stubs:
    """The stub files for a set of names. A class among them has its bases, its public members and the private ones in
    use.
    """

    def __init__(self, names: Iterable[str], attributes: Collection[str]) -> None:
        self._attributes = attributes
        self._modules: dict[str, dict[str, Any]] = defaultdict(dict)
        self._home: dict[type, tuple[str, str]] = {}
        for dotted in sorted(names, key=lambda name: (name.count("."), name)):
            self._add(dotted)
        for kind in list(self._home):
            for base in kind.__mro__:
                self._add_base(base)

    def _add(self, dotted: str) -> None:
        found = None if dotted.startswith(_OPTIONAL) else _located(dotted)
        if found is None:
            return
        module, name, value = found
        if isinstance(value, types.ModuleType) and name is not None:
            self._add(value.__name__ + dotted.removeprefix(f"{module}.{name}"))
        if module in _REEXPORTS:
            return
        self._add_module(module)
        if name is None or name == "__file__":
            return
        self._modules[module][name] = value
        if isinstance(value, type):
            self._home.setdefault(value, (module, name))

    def _add_module(self, module: str) -> None:
        parts = module.split(".")
        for count in range(1, len(parts)):
            self._modules[".".join(parts[:count])].setdefault(parts[count], None)
        self._modules[module]  # an empty module is one too

    def _add_base(self, kind: type) -> None:
        module, name = kind.__module__, kind.__name__
        if kind in self._home or module.split(".")[0] not in PACKAGES:
            return
        self._add_module(module)
        self._modules[module][name] = kind
        self._home[kind] = module, name

    def files(self) -> Iterator[tuple[Path, str]]:
        """Path below the folder of stubs, and text before it is formatted."""
        packages = {name.rpartition(".")[0] for name in self._modules}
        for module in sorted(self._modules):
            path = Path(*module.split("."))
            yield (
                (path / "__init__.pyi" if module in packages else path.with_suffix(".pyi")),
                self._text(module),
            )

    def _text(self, module: str) -> str:
        writer = _Writer(module, self._home, self._attributes)
        for name, value in sorted(self._modules[module].items()):
            writer.add(name, value)
        return writer.text()


class _Writer:
    """The text of one stub."""

    def __init__(self, module: str, home: Mapping[type, tuple[str, str]], attributes: Collection[str]) -> None:
        self._module, self._home, self._attributes = module, home, attributes
        self._kinds = {_key(kind): kind for kind in home}
        self._imports: set[str] = set()
        self._lines: list[str] = []

    def text(self) -> str:
        """The stub: its imports, then all that was added."""
        words = set(re.findall(r"\w+", "\n".join(self._lines)))
        imports = self._imports | {line for word, line in _IMPORTS.items() if word in words}
        return "\n".join([*sorted(imports), *self._lines]) + "\n"

    def add(self, name: str, value: Any) -> None:
        """A module (None stands for one of this package), a class, a function or another value."""
        if value is None:
            self._imports.add(f"from {self._module} import {name} as {name}")
        elif isinstance(value, types.ModuleType):
            self._reexport(name, *value.__name__.rpartition(".")[::2])
        elif isinstance(value, type):
            if self._home[value] == (self._module, name):
                self._lines += self._class(name, value)
            else:
                self._reexport(name, *self._home[value])
        elif callable(value):
            self._lines += self._function(name, value)
        else:
            self._lines.append(f"{name}: {_PLAIN.get(type(value), 'Any')}")

    def _reexport(self, name: str, home: str, original: str) -> None:
        if name == original:
            self._imports.add(f"from {home} import {original} as {name}")
        elif home == self._module:
            self._lines.append(f"{name} = {original}")
        else:  # another name is none that a stub exports
            self._imports.add(f"from {home} import {original} as _{original}")
            self._lines.append(f"{name} = _{original}")

    def _named(self, kind: Any) -> str:
        """What a class is called here; ``Any`` where it has no stub."""
        if kind in _PLAIN:
            return _PLAIN[kind]
        if not isinstance(kind, type) or kind not in self._home:
            return "Any"
        home, name = self._home[kind]
        if home == self._module:
            return name
        self._imports.add(f"import {home}")
        return f"{home}.{name}"

    def _class(self, name: str, kind: type) -> list[str]:
        if issubclass(kind, enum.Enum):
            members = [f"    {member} = ..." for member in kind.__members__]
        else:
            own = _members(kind)
            members = [f"    {line}" for member in sorted(own) for line in self._member(member, own[member])]
        bases = ", ".join(self._bases(kind))
        return [f"class {name}({bases}):" if bases else f"class {name}:", *(members or ["    pass"])]

    def _bases(self, kind: type) -> Iterator[str]:
        for base in kind.__bases__:
            if base in self._home:
                yield self._named(base)
            elif base.__module__ == "enum":
                yield f"enum.{base.__name__}"
            elif base.__module__ == "builtins" and base is not object:
                yield base.__name__
            elif base in _GENERIC:
                yield _GENERIC[base]

    def _member(self, name: str, value: Any) -> list[str]:
        if keyword.iskeyword(name) or not self._is_member(name):
            return []
        if isinstance(value, staticmethod):
            return ["@staticmethod", *self._function(name, value.__func__)]
        if isinstance(value, classmethod):
            return ["@classmethod", *self._function(name, value.__func__, first="cls")]
        if callable(value) and not isinstance(value, type):
            is_operator = name in _OPERATORS and value is vars(ExprOperand).get(name)
            return self._function(name, value, first="self", result=self._named(Expr) if is_operator else "")
        if name in _SPECIAL:
            return []
        return [f"{name}: {self._field(value.ty) if isinstance(value, _Field) else 'Any'}"]

    def _field(self, ty: Any) -> str:
        """The type of a field, as C++ declares it."""
        inner = [self._field(each) for each in ty.args]
        if ty.origin in ("Optional", "Union"):
            parts = [*dict.fromkeys(inner), *(["None"] if ty.origin == "Optional" else [])]
            return "Any" if "Any" in parts else " | ".join(parts)
        if ty.origin == "Array":
            return f"collections.abc.Sequence[{inner[0] if inner else 'Any'}]"
        if ty.origin == "Map":
            return f"collections.abc.Mapping[{', '.join(inner or ['Any', 'Any'])}]"
        kind = self._kinds.get(ty.origin)
        return _PLAIN.get(ty.origin, "Any") if kind is None or kind in _DYNAMIC else self._named(kind)

    def _is_member(self, name: str) -> bool:
        return name in _SPECIAL or not name.startswith("_") or (name in self._attributes and name not in _OF_TYPES)

    def _function(self, name: str, value: Any, first: str = "", result: str = "") -> list[str]:
        """A definition; a method has a ``first`` parameter."""
        decorators = ["@staticmethod"] if first and not _takes_self(value) else []
        try:
            signature = inspect.signature(value)
        except (ValueError, TypeError):  # a function of C++
            parameters, returned = [first] if first and not decorators else [], "Any"
            parameters += ["*args: Any", "**kwargs: Any"]
        else:
            parameters = list(_parameters(list(signature.parameters.values()), bool(first)))
            returned = self._named(signature.return_annotation)
        if value is get_tir_pipeline:  # it gives a tuple of passes, and says it gives one
            returned = "Any"
        returned = "None" if name == "__init__" else result or returned
        return [*decorators, f"def {name}({', '.join(parameters)}) -> {returned}: ..."]


def _members(kind: type) -> dict[str, Any]:
    """What a class defines, fields that its methods assign among it, as None.

    ``Expr`` has the members of ``ExprOperand``, for TVM's own annotations say ``Expr`` for what has operators.
    """
    own = {
        **(vars(ExprOperand) if kind is Expr else {}),
        **dict.fromkeys(_assigned(kind)),
        **vars(kind),
        **_fields(kind),
    }
    if "__getitem__" in own and "__len__" in own and "keys" not in own:
        own.setdefault("__iter__", _iterate)  # Python iterates over what has positions
    return own


@dataclass(frozen=True)
class _Field:
    """A field of an object of C++, with the type that is declared."""

    ty: Any


def _fields(kind: type) -> dict[str, _Field]:
    """The fields of an object of C++ that Python has as well."""
    info = _declared(kind)
    return {each.name: _Field(each.ty) for each in (info.fields if info else ())}


def _key(kind: type) -> str:
    """What C++ calls a class."""
    info = _declared(kind)
    return info.type_key if info else ""


def _declared(kind: type) -> Any:
    return vars(kind).get("__tvm_ffi_type_info__")


def _iterate(self: Any) -> Any: ...


def _assigned(kind: type) -> set[str]:
    """The attributes of ``self`` that the methods of a class of Python assign."""
    body = _classes(kind.__module__).get(kind.__name__)
    stored = [node for node in ast.walk(body) if isinstance(node, ast.Attribute)] if body else []
    return {node.attr for node in stored if isinstance(node.ctx, ast.Store) and _chain(node.value) == ["self"]}


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    file = getattr(sys.modules[module], "__file__", None) or ""
    tree = ast.parse(Path(file).read_text("utf-8") if file.endswith(".py") else "")
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _parameters(given: list[inspect.Parameter], is_method: bool) -> Iterator[str]:
    """A function's parameters; one with very many takes anything."""
    if is_method:
        yield given[0].name
        given = given[1:]
    if len(given) > _MOST_PARAMETERS:
        yield from ("*args: Any", "**kwargs: Any")
        return
    is_starred = False
    for each in given:
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        if each.kind is each.KEYWORD_ONLY and not is_starred:
            yield "*"
        is_starred = is_starred or stars == "*" or each.kind is each.KEYWORD_ONLY
        yield f"{stars}{each.name}: Any{'' if each.default is each.empty else ' = ...'}"


def _takes_self(value: Any) -> bool:
    """Whether a function in a class is a method; nanobind says it in the signature, Python by a wrapper."""
    signatures = getattr(value, "__nb_signature__", None)
    return signatures is None or "(self" in signatures[0][0]


def write(folder: Path, root: Path = _ROOT) -> None:
    """Write the stubs for the sources below ``root`` into ``folder``, formatted as those are; older stubs there are
    deleted.

    Raises :class:`InvalidInput` for a folder that cannot be written, and where there are no sources or no ``ruff``.
    """
    settings = root / "pyproject.toml"
    if not settings.exists():
        raise InvalidInput(f"no sources in '{root}'", advice="run it in a checkout, installed by pip install -e")
    if importlib.util.find_spec("ruff") is None:
        raise InvalidInput("ruff formats the stubs, and is not installed", advice="pip install '.[dev]'")
    files = {folder / path: text for path, text in Stubs(*in_use(root)).files()}
    try:
        for path in [path for package in PACKAGES for path in (folder / package).rglob("*.pyi")]:
            path.unlink()
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write '{error.filename}': {error.strerror}", subject=str(folder)) from error
    for command in (["check", "--select", "I", "--fix"], ["format"]):
        options = ["--quiet", "--no-cache", "--config", str(settings), str(folder)]
        subprocess.run([sys.executable, "-m", "ruff", *command, *options], check=True)


def main(arguments: list[str] | None = None) -> int:
    """Write the stubs; 2 if that is not possible."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=_ROOT / "typings", help="default: %(default)s")
    try:
        write(parser.parse_args(arguments).folder)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
