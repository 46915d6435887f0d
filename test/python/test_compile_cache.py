"""Compiled code on disk: what finds it again, what does not, and that it is never worse than a compile."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import functional as F
from tvm import relax

import torch_tvm
from torch_tvm.artifact.code_cache import CodeCache, code_cache
from torch_tvm.support.errors import InvalidInput


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_TVM_CACHE_SIZE", raising=False)
    return tmp_path / "cache" / "code"


def model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()


def compiled_and_checked(program: Any, *args: Any, **how: Any) -> torch_tvm.CompiledModule:
    compiled = torch_tvm.compile(program, args, **how)
    for _ in range(2):
        fresh = tuple(torch.randn_like(a) if a.is_floating_point() else a for a in args)
        torch.testing.assert_close(compiled(*fresh), program(*fresh))
    return compiled


def test_the_second_compile_finds_the_code_and_packs_its_own_weights(folder: Path) -> None:
    x = torch.randn(3, 8)
    assert not compiled_and_checked(model(), x).report.is_cached
    again = compiled_and_checked(model(), x)  # other weights of the same shapes
    assert again.report.is_cached
    assert "code from the cache" in str(again.report)
    assert "build" not in again.report.seconds
    assert len(list(folder.glob("*.ttvm"))) == 1


def test_the_report_says_what_the_first_compile_found() -> None:
    program, x = lambda x: torch.relu(torch.linalg.inv(x) @ x) * 2, torch.eye(4) + 0.1
    first, second = (torch_tvm.compile(program, (x,)).report.to_dict() for _ in range(2))
    assert (first.pop("is_cached"), second.pop("is_cached")) == (False, True)
    del first["seconds"], second["seconds"]
    assert first["library_calls"] and first["kernels"] and first["ops"]
    assert second == first


def test_other_programs_options_and_targets_are_compiled() -> None:
    x = torch.randn(3, 8)
    one = model()
    compiled_and_checked(one, x)
    others: list[dict[str, Any]] = [
        {"options": {"accuracy": "strict"}},
        {"options": {"check_indices": False}},
        {"options": {"cache": False}},
        {"options": {"torch_executed_ops": ["aten.relu"]}},
        {"fallback": False},
        {"target": {"kind": "llvm", "mcpu": "x86-64-v2", "mtriple": "x86_64-linux-gnu"}},
    ]
    for how in others if sys.platform == "linux" and os.uname().machine == "x86_64" else others[:-1]:
        assert not compiled_and_checked(one, x, **how).report.is_cached, how
    assert not compiled_and_checked(one, torch.randn(4, 8)).report.is_cached
    assert compiled_and_checked(one, x).report.is_cached


class Pair(NamedTuple):
    total: torch.Tensor
    rest: dict[str, Any]


class Everything(torch.nn.Module):
    """State, a nested result with constants, and an op that runs in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.weight = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> Pair:
        self.count.add_(1)
        return Pair((x @ self.weight).sum() + self.count, {"x": x * self.count, "name": "fixed", "none": None})


def test_state_nesting_and_fallback_survive() -> None:
    x = torch.randn(3, 4)
    for expected in (False, True):
        eager = Everything()
        compiled = torch_tvm.compile(eager, (x,))
        assert compiled.report.is_cached == expected
        for _ in range(3):
            found, wanted = compiled(x), eager(x)
            assert isinstance(found, Pair)
            torch.testing.assert_close(found.total, wanted.total)
            torch.testing.assert_close(found.rest["x"], wanted.rest["x"])
            assert found.rest["name"] == "fixed"
            assert found.rest["none"] is None


def counted(x: torch.Tensor, n: int) -> torch.Tensor:
    for i in range(n):
        if bool(x.sum() > 0):
            x = x - i
        else:
            x = torch.special.modified_bessel_k1(x * x + 1)
    return x


