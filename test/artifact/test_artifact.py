"""Compiled modules in files: what is loaded, in a process without a compiler, is what was saved."""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact.saved_programs import programs
from torch import nn

import torch_tvm
from torch_tvm import InvalidInput
from torch_tvm.artifact import processor, save
from torch_tvm.tools import cli

HERE = Path(__file__).parent.parent

_LOADER = """
import sys, pickle, torch, torch_tvm
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from artifact.saved_programs import programs
folder = Path(sys.argv[2])
modules = {path.stem: torch_tvm.load(path) for path in sorted(folder.glob("*.ttvm"))}
compilers = [name for name in sys.modules if name.split(".")[0] in ("tvm", "torch_mlir")]
assert not compilers, compilers
mapped = Path("/proc/self/maps").read_text()
assert "libtvm_compiler" not in mapped and "libtvm_runtime" in mapped
# The same calls; compiling comes after loading.
results = {name: [call(modules[name]) for call in calls] for name, (_, calls) in programs().items()}
torch.save(results, folder / "results.pt")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of saved modules, and what each gave before for its calls."""
    folder = tmp_path_factory.mktemp("saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        made = programs()
    results = {}
    for name, (module, calls) in made.items():
        module.save(folder / f"{name}.ttvm")
        with torch.no_grad():
            results[name] = [call(module) for call in calls]
    return folder, results


def test_a_loaded_module_is_the_saved_one(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = saved
    command = [sys.executable, "-W", "ignore", "-c", _LOADER, str(HERE), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    results = torch.load(folder / "results.pt", weights_only=False)
    for name, values in expected.items():
        torch.testing.assert_close(
            results[name],
            values,
            rtol=0,
            atol=0,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_in_the_process_that_compiles(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = saved
    x = torch.randn(3)
    loaded = torch_tvm.load(folder / "counter.ttvm")
    copied = copy.deepcopy(loaded)
    assert torch.equal(loaded(x), x) and torch.equal(copied(x), x), "a copy has a state of its own"
    assert torch.equal(loaded.state_dict()["total"], x)
    loaded.load_state_dict({"count": torch.tensor(3), "total": torch.zeros(3)})
    assert torch.equal(loaded(x), x / 4)
    assert str(loaded.report).startswith("target: ") and loaded.relax_module is None
    with pytest.raises(InvalidInput, match="expected float32"):
        loaded(torch.zeros(4))
    with pytest.raises(InvalidInput, match="this module was loaded"):
        loaded.save(folder / "again.ttvm")
    with pytest.raises(InvalidInput, match="only CPU programs without state"):
        loaded.benchmark(x)


def test_weights_are_kept_as_kernels_read_them(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    x, other = torch.randn(1, 3, 5, 5), copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    compiled = torch_tvm.compile(model, (x,))
    compiled.save(tmp_path / "packed.ttvm")
    compiled.save(tmp_path / "both.ttvm", originals=True)
    packed, both = (torch_tvm.load(tmp_path / f"{name}.ttvm") for name in ("packed", "both"))
    assert set(both.state_dict()) == set(compiled.state_dict())
    for name, tensor in compiled.state_dict().items():
        assert torch.equal(both.state_dict()[name], tensor)
    with pytest.raises(InvalidInput, match="originals=True"):
        packed.state_dict()
    with pytest.raises(InvalidInput, match="originals=True"):
        packed.load_state_dict({"0.bias": torch.zeros(16)}, strict=False)
    with torch.no_grad():
        assert torch.equal(packed(x), compiled(x)), "a failed load changes nothing"
        for module in (packed, both):
            module.load_state_dict(other.state_dict())
            torch.testing.assert_close(module(x), other(x))
    reloaded = torch_tvm.load(tmp_path / "both.ttvm")
    with torch.no_grad():
        assert torch.equal(reloaded(x), compiled(x)), "the file stays as it was"


def test_code_for_several_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(4, 32)
    compiled = torch_tvm.compile(model, (x,))
    path = tmp_path / "model.ttvm"
    compiled.save(path, targets=["x86-64-v3", "x86-64-v4"])
    monkeypatch.setattr(processor, "_known", lambda: frozenset({"sse", "avx"}))
    with pytest.raises(InvalidInput, match=r"needs a processor with avx2, bmi"):
        torch_tvm.load(path)
    monkeypatch.undo()
    if not processor.missing(["avx2", "fma"]):
        known = processor._known()
        monkeypatch.setattr(processor, "_known", lambda: frozenset(n for n in known if not n.startswith("avx512")))
        with torch.no_grad():
            torch.testing.assert_close(torch_tvm.load(path)(x), model(x))
    with monkeypatch.context() as patch:
        patch.setattr(processor.platform, "machine", lambda: "riscv64")
        with pytest.raises(InvalidInput, match="the code is for x86_64-linux, the machine is riscv64-linux"):
            torch_tvm.load(path)
    with pytest.raises(InvalidInput, match="LLVM has no processor 'x86-64-v9'"):
        compiled.save(path, targets=["x86-64-v9"])


def test_the_hash_that_a_user_expects(tmp_path: Path) -> None:
    path = tmp_path / "model.ttvm"
    torch_tvm.compile(nn.ReLU(), (torch.ones(2),)).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(torch_tvm.load(path, expect_sha256=digest)(torch.ones(2)), torch.ones(2))
    with pytest.raises(InvalidInput, match="not the file that you expect"):
        torch_tvm.load(path, expect_sha256="0" * 64)


def test_a_link_stays_one_and_a_linker_may_have_arguments(tmp_path: Path) -> None:
    compiled = torch_tvm.compile(nn.ReLU(), (torch.ones(2),))
    file, link = tmp_path / "model.ttvm", tmp_path / "link.ttvm"
    file.write_bytes(b"old")
    link.symlink_to(file)
    compiled.save(link, linker="cc -O1")
    assert link.is_symlink() and torch.equal(torch_tvm.load(file)(torch.ones(2)), torch.ones(2))
    assert {path.name for path in tmp_path.iterdir()} == {"model.ttvm", "link.ttvm"}


def test_a_disk_that_is_full_leaves_neither_a_file_nor_a_complaint_of_zipfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    compiled = torch_tvm.compile(nn.ReLU(), (torch.ones(2),))
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(save, "encode_convention", full)
    with pytest.raises(InvalidInput, match=r"cannot write '.*': No space left on device"):
        compiled.save(tmp_path / "model.ttvm")
    gc.collect()
    assert not list(tmp_path.iterdir()) and not unraisable


def test_what_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch_tvm.compile(nn.ReLU(), (torch.ones(2),))
    with pytest.raises(InvalidInput, match="cannot write"):
        compiled.save(tmp_path / "missing" / "model.ttvm")
    with pytest.raises(InvalidInput, match="there is no C compiler 'no-such-compiler'"):
        compiled.save(tmp_path / "model.ttvm", linker="no-such-compiler")
    for command in ("false", "true"):  # it fails; it writes nothing
        with pytest.raises(InvalidInput, match=f"'{command}' cannot link the code"):
            compiled.save(tmp_path / "model.ttvm", linker=command)
    with pytest.raises(InvalidInput, match="it is a directory"):
        compiled.save(tmp_path)
    with pytest.raises(InvalidInput, match="it is no plain file"):
        compiled.save("/dev/zero")
    wrong: list[Any] = [None, 5, b"model.ttvm"]
    for path in wrong:
        with pytest.raises(InvalidInput, match="expected a path"):
            compiled.save(path)
        with pytest.raises(InvalidInput, match="expected a path"):
            torch_tvm.load(path)
        with pytest.raises(InvalidInput, match="expected a path"):
            compiled.export_library(path)
    (tmp_path / "library.params").mkdir()
    with pytest.raises(InvalidInput, match=r"library\.params': it is a directory"):
        compiled.export_library(tmp_path / "library.so")
    (tmp_path / "library.params").rmdir()
    with pytest.raises(InvalidInput, match=r"pass \['x86-64-v3'\]"):
        compiled.save(tmp_path / "model.ttvm", targets="x86-64-v3")
    with pytest.raises(InvalidInput, match="LLVM makes no code for 'i686'"):
        compiled.save(tmp_path / "model.ttvm", targets=["i686"])
    with pytest.raises(InvalidInput, match=r"read it with torch_tvm\.load"):
        torch_tvm.compile(tmp_path / "model.ttvm")
    monkeypatch.setattr(torch_tvm.artifact.save, "encode_convention", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compiled.save(tmp_path / "model.ttvm")
    assert list(tmp_path.iterdir()) == [], "nothing is left half written"


def test_a_runtime_that_is_not_whole_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not blamed for what is missing on the machine."""
    torch_tvm.compile(nn.ReLU(), (torch.ones(2),)).save(tmp_path / "relu.ttvm")
    (tmp_path / "tvm").mkdir()
    (tmp_path / "tvm/__init__.py").write_text("")
    script = f"import torch_tvm; torch_tvm.load({str(tmp_path / 'relu.ttvm')!r})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "TVM's runtime library cannot be loaded" in done.stderr
    assert "no whole file" not in done.stderr


class _Writes(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x.add_(y)
        return x, x[1:]

    @torch.jit.export
    def halved(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def test_a_sample_that_the_program_writes_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept are the arguments as they were before."""
    x, y = torch.randn(3, 2), torch.randn(3, 2)
    before, file = x.clone(), tmp_path / "writes.ttvm"
    torch_tvm.compile(_Writes(), (x, y)).save(file, sample_args=(x, y))
    assert torch.equal(x, before)
    assert cli.main(["run", str(file), "--check"]) == 0 and "agrees" in capsys.readouterr().out


def test_a_method_that_was_never_called(tmp_path: Path) -> None:
    x, file = torch.randn(3, 2), tmp_path / "methods.ttvm"
    compiled = torch_tvm.compile(torch.jit.script(_Writes()), (x.clone(), x))
    compiled.save(file)
    with pytest.raises(InvalidInput, match=r"halved: no code was saved: it was not compiled by then\n.*call"):
        torch_tvm.load(file).halved(x)
    compiled.halved(x)
    compiled.save(file)
    torch.testing.assert_close(copy.deepcopy(torch_tvm.load(file)).halved(x), x / 2)
