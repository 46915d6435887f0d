"""``torch.compiler.save_cache_artifacts``: code that one process compiled, in the cache of another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.compiler._cache import CacheArtifactManager

import torch_tvm
from torch_tvm.artifact.code_cache import code_cache
from torch_tvm.autoload import autoload
from torch_tvm.caching import versions
from torch_tvm.caching.artifacts import CodeArtifact


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path / "one"))
    torch._dynamo.reset()
    with CacheArtifactManager.with_fresh_cache():
        yield tmp_path


def program(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * 3 + 1


def compiled_once() -> bytes:
    torch.compile(program, backend="torch_tvm")(torch.randn(5))
    saved = torch.compiler.save_cache_artifacts()
    assert saved is not None
    data, info = saved
    assert len(info.artifacts["torch_tvm"]) == 1
    return data


LOADS = """
import sys, torch
info = torch.compiler.load_cache_artifacts(open(sys.argv[1], "rb").read())
assert "tvm" not in sys.modules and "torch_mlir" not in sys.modules
print(len(info.artifacts["torch_tvm"]))
"""


def test_artifacts_fill_the_cache_of_another_process(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "artifacts").write_bytes(compiled_once())
    # what the entry point runs, for a PyTorch that was installed before it was one
    script = "import torch_tvm.autoload\ntorch_tvm.autoload.autoload()\n" + LOADS
    environment = {**os.environ, "TORCH_TVM_CACHE": str(fresh / "two")}
    command = [sys.executable, "-c", script, str(fresh / "artifacts")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "1", done.stderr
    one, two = (list((fresh / each / "code").iterdir()) for each in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    monkeypatch.setenv("TORCH_TVM_CACHE", str(fresh / "two"))
    torch._dynamo.reset()
    compiled_once()  # found there, so there is no second entry
    assert [path.name for path in two] == [path.name for path in (fresh / "two" / "code").iterdir()]


def test_what_torch_compile_did_not_compile_is_no_artifact() -> None:
    torch_tvm.compile(program, (torch.randn(5),))
    assert torch.compiler.save_cache_artifacts() is None


@pytest.mark.parametrize("key", ["../../escaped", "x" * 64, ""])
def test_an_artifact_under_a_name_that_is_no_key_is_left_out(fresh: Path, key: str) -> None:
    autoload()
    CodeArtifact(key, b"code").populate_cache()
    assert not [path for path in fresh.rglob("*") if path.is_file()]


def test_files_that_a_killed_process_left_go(fresh: Path) -> None:
    compiled_once()
    cache = code_cache()
    assert cache is not None
    old, new = (cache.folder / f".{name}.ttvm.0123456789abcdef.partial" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.add("0" * 64, lambda path: path.write_bytes(b"whole"))
    assert not old.exists()
    assert new.exists()
    os.utime(new, (0, 0))
    cache.clear()
    assert not list(cache.folder.iterdir())


class _File:
    """A line of a wheel's list of files."""

    def __init__(self, path: str, where: Path, is_hashed: bool = True) -> None:
        self.path, self.name, self.where = path, Path(path).name, where
        self.hash: Any = type("Hash", (), {"value": "abc"}) if is_hashed else None

    def as_posix(self) -> str:
        return self.path

    def locate(self) -> Path:
        return self.where


def test_versions_tell_every_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And those of a wheel are the same on every machine, whenever it was installed."""
    package = tmp_path / "torch_tvm"
    (package / "lowering").mkdir(parents=True)
    paths = [package / "driver.py", package / "lowering" / "model.h.in"]
    for path in paths:
        path.write_text("1")
    record = tmp_path / "RECORD"
    record.write_text("")
    monkeypatch.setattr(versions, "__file__", str(package / "caching" / "versions.py"))

    def found() -> str:
        return versions.versions.__wrapped__()

    files: list[_File] = []
    monkeypatch.setattr(metadata, "files", lambda name: files)
    seen = [found()]
    for path in paths:
        path.write_text("22")
        seen.append(found())
    assert len(set(seen)) == 3
    files += [_File(path.relative_to(tmp_path).as_posix(), path) for path in paths]
    files.append(_File("torch_tvm.dist-info/RECORD", record, is_hashed=False))
    installed = found()
    assert installed not in seen
    os.utime(paths[0], (1, 1))
    assert found() == installed
    os.utime(paths[1], (1 << 32, 1 << 32))  # changed after it was installed
    assert found() != installed