def test_loops_conditions_and_unknown_sizes_survive() -> None:
    script = torch.jit.script(counted)
    specs = (torch_tvm.TensorSpec((None, 3), torch.float32), 2)
    for expected in (False, True):
        compiled = torch_tvm.compile(script, specs)
        assert compiled.report.is_cached == expected
        for rows, times in ((2, 3), (5, 0), (1, 1)):
            x = torch.randn(rows, 3)
            torch.testing.assert_close(compiled(x, times), counted(x, times))
    rows = torch.export.Dim("rows", min=2, max=9)
    for expected in (False, True):
        bounded = torch_tvm.compile(model(), (torch.randn(3, 8),), dynamic_shapes=({0: rows},))
        assert bounded.report.is_cached == expected
        with pytest.raises(InvalidInput, match="to 9, got 10"):
            bounded(torch.randn(10, 8))


def test_what_needs_the_compiler_compiles_when_it_is_asked(tmp_path: Path) -> None:
    x = torch.randn(3, 8)
    first, second = (compiled_and_checked(model(), x) for _ in range(2))
    assert second.report.is_cached
    assert str(second.tir_module) == str(first.tir_module)
    second.save(tmp_path / "model.ttvm")
    torch.testing.assert_close(torch_tvm.load(tmp_path / "model.ttvm")(x), second(x))
    assert second.benchmark(x, runs=1)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_a_damaged_entry_is_compiled_again(folder: Path, damage: str) -> None:
    x, one = torch.randn(3, 8), model()
    compiled_and_checked(one, x)
    (entry,) = folder.glob("*.ttvm")
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    cases = {"cut": content[:5000], "changed": content, "empty": bytearray(), "other": bytearray(b"PK no")}
    entry.write_bytes(cases[damage])
    assert not compiled_and_checked(one, x).report.is_cached
    assert compiled_and_checked(one, x).report.is_cached


def test_a_folder_that_others_can_write_is_not_used(folder: Path) -> None:
    x, one = torch.randn(3, 8), model()
    compiled_and_checked(one, x)
    folder.chmod(0o777)
    assert not compiled_and_checked(one, x).report.is_cached
    folder.chmod(0o700)
    (entry,) = folder.glob("*.ttvm")
    entry.chmod(0o666)
    assert not compiled_and_checked(one, x).report.is_cached


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path / "file"))
    assert not compiled_and_checked(model(), torch.randn(3, 8)).report.is_cached
    monkeypatch.setenv("TORCH_TVM_CACHE", "off")
    assert code_cache() is None
    assert not compiled_and_checked(model(), torch.randn(3, 8)).report.is_cached


@pytest.mark.parametrize("lack", ["room", "size", "folder"])
def test_without_room_for_objects_code_is_compiled_and_not_kept(
    lack: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """LLVM ends the process when it cannot write an object to the end."""
    if lack == "room":
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    elif lack == "size":
        monkeypatch.setattr(resource, "getrlimit", lambda which: (1000, 1000))
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "none"))
    x, one = torch.randn(3, 8), model()
    compiled = compiled_and_checked(one, x)
    with pytest.raises(InvalidInput, match="cannot be linked in a folder for temporary files"):
        compiled.save(folder / "model.ttvm")
    assert not list(folder.glob("*.ttvm"))


def test_entries_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path / "small", 250)
    for number, key in enumerate("abcd"):
        cache.add(key, lambda path: path.write_bytes(bytes(100)))
        os.utime(tmp_path / "small" / f"{key}.ttvm", (number, number))
    cache.add("e", lambda path: path.write_bytes(bytes(100)))
    assert sorted(path.stem for path in (tmp_path / "small").iterdir()) == ["d", "e"]
    info = cache.info()
    assert (info.entries, info.size, info.limit) == (2, 200, 250)
    assert cache.clear() == info
    assert cache.info().entries == 0


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "2 G"])
def test_a_size_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TORCH_TVM_CACHE_SIZE", text)
    with pytest.raises(InvalidInput, match=f"'{text}' is no size"):
        torch_tvm.compile(model(), (torch.randn(3, 8),))


