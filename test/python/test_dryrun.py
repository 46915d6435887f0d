"""``torch_tvm.dryrun``: what would compile, what would not, and why."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_tvm
from torch_tvm import InvalidInput


@torch.library.custom_op("torch_tvm_dryrun::left", mutates_args=())
def left(x: torch.Tensor) -> torch.Tensor:
    return x * 3


left.register_fake(torch.empty_like)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.torch_tvm_dryrun.left(self.line(x)).relu()
        return torch.ops.torch_tvm_dryrun.left(y) + x.mean()


X = torch.randn(8, 8)


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_what_is_left_is_what_a_compile_leaves(frontend: str) -> None:
    planned = torch_tvm.dryrun(Mixed(), (X,), frontend=frontend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch_tvm.FallbackWarning)
        compiled = torch_tvm.compile(Mixed(), (X,), frontend=frontend)
    assert [op.op for op in planned.left] == [item.op for item in compiled.report.fallbacks]
    assert [op.location for op in planned.left] == [item.location for item in compiled.report.fallbacks]
    assert planned.regions == [1, 1, 2] and planned.coverage == pytest.approx(100 * 4 / 6)
    assert all(op.reason for op in planned.left)
    assert f"{__file__}:" in str(planned) and "66.7 % of 6 ops compile, in 3 regions" in str(planned)
    assert json.loads(planned.to_json()) == planned.to_dict()
    assert planned.to_dict()["frontend"] == frontend


class Factored(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inverse = torch.linalg.inv(x)
        return inverse + torch.rand_like(x)


def test_library_calls_are_compiled_and_named() -> None:
    libraries = ["linear algebra: LAPACK through PyTorch", "random numbers: PyTorch's generator"]
    planned = torch_tvm.dryrun(Factored(), (X,))
    assert planned.coverage == 100 and planned.regions == [3] and planned.left == []
    assert {op.library for op in planned.ops} == {*libraries, ""}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = torch_tvm.compile(Factored(), (X,)).report
    assert sorted(call.library for call in report.library_calls) == libraries and report.fallbacks == []
    assert type(report).from_dict(report.to_dict()).library_calls == report.library_calls
    for text in (str(planned), str(report)):
        assert all(f": {library}" in text for library in libraries) and f"{__file__}:" in text
    assert "library calls: 2" in str(report) and "ops in PyTorch: 0" in str(report)


class Methods(nn.Module):
    @torch.jit.export
    def turn(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh()

    @torch.jit.export
    def place(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.storage_offset()


def test_methods() -> None:
    script = torch.jit.script(Methods())
    assert [op.op for op in torch_tvm.dryrun(script, {"turn": (X,)}).ops] == ["torch.aten.tanh"]
    assert [op.op for op in torch_tvm.dryrun(script, {"place": (X,)}).ops] == ["torch.aten.add.Scalar"]
    with pytest.raises(InvalidInput, match="no method 'spin'; it has: forward, "):
        torch_tvm.dryrun(script, {"spin": (X,)})
    with pytest.raises(InvalidInput, match="the module has no forward"):
        torch_tvm.dryrun(script)


def test_programs_without_ops_and_bad_input() -> None:
    assert str(torch_tvm.dryrun(lambda x: x, (X,))).startswith("100.0 % of 0 ops compile, in 0 regions")
    with pytest.raises(InvalidInput, match="float8"):
        torch_tvm.dryrun(lambda x: x.float(), (X.to(torch.float8_e4m3fn),))
    with pytest.raises(InvalidInput, match="unknown frontend 'jax'"):
        torch_tvm.dryrun(Mixed(), (X,), frontend="jax")


def test_no_module_has_the_name_of_a_public_function() -> None:
    """An import of such a module would hide the function."""
    folder = Path(torch_tvm.__file__).parent
    names = {path.stem for path in folder.glob("*.py")}
    assert names.isdisjoint(torch_tvm.__all__)
