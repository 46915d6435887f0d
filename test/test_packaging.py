"""The wheel that ``pip install`` makes: every folder with code is in it, with its metadata."""

from __future__ import annotations

import subprocess
import sys
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


def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders_with_code() -> set[str]:
    """Folders, relative to the root, that hold Python sources and belong to the package."""
    return {
        path.parent.relative_to(ROOT).as_posix()
        for top in TOP_FOLDERS
        for path in (ROOT / top).rglob("*.py")
        if "egg-info" not in str(path)
    }


def missing_folders(setuptools: dict[str, Any], folders: set[str]) -> list[str]:
    """Folders with code that the configuration forgets: no package of the list is mapped onto them."""
    mapping = setuptools["package-dir"]
    packaged = {mapping.get(package, package.replace(".", "/")) for package in setuptools["packages"]}
    return sorted(folders - packaged)


def test_every_folder_with_code_is_a_package() -> None:
    assert missing_folders(configuration()["tool"]["setuptools"], folders_with_code()) == []


def test_a_forgotten_package_is_noticed() -> None:
    setuptools = configuration()["tool"]["setuptools"]
    packages = [package for package in setuptools["packages"] if package != "torch_tvm.passes"]
    assert missing_folders({**setuptools, "packages": packages}, folders_with_code()) == ["lib/passes"]
    assert missing_folders(setuptools, folders_with_code() | {"lib/new"}) == ["lib/new"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the sources, so that nothing of the build lands beside them."""
    source = tmp_path_factory.mktemp("source")
    target = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for top in TOP_FOLDERS:
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and "egg-info" not in str(path):
                copied = source / path.relative_to(ROOT)
                copied.parent.mkdir(parents=True, exist_ok=True)
                copied.write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(target), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_has_every_source(wheel: zipfile.ZipFile) -> None:
    mapping = configuration()["tool"]["setuptools"]["package-dir"]
    expected = set()
    for package, folder in mapping.items():
        for path in (ROOT / folder).glob("*.py"):
            expected.add(f"{package.replace('.', '/')}/{path.name}")
    assert len(expected) > 30
    assert expected - set(wheel.namelist()) == set()


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
        assert f"def {function}(" in wheel.read(found[0]).decode(), target