def test_code_that_a_lowering_of_the_user_took_part_in_is_not_kept(folder: Path) -> None:
    from torch_tvm.lowering.registry import LOWERINGS

    @torch.library.custom_op("cache_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)

    @torch_tvm.register_lowering("cache_tests::twice")
    def lowered(b: Any, x: Any) -> Any:
        return b.emit(relax.op.add(x, x))

    try:
        compiled_and_checked(lambda x: twice(x) + 1, torch.randn(3))
        assert not list(folder.glob("*"))
    finally:
        del LOWERINGS["torch.cache_tests.twice"]


def test_graphs_of_torch_compile() -> None:
    from torch_tvm.inside_torch import graph_module

    reports: list[bool] = []
    real: Callable[..., Any] = graph_module.compile_module

    def watched(*args: Any, **kwargs: Any) -> Any:
        compiled = real(*args, **kwargs)
        reports.append(compiled.report.is_cached)
        return compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_module, "compile_module", watched)
        for _ in range(2):
            torch._dynamo.reset()
            one, x = model(), torch.randn(3, 8)
            compiled = torch.compile(one, backend="torch_tvm")
            for _ in range(2):
                torch.testing.assert_close(compiled(x), one(x))
    assert not reports[0]
    assert reports[-1]


# -- whole modules by name ---------------------------------------------------------------------------------


def test_a_named_module_is_not_looked_at_again() -> None:
    one, x = model(), torch.randn(3, 8)
    how: dict[str, Any] = {"options": {"cache_key": "mlp-v1"}}
    first = compiled_and_checked(one, x, **how)
    assert not first.report.is_cached

    def never(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it was traced")

    second = torch_tvm.compile(never, (x,), **how)
    assert second.report.is_cached
    torch.testing.assert_close(second(x), one(x))
    other = compiled_and_checked(lambda x: F.relu(x), torch.randn(4, 8), **how)
    assert not other.report.is_cached
    assert not compiled_and_checked(F.gelu, x, options={"cache_key": "mlp-v2"}).report.is_cached


def test_a_named_module_needs_no_compiler_in_the_next_process(tmp_path: Path) -> None:
    script = tmp_path / "twice.py"
    script.write_text(
        "import sys, torch, torch_tvm\n"
        "torch.manual_seed(0)\n"
        "m = torch.nn.Linear(8, 4).eval()\n"
        "x = torch.randn(3, 8)\n"
        "c = torch_tvm.compile(m, (x,), options={'cache_key': 'linear'})\n"
        "torch.testing.assert_close(c(x), m(x))\n"
        "print(c.report.is_cached, 'tvm' in sys.modules, 'torch_mlir' in sys.modules)\n"
    )
    said = [
        subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["False True True", "True False False"]


def test_a_named_module_is_of_one_default_dtype_and_one_set_of_ops_in_pytorch() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    x, how = torch.tensor([1, 2, 3]), {"cache_key": "half"}
    torch_tvm.compile(program, (x,), options=how)
    there = torch_tvm.compile(program, (x,), options={**how, "torch_executed_ops": ["aten.div"]})
    assert not there.report.is_cached
    torch.set_default_dtype(torch.float64)
    try:
        compiled = torch_tvm.compile(program, (x,), options=how)
        torch.testing.assert_close(compiled(x), program(x))
    finally:
        torch.set_default_dtype(torch.float32)


def test_wrong_names() -> None:
    x = torch.randn(3, 8)
    with pytest.raises(InvalidInput, match="expected a text, got int"):
        torch_tvm.compile(model(), (x,), options={"cache_key": 3})
    with pytest.raises(InvalidInput, match="expected a bool, got 'no'"):
        torch_tvm.compile(model(), (x,), options={"cache": "no"})
    with pytest.raises(InvalidInput, match="is not kept"):
        torch_tvm.compile(model(), (x,), options={"cache_key": "a", "measure": True})
