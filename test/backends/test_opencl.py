"""OpenCL: kernels of the GPU schedules run on whatever device there is, which is PoCL where nothing else is."""

from __future__ import annotations

import importlib.util
import os
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import tvm
from lowering.harness import IMPORTERS
from lowering.rows import CasesModule, Row, all_rows, sample
from numerics import assert_matches
from torch import nn

import torch_tvm
from torch_tvm.driver.pipeline import compile_module
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.runtime.opencl import devices
from torch_tvm.runtime.warnings import FallbackWarning
from torch_tvm.support.errors import InvalidInput
from torch_tvm.targets import resolve_target

OBSTACLE = devices.why_no_device()
needs_device = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "there is a device")
SEED = int(os.environ["TORCH_TVM_SEED"])


def on_device(program: Any, *args: Any, **options: Any) -> torch_tvm.CompiledModule:
    return torch_tvm.compile(program, args, target="opencl", fallback=False, **options)


# -- op rows -------------------------------------------------------------------------------------------------

ROWS = [row for row in all_rows() if not row.xfail]
HALF = "does not compute in float16"
"""PoCL lacks it; what is refused so is no failure."""


def some_rows(count: int) -> list[Row]:
    return random.Random(SEED).sample(ROWS, count)


def check_row(row: Row) -> None:
    cases = row.inputs(sample(row, SEED))
    program = CasesModule(row.function, cases)
    module = canonicalize(IMPORTERS["fx"](program, program.arguments, None))
    try:
        compiled = compile_module(module, resolve_target("opencl"), fallback=False)
    except InvalidInput as error:
        if HALF in str(error):
            pytest.skip(str(error))
        raise
    for _ in range(2):
        for case, ours in zip(cases, compiled(*program.arguments), strict=True):
            assert_matches(ours, row.function, case, slack=row.slack)


@pytest.mark.opencl
@needs_device
@pytest.mark.parametrize("row", some_rows(12), ids=lambda row: row.id)
def test_some_rows(row: Row) -> None:
    check_row(row)


@pytest.mark.e2e
@pytest.mark.opencl
@needs_device
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row(row: Row) -> None:
    check_row(row)


# -- programs ------------------------------------------------------------------------------------------------


@pytest.mark.opencl
@needs_device
def test_a_network_with_sizes_that_vary() -> None:
    model = nn.Sequential(nn.Linear(20, 33), nn.GELU(), nn.LayerNorm(33), nn.Linear(33, 7), nn.Softmax(-1)).eval()
    batch = torch.export.Dim("batch", min=0, max=1000)
    compiled = on_device(model, torch.randn(6, 20), dynamic_shapes=({0: batch},))
    assert "float32" in str(compiled) and compiled.report.target.startswith('{"kind":"opencl"')
    with torch.no_grad():
        for count in (6, 1, 0, 130, 6):
            x = torch.randn(count, 20)
            result = compiled(x)
            assert result.shape == (count, 7)
            torch.testing.assert_close(result, model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.opencl
@needs_device
def test_arguments_that_do_not_fit_are_refused() -> None:
    compiled = torch_tvm.compile(torch.relu, (torch.ones(2, 4),), target="opencl")
    for shape, dtype in (
        ((3, 4), torch.float32),
        ((2, 5), torch.float32),
        ((2,), torch.float32),
        ((2, 4, 1), torch.float32),
        ((0, 4), torch.float32),
        ((2, 4), torch.float64),
    ):
        with pytest.raises(InvalidInput, match=r"expected float32\[2, 4\], got"):
            compiled(torch.ones(shape, dtype=dtype))
    torch.testing.assert_close(compiled(-torch.ones(2, 8)[:, ::2]), torch.zeros(2, 4))


def test_values_of_every_dtype_are_exact() -> None:
    dtypes = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.bfloat16, torch.float64)
    tensors = [torch.randint(0, 2, (3, 5)).to(dtype) for dtype in dtypes]
    compiled = on_device(lambda *xs: [x[:, 1:].flip(0) for x in xs], *tensors)
    for ours, x in zip(compiled(*tensors), tensors, strict=True):
        assert ours.dtype == x.dtype and torch.equal(ours, x[:, 1:].flip(0))
    wide = torch.tensor([2**40 + 3, -(2**50) - 7])
    assert on_device(lambda x: x * 3 - 1, wide)(wide).tolist() == (wide * 3 - 1).tolist()


@pytest.mark.opencl
@needs_device
def test_constants_keep_all_digits() -> None:
    """TVM writes seven digits of them: 0.1 in float64 was 0.1 + 1e-17, and 16777215.0 another float32."""
    x = torch.zeros(4, dtype=torch.float64)
    f = lambda x: (x + 0.1234567890123456, x.float() + 16777215.0)
    assert all(torch.equal(a, b) for a, b in zip(on_device(f, x)(x), f(x), strict=True))


@pytest.mark.opencl
@needs_device
def test_bfloat16_is_widened_by_its_bits() -> None:
    """TVM converts the integer in the same bits where a kernel reads bfloat16 and computes in float32."""
    x = torch.randn(4, 9).bfloat16()
    assert torch.equal(on_device(lambda x: x.max(1)[0], x)(x), x.max(1)[0])


@pytest.mark.opencl
@needs_device
def test_bits_of_small_integers() -> None:
    """C computes ``a | b`` of 16 bits in 32, whose bits are no ``short``."""
    x = torch.randint(0, 256, (6,), dtype=torch.uint8)
    for dtype in (torch.int16, torch.bfloat16, torch.int8):
        ours = on_device(lambda x, dtype=dtype: x.view(dtype), x)(x)
        assert torch.equal(ours.view(torch.uint8), x)


