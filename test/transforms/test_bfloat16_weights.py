"""``accuracy="fast"``: weights that few rows read are kept as bfloat16, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

import torch_tvm
from torch_tvm.schedules.target import CpuModel
from torch_tvm.transforms.matmul.packed_products import is_memory_bound

SMALL_CACHE = CpuModel(512, 32, 32 << 10, 1 << 10, 32 << 20, 2)


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level 2 cache that no test weight fits, and no multiplication of bfloat16, which has rules of its own."""
    read = vars(CpuModel)["from_target"].__func__

    def shrunk(cls: type[CpuModel], target: object) -> CpuModel:
        fields = {**vars(read(cls, target)), "l2": SMALL_CACHE.l2, "features": frozenset()}
        return CpuModel(**fields)

    monkeypatch.setattr(CpuModel, "from_target", classmethod(shrunk))


def fast(module: torch.nn.Module, x: torch.Tensor) -> torch_tvm.CompiledModule:
    return torch_tvm.compile(module.eval(), (x,), fallback=False, options={"accuracy": "fast"})


@torch.no_grad()
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 64, 96), (2, 33, 50), (4, 770, 33), (3, 129, 7)])
def test_result_is_that_of_rounded_weights(rows: int, depth: int, columns: int) -> None:
    module, x = torch.nn.Linear(depth, columns), torch.randn(rows, depth)
    result = fast(module, x)(x)
    rounded = module.weight.bfloat16().double()
    exact = torch.nn.functional.linear(x.double(), rounded, module.bias.double())
    assert (result.double() - exact).abs().max() < 1e-5


@torch.no_grad()
def test_rounding_is_to_even_and_keeps_special_values() -> None:
    half = 1.0 + 2**-8
    values = torch.tensor([half, 1.0 + 3 * 2**-8, -half, 3.4e38, float("inf"), float("nan"), 1e-40, -0.0])
    module = torch.nn.Linear(64, 8, bias=False)
    module.weight.zero_()
    module.weight[:, 0] = values
    x = torch.zeros(1, 64)
    x[0, 0] = 1.0
    expected = values.bfloat16().float()[None]
    assert torch.equal(torch.nan_to_num(fast(module, x)(x), 7.0), torch.nan_to_num(expected, 7.0))


@torch.no_grad()
def test_many_rows_keep_float32() -> None:
    module, x = torch.nn.Linear(64, 96), torch.randn(5, 64)
    assert torch.allclose(fast(module, x)(x), module(x), atol=1e-5)


@torch.no_grad()
def test_default_keeps_float32() -> None:
    module, x = torch.nn.Linear(64, 96).eval(), torch.randn(1, 64)
    compiled = torch_tvm.compile(module, (x,), fallback=False)
    assert torch.allclose(compiled(x), module(x), atol=1e-6)


@torch.no_grad()
def test_stored_weights_are_half_as_large() -> None:
    module, x = torch.nn.Linear(64, 96), torch.randn(1, 64)
    text = str(fast(module, x).tir_module["main"])
    assert "uint16" in text


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "expected"),
    [(1, 64, 64, True), (4, 64, 64, True), (5, 64, 64, False), (None, 64, 64, False), (1, 8, 8, False)],
)
def test_is_memory_bound(rows: int | None, depth: int, columns: int, expected: bool) -> None:
    assert is_memory_bound(rows, depth, columns, SMALL_CACHE) is expected
