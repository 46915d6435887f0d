"""Who may import whom: the table of folders, held against every import in the sources.

A row is a package: the packages of ours that it may import, and the third parties. ``mlir`` stands for
``torch_tvm.dialect.mlir``, the only file that imports ``torch_mlir`` by name.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ANY = frozenset({"*"})


@dataclass(frozen=True)
class Layer:
    folder: str
    ours: frozenset[str]
    third_party: frozenset[str]


def layer(folder: str, ours: str, third_party: str) -> Layer:
    return Layer(folder, frozenset(ours.split()), frozenset(third_party.split()))


LAYERS = {
    "torch_tvm": Layer("python/torch_tvm", ANY, ANY),
    "torch_tvm.tools": Layer("tools", ANY, ANY),
    # sympy is how torch spells symbolic sizes.
    "torch_tvm.importers": layer("importers", "aten dialect support", "torch mlir sympy lark"),
    "torch_tvm.support": layer("lib/support", "", "platformdirs"),
    "torch_tvm.aten": layer("lib/aten", "support", "torch"),
    "torch_tvm.dialect": layer("lib/dialect", "aten support", "torch mlir numpy"),
    "torch_tvm.passes": layer("lib/passes", "aten dialect support", "torch mlir lark"),
    "torch_tvm.tir": layer("lib/tir", "support", "tvm tvm_ffi"),
    "torch_tvm.workloads": layer("lib/workloads", "support tir", "tvm"),
    "torch_tvm.lowering": layer("lib/lowering", "aten dialect support tir workloads", "torch mlir tvm tvm_ffi numpy"),
    "torch_tvm.transforms": layer("lib/transforms", "schedules support tir workloads", "tvm tvm_ffi numpy"),
    "torch_tvm.schedules": layer("lib/schedules", "support tir workloads", "tvm tvm_ffi"),
    "torch_tvm.codegen": layer("lib/codegen", "runtime support tir", "torch tvm tvm_ffi"),
    "torch_tvm.backends": layer("lib/backends", "codegen schedules transforms support", "tvm"),
    "torch_tvm.profiling": layer("lib/profiling", "codegen runtime schedules support tir", "torch tvm tvm_ffi numpy"),
    "torch_tvm.tuning": layer(
        "lib/tuning", "backends codegen profiling runtime schedules support tir", "torch tvm tvm_ffi numpy"
    ),
    # What runs compiled code needs no compiler: tvm_ffi alone.
    "torch_tvm.runtime": layer("lib/runtime", "aten support", "torch tvm_ffi numpy pyopencl"),
    "torch_tvm.artifact": layer("lib/artifact", "aten runtime support", "torch tvm_ffi"),
}
MLIR_FILE = "torch_tvm.dialect.mlir"


def sources() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of the package."""
    for package, row in LAYERS.items():
        for path in sorted((ROOT / row.folder).rglob("*.py")):
            parts = path.relative_to(ROOT / row.folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix(".__init__"), path


def imports(module: str, text: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a source imports, relative imports resolved.

    ``from a.b import c`` counts as ``a.b.c``: ``c`` may be a module.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
                base = ".".join([*parents, base]).rstrip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def package_of(name: str) -> str:
    """The layer that a name of ours belongs to."""
    return max((p for p in LAYERS if name == p or name.startswith(f"{p}.")), key=len)


def violations(module: str, text: str, is_package: bool = False) -> list[str]:
    """What a source imports and may not, one line each."""
    package = package_of(module)
    row = LAYERS[package]
    found = []
    for line, name in imports(module, text, is_package):
        top = name.partition(".")[0]
        if top == "torch_mlir":
            is_wrong = module != MLIR_FILE
        elif top == "torch_tvm":
            is_wrong = not may_use(row, package, package_of(name), name)
        else:
            is_wrong = ANY != row.third_party and top not in row.third_party and top not in sys.stdlib_module_names
        if is_wrong:
            found.append(f"{module}:{line}: {package} may not import {name}")
    return found


def may_use(row: Layer, package: str, used: str, name: str) -> bool:
    if used == package or row.ours == ANY:
        return True
    if name.startswith(MLIR_FILE) and "mlir" not in row.third_party:
        return False
    return used.removeprefix("torch_tvm.") in row.ours


@pytest.mark.parametrize("package", LAYERS)
def test_imports_are_those_of_the_table(package: str) -> None:
    found = []
    for module, path in sources():
        if package_of(module) == package:
            found += violations(module, path.read_text(), path.name == "__init__.py")
    assert not found, "\n" + "\n".join(found)


def test_every_package_has_sources() -> None:
    assert {package_of(module) for module, _ in sources()} == set(LAYERS)


def imported_files(module: str, tree: ast.AST, modules: Collection[str]) -> set[str]:
    """The files of ours that a source imports: at its top, inside a function, or for its annotations alone."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(modules) - {module}


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Files that import each other, directly or not: those from which they are reached themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        pending = list(graph[start])
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending += graph[name]
        return seen

    reach = {name: reached(name) for name in graph}
    rings = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted(sorted(ring) for ring in rings)


def test_files_do_not_import_each_other() -> None:
    modules = dict(sources())
    graph = {name: imported_files(name, ast.parse(path.read_text()), modules) for name, path in modules.items()}
    assert sum(map(len, graph.values())) > len(graph)
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    modules = {"torch_tvm.a", "torch_tvm.b", "torch_tvm.c"}
    hidden = ast.parse("def f():\n    from torch_tvm import b, c")
    typed = ast.parse("if TYPE_CHECKING:\n    from torch_tvm.a import A")
    assert imported_files("torch_tvm.a", hidden, modules) == {"torch_tvm.b", "torch_tvm.c"}
    assert imported_files("torch_tvm.c", typed, modules) == {"torch_tvm.a"}
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a", "d"]}) == [["b", "c"], ["d"]]


BAD = [
    ("torch_tvm.support.errors", "import torch", "torch_tvm.support may not import torch"),
    ("torch_tvm.support.errors", "from ..dialect import view", "may not import torch_tvm.dialect.view"),
    ("torch_tvm.dialect.view", "import tvm.relax", "may not import tvm.relax"),
    ("torch_tvm.dialect.view", "from torch_mlir import ir", "may not import torch_mlir.ir"),
    ("torch_tvm.tools.opt", "import torch_mlir.ir", "may not import torch_mlir.ir"),
    ("torch_tvm.importers.fx.graph", "from ...passes import base", "may not import torch_tvm.passes.base"),
    ("torch_tvm.importers.fx.graph", "def f():\n    import tvm", "importers.fx.graph:2:"),
    (
        "torch_tvm.schedules.cpu.matmul.rule",
        "from torch_tvm.dialect.mlir import ir",
        "schedules may not import",
    ),
    (
        "torch_tvm.lowering.ops.basic",
        "from torch_tvm import transforms",
        "may not import torch_tvm.transforms",
    ),
    ("torch_tvm.lowering.ops.basic", "from ... import compile", "may not import torch_tvm.compile"),
    (
        "torch_tvm.passes.x",
        "if TYPE_CHECKING:\n    from torch_tvm.importers import fx",
        "torch_tvm.importers.fx",
    ),
]


@pytest.mark.parametrize(("module", "text", "message"), BAD, ids=[row[1].splitlines()[-1].strip() for row in BAD])
def test_a_violation_is_caught(module: str, text: str, message: str) -> None:
    found = violations(module, text)
    assert len(found) == 1 and message in found[0], found


def test_relative_imports_of_a_package_file_are_resolved() -> None:
    assert violations("torch_tvm.lowering", "from .ops import load", is_package=True) == []
    (found,) = violations("torch_tvm.lowering", "from ..codegen import build", is_package=True)
    assert "torch_tvm.codegen.build" in found


def test_what_the_table_allows_passes() -> None:
    text = "import os\nimport torch\nfrom torch_tvm.dialect.mlir import ir\nfrom .base import Pass\n"
    assert violations("torch_tvm.passes.fold_x", text) == []
    assert violations("torch_tvm.schedules.cpu.x", "import tvm_ffi") == []
    assert violations(MLIR_FILE, "from torch_mlir import ir") == []