@torch.jit.script
def doubled_until(x: torch.Tensor, limit: torch.Tensor):
    count = 0
    while bool(x.sum() < limit):
        x = x * 2
        count += 1
    if bool(x[0] > 3):
        x = x - 1
    return x, count


@pytest.mark.opencl
@needs_device
def test_conditions_and_loops_on_values() -> None:
    x = torch.rand(5) + 0.1
    compiled = torch_tvm.compile(doubled_until, (x, torch.tensor(100.0)), target="opencl")
    for limit in (100.0, 0.0, 9.0):
        ours, theirs = compiled(x, torch.tensor(limit)), doubled_until(x, torch.tensor(limit))
        assert torch.equal(ours[0], theirs[0]) and ours[1] == theirs[1]


@pytest.mark.opencl
@needs_device
def test_ops_that_run_in_pytorch_and_random_numbers() -> None:
    f = lambda x: torch.linalg.eigvalsh(x @ x.t()) + torch.rand_like(x)
    x = torch.randn(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        compiled = torch_tvm.compile(f, (x,), target="opencl")
    library: Any = compiled.parts().code.library
    assert "foreign('torch_tvm.aten'" in library.text
    for _ in range(5):
        check_seeded(compiled, f, x)


def check_seeded(compiled: Any, f: Any, x: torch.Tensor) -> None:
    """Memory of PyTorch's results is read by launches that come after the program has dropped them."""
    torch.manual_seed(3)
    ours = compiled(x)
    torch.manual_seed(3)
    torch.testing.assert_close(ours, f(x), rtol=1e-4, atol=1e-4)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x.sum(0))
        return self.layer(x) + self.total


@pytest.mark.opencl
@needs_device
def test_state_other_weights_and_results_that_stay() -> None:
    model, x = Counter().eval(), torch.randn(2, 3)
    with torch.no_grad():
        compiled = on_device(model, x)
        first = compiled(x)
        kept = first.clone()
        torch.testing.assert_close(first, model(x))
        torch.testing.assert_close(compiled(x + 1), model(x + 1))
        assert torch.equal(first, kept)
        other = Counter().eval()
        compiled.load_state_dict(other.state_dict())
        torch.testing.assert_close(compiled(x[:, :3]), other(x))
        strided = torch.randn(3, 2).t()
        torch.testing.assert_close(compiled(strided), other(strided))
        torch.testing.assert_close(compiled.state_dict()["total"], other.total)


@pytest.mark.opencl
@needs_device
def test_threads_have_queues_of_their_own() -> None:
    compiled = on_device(lambda x: torch.softmax(x @ x.t(), 1), torch.randn(40, 8))
    failures: list[str] = []

    def work(seed: int) -> None:
        x = torch.randn(40, 8, generator=torch.Generator().manual_seed(seed))
        for _ in range(5):
            if not torch.allclose(compiled(x), torch.softmax(x @ x.t(), 1), atol=1e-5):
                failures.append(str(seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.opencl
@needs_device
def test_torch_compile() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    compiled = torch.compile(model, backend="torch_tvm", options={"target": "opencl"})
    with torch.no_grad():
        for count in (3, 3, 5):
            x = torch.randn(count, 8)
            torch.testing.assert_close(compiled(x), model(x))


# -- devices -------------------------------------------------------------------------------------------------


@pytest.mark.opencl
@needs_device
def test_a_device_by_name_and_by_index() -> None:
    name = devices.device_named().name
    for wanted in (name, name[3:].upper(), "0", 0):
        x = torch.randn(3)
        target = {"kind": "opencl", "device": wanted}
        assert torch.equal(torch_tvm.compile(lambda x: x + 1, (x,), target=target)(x), x + 1)
    with pytest.raises(InvalidInput, match=r"(?s)there is no OpenCL device 'voodoo'.*known: 0: "):
        torch_tvm.compile(lambda x: x + 1, (x,), target={"kind": "opencl", "device": "voodoo"})(x)


@pytest.mark.opencl
@needs_device
def test_what_the_device_does_not_compute_in() -> None:
    device = devices.device_named()
    if not device.lacks("float16"):
        pytest.skip(f"{device.name} computes in float16")
    x = torch.randn(3).half()
    with pytest.raises(InvalidInput, match=r"(?s)does not compute in float16, which '.*' does.*for another device"):
        on_device(lambda x: x + 1, x)


def test_without_pyopencl_code_is_made_and_the_call_names_the_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pyopencl" else find(name, *rest)
    )
    devices._devices.cache_clear()
    x = torch.randn(2, 3)
    compiled = torch_tvm.compile(nn.Softmax(-1), (x,), target="opencl", fallback=False)
    devices._devices.cache_clear()
    assert compiled.report.kernels
    with pytest.raises(InvalidInput, match=r"pyopencl is not installed .*torch-tvm\[opencl\].*pocl"):
        compiled(x)


def test_a_file_has_no_place_for_it_yet(tmp_path: Any) -> None:
    compiled = torch_tvm.compile(nn.ReLU(), (torch.randn(3),), target="opencl")
    with pytest.raises(InvalidInput, match="code for opencl cannot be saved yet"):
        compiled.save(tmp_path / "model.ttvm")


def test_the_target_says_what_every_device_has() -> None:
    target = resolve_target({"kind": "opencl", "max_threads_per_block": 128})
    assert isinstance(target, tvm.target.Target) and int(target.attrs["max_threads_per_block"]) == 128
    assert target.host.kind.name == "llvm"
