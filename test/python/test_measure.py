"""``options={"measure": True}``: candidates are timed once, the winner is stored and used, results stay right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import torch_tvm
from torch_tvm.profiling import autotune as measure
from torch_tvm.profiling.autotune import Autotuner
from torch_tvm.schedules.target import host_target
from torch_tvm.support.errors import InvalidInput


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measure, "ROUNDS", 2)
    monkeypatch.setattr(measure, "ROUND_SECONDS", 0.0005)
    return tmp_path / "cache"


def compile_measured(module: torch.nn.Module, x: torch.Tensor, **options: object):
    return torch_tvm.compile(module.eval(), (x,), fallback=False, options={"measure": True, **options})


def prefer(monkeypatch: pytest.MonkeyPatch, position: int) -> list[list[str]]:
    """The candidate at ``position`` appears to be the fastest; the labels of each measurement."""
    seen: list[list[str]] = []

    def timed(candidates, target):
        seen.append(list(candidates))
        best = list(candidates)[min(position, len(candidates) - 1)]
        return {label: 1.0 if label == best else 2.0 for label in candidates}

    monkeypatch.setattr(measure, "time_candidates", timed)
    return seen


@torch.no_grad()
def test_measured_model_is_right_and_reported() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(16, 40, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(40 * 25, 33)
    )
    x = torch.randn(13, 16, 7, 7)
    compiled = compile_measured(module, x, accuracy="strict")
    assert torch.allclose(compiled(x), module(x), atol=1e-4)
    assert len(compiled.report.measured) == 2
    for item in compiled.report.measured:
        assert item.choice in item.seconds
        assert len(item.seconds) > 1
        assert all(seconds > 0 for seconds in item.seconds.values())
        assert f"{item.kernel}: measured, chose {item.choice}" in str(compiled.report)


@torch.no_grad()
@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("rows", [2, 7, 30])
def test_every_candidate_of_a_product_is_right(rows: int, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, position)
    module, x = torch.nn.Linear(37, 100), torch.randn(rows, 37)
    compiled = compile_measured(module, x)
    assert torch.allclose(compiled(x), module(x), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("position", range(5))
def test_every_candidate_of_a_convolution_is_right(position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, position)
    module, x = torch.nn.Conv2d(5, 70, 3, stride=2), torch.randn(2, 5, 19, 19)
    compiled = compile_measured(module, x)
    assert torch.allclose(compiled(x), module(x), atol=1e-5)
    assert compiled.report.measured


def test_the_winner_is_stored_and_used_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prefer(monkeypatch, 1)
    module, x = torch.nn.Linear(64, 96), torch.randn(32, 64)
    first = compile_measured(module, x)
    again = compile_measured(module, x)
    assert len(seen) == 1
    (one,), (other,) = first.report.measured, again.report.measured
    assert one.choice == other.choice == seen[0][1]
    assert (one.is_stored, other.is_stored) == (False, True)
    assert "stored, chose" in str(again.report)
    (file,) = cache.glob("*.json")
    assert json.loads(file.read_text())["choice"] == one.choice
    scheduled = lambda compiled: compiled.tir_module[one.kernel].script()
    assert scheduled(first) == scheduled(again)


def test_the_choice_changes_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = torch.nn.Linear(64, 96), torch.randn(32, 64)
    own = torch_tvm.compile(module.eval(), (x,), fallback=False)
    prefer(monkeypatch, 4)
    measured = compile_measured(module, x)
    (item,) = measured.report.measured
    assert own.tir_module[item.kernel].script() != measured.tir_module[item.kernel].script()


def test_equal_kernels_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prefer(monkeypatch, 0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    compile_measured(module, torch.randn(32, 64))
    assert len(seen) == 1


def test_a_small_gain_keeps_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    times = lambda candidates, target: {label: 1.0 - 0.001 * i for i, label in enumerate(candidates)}
    monkeypatch.setattr(measure, "time_candidates", times)
    (item,) = compile_measured(torch.nn.Linear(64, 96), torch.randn(32, 64)).report.measured
    assert item.choice == next(iter(item.seconds))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"choice": "none", "seconds": {}}'])
def test_a_damaged_file_is_measured_again(text: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prefer(monkeypatch, 0)
    module, x = torch.nn.Linear(64, 96), torch.randn(32, 64)
    compile_measured(module, x)
    (file,) = cache.glob("*.json")
    file.write_text(text)
    compile_measured(module, x)
    assert len(seen) == 2


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    monkeypatch.setenv("TORCH_TVM_CACHE", str(obstacle))
    assert compile_measured(torch.nn.Linear(64, 96), torch.randn(32, 64)).report.measured


def test_nothing_is_measured_by_default(cache: Path) -> None:
    compiled = torch_tvm.compile(torch.nn.Linear(64, 96).eval(), (torch.randn(32, 64),), options={"cache": False})
    assert compiled.report.measured == []
    assert not cache.exists()


def test_unknown_sizes_are_not_measured() -> None:
    rows = torch.export.Dim("rows", min=2, max=512)
    compiled = torch_tvm.compile(
        torch.nn.Linear(64, 96).eval(),
        (torch.randn(32, 64),),
        dynamic_shapes=({0: rows},),
        options={"measure": True},
    )
    assert compiled.report.measured == []


def test_other_machines_are_refused() -> None:
    target = {"kind": "llvm", "mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}
    with pytest.raises(InvalidInput, match="cannot be measured on this machine"):
        torch_tvm.compile(torch.nn.Linear(8, 8).eval(), (torch.randn(4, 8),), target=target, options={"measure": True})


def test_measure_must_be_a_bool() -> None:
    with pytest.raises(InvalidInput, match="expected a bool, got 3"):
        torch_tvm.compile(torch.nn.Linear(8, 8).eval(), (torch.randn(4, 8),), options={"measure": 3})


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Autotuner(host_target()).directory == tmp_path / "cache"
    monkeypatch.delenv("TORCH_TVM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Autotuner(host_target()).directory == tmp_path / "torch_tvm"
    monkeypatch.setenv("TORCH_TVM_CACHE", "off")
    assert Autotuner(host_target()).directory is None
