"""Writes through views, by every importer, against eager: results, what callers' tensors become, and buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from view_programs import NOT_LAZY, Program, arguments, each_once, module_of, sample

import torch_tvm

IMPORTERS: dict[str, Callable[..., Any]] = {
    "fx": torch_tvm.import_fx,
    "torchscript": torch_tvm.import_torchscript,
    "lazy": torch_tvm.import_lazy,
}


def assert_as_eager(programs: Sequence[Program], importer: str, path: Path, *, compiled: bool = False) -> None:
    module = module_of(programs, path)().eval()
    with torch.no_grad():
        ours = IMPORTERS[importer](copy.deepcopy(module), arguments(len(programs), 0))
        call = torch_tvm.compile(ours) if compiled else ours
        for seed in (0, 1):
            given, expected = arguments(len(programs), seed), arguments(len(programs), seed)
            results, wanted = call(*given), module(*expected)
            for k, program in enumerate(programs):
                for ours_, theirs in zip(results[4 * k : 4 * k + 4], wanted[4 * k : 4 * k + 4], strict=True):
                    torch.testing.assert_close(ours_, theirs, msg=lambda text, p=program: f"{p}: {text}")
                message = f"the argument of {program}"
                torch.testing.assert_close(given[1][k], expected[1][k], msg=lambda text, m=message: f"{m}: {text}")
        state = call.state_dict() if compiled else ours.state
        for name, buffer in module.named_buffers():
            if name in state:
                torch.testing.assert_close(state[name], buffer)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Program]:
    found = each_once(tmp_path_factory.mktemp("views") / "valid.py")
    assert len(found) > 80
    return found


@pytest.mark.parametrize("importer", sorted(IMPORTERS))
def test_writes_through_views(importer: str, programs: list[Program], tmp_path: Path) -> None:
    kept = [p for p in programs if importer != "lazy" or p.view not in NOT_LAZY]
    assert_as_eager(kept, importer, tmp_path / f"programs_{importer}.py")


def test_writes_through_views_in_compiled_code(programs: list[Program], tmp_path: Path) -> None:
    assert_as_eager(programs[::9], "fx", tmp_path / "programs_compiled.py", compiled=True)


@pytest.mark.e2e
@pytest.mark.parametrize("importer", sorted(IMPORTERS))
@pytest.mark.parametrize("seed", range(12))
def test_many_writes_through_views(importer: str, seed: int, tmp_path: Path) -> None:
    programs = sample(60, seed, tmp_path / "valid.py")
    kept = [p for p in programs if importer != "lazy" or p.view not in NOT_LAZY]
    assert_as_eager(kept, importer, tmp_path / f"programs_{importer}_{seed}.py")


class _Reshaped(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.t_()
        return x + 1


class _Swapped(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.transpose_(0, -1)
        return x.unsqueeze(0) + 1


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
@pytest.mark.parametrize("module", [_Reshaped(), _Swapped()])
def test_an_argument_of_another_shape_is_refused(module: torch.nn.Module, frontend: str) -> None:
    with pytest.raises(torch_tvm.ImportFailed, match=r"changes the shape, or the memory, of .* in place"):
        torch_tvm.compile(module, (torch.randn(2, 3),), frontend=frontend)


class _Conjugated(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.conj()
        x.mul_(2)
        x.copy_(y)
        x.add_(x.conj().resolve_conj())
        return y.mul(x)


@pytest.mark.parametrize("importer", sorted(IMPORTERS))
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
def test_a_conjugate_is_a_view_with_other_numbers(importer: str, dtype: torch.dtype) -> None:
    """``x.copy_(x.conj())`` did nothing in scripts."""
    module = _Conjugated()
    given = torch.randn(3, dtype=dtype)
    program = torch.jit.script(module) if importer == "torchscript" else module
    with torch.no_grad():
        ours = torch_tvm.compile(IMPORTERS[importer](program, (given.clone(),)))
        x, expected = torch.randn(3, dtype=dtype), torch.empty(0)
        mine = x.clone()
        expected = module(x)
        torch.testing.assert_close(ours(mine), expected)
        torch.testing.assert_close(mine, x)
