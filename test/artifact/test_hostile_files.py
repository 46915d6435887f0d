"""Files that are no compiled module, or no whole one: one clear error, before anything in them runs."""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm import InvalidInput
from torch_tvm.artifact import archive as format

X = torch.randn(3, 4)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


@pytest.fixture(scope="module")
def path(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "model.ttvm"
    torch_tvm.compile(model, (X,)).save(path, originals=True, sample_args=(X,))
    return path


def refused(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        torch_tvm.load(path)
    return str(caught.value)


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], **options: Any) -> Path:
    """Another file with changed entries."""
    content = entries(path)
    change(content)
    other = path.with_name("other.ttvm")
    with zipfile.ZipFile(other, "w", **options) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return other


def with_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Another file whose manifest says something else, with the hashes that go with it."""

    def edit(content: dict[str, bytes]) -> None:
        manifest = json.loads(content["model/models/model.json"])
        change(manifest)
        text = json.dumps(manifest).encode()
        content["model/models/model.json"] = text
        content["model/models/model.sha256"] = format.hashlib.sha256(text).hexdigest().encode()

    return rewritten(path, edit)


def test_what_was_packed_by_another_tool_is_read(path: Path, model: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(torch_tvm.load(rewritten(path, lambda _: None))(X), model(X))


def test_no_file_and_no_archive(tmp_path: Path) -> None:
    assert "cannot read" in refused(tmp_path / "missing.ttvm")
    assert "cannot read" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in refused(tmp_path / "pipe")
    for number, content in enumerate((b"", b"PK\3\4", b"\x7fELF" + bytes(100), b"text\n" * 1000)):
        other = tmp_path / f"{number}.ttvm"
        other.write_bytes(content)
        assert "no whole file" in refused(other) or "cannot read" in refused(other)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "no whole file" in refused(tmp_path / "empty.zip")
    torch.jit.save(torch.jit.trace(nn.ReLU(), X), tmp_path / "traced.pt")
    assert "it has an entry 'traced/" in refused(tmp_path / "traced.pt")


def test_cut_at_any_place(path: Path) -> None:
    content, draw = path.read_bytes(), random.Random(int(os.environ["TORCH_TVM_SEED"]))
    other = path.with_name("cut.ttvm")
    for length in [draw.randrange(1, len(content)) for _ in range(40)]:
        other.write_bytes(content[:length])
        assert "no whole file" in refused(other)


def test_any_byte_changed(path: Path, model: nn.Module) -> None:
    """Refused, or it was a byte that nobody reads."""
    content, draw = path.read_bytes(), random.Random(int(os.environ["TORCH_TVM_SEED"]))
    other = path.with_name("changed.ttvm")
    with torch.no_grad():
        expected = model(X)
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 16))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        other.write_bytes(changed)
        try:
            loaded = torch_tvm.load(other)
        except InvalidInput:
            continue
        with torch.no_grad():
            torch.testing.assert_close(loaded(X), expected)


def test_entries_that_do_not_belong(path: Path) -> None:
    def add(name: str) -> Path:
        return rewritten(path, lambda content: content.update({name: b"x"}))

    assert "does not know 'data/code/evil.so'" in refused(add("model/data/code/evil.so"))
    for name in ("model/../../evil", "/etc/passwd", "evil", "model/data/", "model/data\\evil"):
        assert "it has an entry" in refused(add(name))
    library = "model/data/code/0.so"
    assert "was changed" in refused(rewritten(path, lambda c: c.update({library: c[library][:-1] + b"!"})))
    assert "the size of" in refused(rewritten(path, lambda c: c.update({library: c[library] + b"!"})))
    assert "it has no entry" in refused(rewritten(path, lambda c: c.__delitem__(library)))
    assert "is compressed" in refused(rewritten(path, lambda _: None, compression=zipfile.ZIP_DEFLATED))


def test_two_entries_of_one_name(path: Path) -> None:
    other = path.with_name("twice.ttvm")
    other.write_bytes(path.read_bytes())
    with zipfile.ZipFile(other, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("model/data/code/0.so", b"evil")
    assert "twice" in refused(other)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("archive_format", b"pt2", "has the archive format 'pt2', this torch_tvm reads 'ttvm'"),
        ("archive_version", b"99", "has the archive version '99', this torch_tvm reads '1'"),
        ("byteorder", b"big", "has the byteorder 'big'"),
    ],
)
def test_another_version(path: Path, name: str, text: bytes, message: str) -> None:
    assert message in refused(rewritten(path, lambda content: content.update({f"model/{name}": text})))


def test_a_manifest_that_was_edited(path: Path) -> None:
    """Whatever it says instead, it is refused by an error of ours, and no name in it is imported or evaluated."""
    edit = b'"programs"', b'"Programs"'
    plain = rewritten(
        path, lambda c: c.update({"model/models/model.json": c["model/models/model.json"].replace(*edit)})
    )
    assert "its manifest was changed" in refused(plain)

    def convention(**changes: Any) -> str:
        return refused(with_manifest(path, lambda m: m["programs"][0]["convention"].update(changes)))

    convention(out_spec={"node": "antigravity:x", "context": None, "of": [None]})
    convention(out_spec={"node": "os:system", "context": None, "of": [None]})
    convention(constants=[{"position": 1, "value": {"eval": "1"}, "name": None}])
    convention(results=["load"])
    convention(results=[{"number": "__import__('os')"}])
    convention(requirements=[{"condition": ["__import__", 1, 2], "message": ""}])
    convention(writes=[77])
    convention(layout="exec")
    for change in (
        lambda m: m.pop("programs"),
        lambda m: m["programs"].clear(),
        lambda m: m["programs"][0].pop("weights"),
        lambda m: m["programs"][0]["variants"][0]["code"].update(single=None),
        lambda m: m["programs"][0]["variants"][0].update(library="data/weights/0"),
        lambda m: m["programs"][0]["variants"][0].update(library="../../../etc/passwd"),
        lambda m: m["programs"][0]["variants"][0]["packed"][0].update(shape=[10**9, 10**9]),
        lambda m: m["programs"][0]["variants"][0]["packed"][0].update(shape=[-1]),
        lambda m: m["programs"][0]["variants"][0]["packed"][0].update(dtype="nn"),
    ):
        refused(with_manifest(path, change))


def test_nesting_of_a_manifest_ends(path: Path) -> None:
    nested = "[" * 100_000 + "]" * 100_000
    text = nested.encode()

    def edit(content: dict[str, bytes]) -> None:
        content["model/models/model.json"] = text
        content["model/models/model.sha256"] = format.hashlib.sha256(text).hexdigest().encode()

    assert "its manifest is no JSON" in refused(rewritten(path, edit))
