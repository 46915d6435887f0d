"""The source distribution and the wheel: every module is in both, with its metadata, and editors find each."""

from __future__ import annotations

import functools
import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
TOP_FOLDERS = ("python", "importers", "lib", "tools")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.egg-info")


def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> set[str]:
    """``torch_tvm/lowering/ops/unary.py`` and all others, through the links that make one tree of the folders."""
    package = ROOT / "python" / "torch_tvm"
    folders = [package, *(entry for entry in package.iterdir() if entry.is_symlink())]
    return {
        (Path("torch_tvm") / folder.relative_to(package) / path.relative_to(folder.resolve())).as_posix()
        for folder in folders
        for pattern in ("*.py", "*.in")
        for path in folder.resolve().rglob(pattern)
    }


def test_every_folder_with_code_is_linked_into_the_package() -> None:
    linked = {entry.resolve() for entry in (ROOT / "python" / "torch_tvm").iterdir() if entry.is_symlink()}
    folders = {
        ROOT / "importers",
        ROOT / "tools",
        *(path.parent for path in (ROOT / "lib").glob("*/__init__.py")),
    }
    assert linked == folders


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for top in TOP_FOLDERS for path in (ROOT / top).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built from a copy of the sources, so that nothing of the build lands beside them."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for top in TOP_FOLDERS:
        shutil.copytree(ROOT / top, source / top, symlinks=True, ignore=NOT_SOURCES)
    # The wheel is built from the source distribution, as an index's users get it.
    command = [sys.executable, "-m", "build", "--quiet", "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_source_distribution_has_every_module(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {member.name.partition("/python/")[2] for member in archive if member.isfile()}
    assert modules() - files == set()


def test_the_wheel_has_every_module(wheel: zipfile.ZipFile) -> None:
    assert len(modules()) > 250
    assert modules() - set(wheel.namelist()) == set()


def test_what_the_wheel_installs_compiles(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(path)]
    subprocess.run([sys.executable, *install], check=True)
    program = (
        "import torch, torch_tvm; print(torch_tvm.__file__);"
        "print(torch_tvm.compile(torch.nn.ReLU(), (torch.ones(2),))(-torch.ones(2)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert done.stdout.decode().split("\n")[:2] == [f"{tmp_path}/torch_tvm/__init__.py", "[0.0, 0.0]"], done.stderr


IMPORTS = """\
from torch_tvm.importers.recording.recorder import Recorder
from torch_tvm.lowering.registry import LOWERINGS
from torch_tvm.schedules.cpu.matmul import rule as matmul
from torch_mlir.ir import Location
"""


def pyright(file: Path, text: str) -> subprocess.CompletedProcess[str]:
    file.write_text(text)
    command = [
        sys.executable,
        "-m",
        "basedpyright",
        "--pythonpath",
        sys.executable,
        "--level",
        "error",
        str(file),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_editors_find_every_sub_package(tmp_path: Path) -> None:
    done = pyright(tmp_path / "good.py", IMPORTS)
    assert done.returncode == 0, done.stdout
    wrong = IMPORTS.replace("Recorder", "Nothing").replace("Location", "Locations").replace("cpu", "nowhere")
    done = pyright(tmp_path / "bad.py", wrong)
    assert done.returncode == 1
    assert '"Nothing" is unknown import symbol' in done.stdout
    assert '"Locations" is unknown import symbol' in done.stdout  # by the stubs
    assert "torch_tvm.schedules.nowhere" in done.stdout


def test_the_wheel_has_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"torch_tvm"}


def test_the_wheel_is_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "torch_tvm/py.typed" in names
    (license_file,) = [name for name in names if name.endswith("/LICENSE")]
    assert "Apache License" in wheel.read(license_file).decode()
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_the_entry_points(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    text = wheel.read(name).decode()
    for line in (
        "[console_scripts]",
        "torch-tvm-opt = torch_tvm.tools.opt:main",
        "torch-tvm = torch_tvm.tools.cli:main",
        "[torch_dynamo_backends]",
        "[torch.backends]",
    ):
        assert line in text


def test_entry_points_exist_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    project = configuration()["project"]
    targets = [*project["scripts"].values()]
    for group in project["entry-points"].values():
        targets += group.values()
    files = set(wheel.namelist())
    for target in targets:
        module, _, function = target.partition(":")
        path = module.replace(".", "/")
        found = [name for name in (f"{path}.py", f"{path}/__init__.py") if name in files]
        assert found, f"{target}: no such module in the wheel"
        assert callable(functools.reduce(getattr, function.split("."), importlib.import_module(module))), target
