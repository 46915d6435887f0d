"""Times of single kernels, and the operations and bytes that rates are computed from."""

from __future__ import annotations

import pytest
import torch
import tvm
from torch import nn
from tvm.script import from_source

import torch_tvm
from torch_tvm.profiling.machine import measure_limits
from torch_tvm.profiling.operations import count_operations
from torch_tvm.support.errors import InvalidInput


def kernel(parameters: str, body: str) -> tvm.tirx.PrimFunc:
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    function = from_source(f"@T.prim_func\ndef main({parameters}):\n{lines}\n")
    assert isinstance(function, tvm.tirx.PrimFunc)
    return function


LANES = "T.Ramp(0, 1, 16)"
X = 'x: T.Buffer((6, 16), "float32")'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "for i in T.parallel(6):\n    for j in T.vectorized(16):\n        x[i, j] = x[i, j] * 2.0 + 1.0",
            6 * 16 * 2,
        ),
        (f"for i in range(6):\n    x[i, {LANES}] = x[i, {LANES}] + x[i, {LANES}]", 6 * 16),
        ("for i in range(6):\n    if i > 0:\n        x[i, 0] = x[i, 0] + 1.0", 6),
        (
            "for i in range(2):\n    for j in range(T.min(4 - i * 2, 3)):\n        x[i, j] = x[i, j] - 1.0",
            2 * 2,
        ),
        ("for i in range(6):\n    x[i, 0] = T.exp(x[i, 0])", 6),
        ("for i in range(6):\n    x[i, i + 3 * 2] = x[0, i * 2 + 1]", 0),
    ],
)
def test_operations_of_a_kernel(body: str, expected: int) -> None:
    assert count_operations(kernel(X, body), [(6, 16)]) == expected


def test_operations_follow_the_sizes_of_a_call() -> None:
    program = kernel(
        "a: T.handle",
        'n = T.int64()\nx = T.match_buffer(a, (n,), "float32")\nfor i in range(n):\n    x[i] = x[i] + 1.0',
    )
    assert count_operations(program, [(7,)]) == 7
    assert count_operations(program, [(100,)]) == 100


def test_kernels_of_a_module() -> None:
    model = nn.Sequential(nn.Linear(96, 160), nn.Softmax(-1)).eval()
    x = torch.randn(48, 96)
    compiled = torch_tvm.compile(model, (x,), fallback=False)
    found = compiled.benchmark(x, runs=3)
    assert found.seconds > 0 and sum(kernel.calls for kernel in found.kernels) == 2
    matmul = next(kernel for kernel in found.kernels if kernel.rule == "matmul")
    assert matmul.operations == pytest.approx(2 * 48 * 96 * 160 + 48 * 160, rel=0.02)
    assert matmul.bytes == 4 * (48 * 96 + 96 * 160 + 160 + 48 * 160)
    assert [k.seconds for k in found.kernels] == sorted((k.seconds for k in found.kernels), reverse=True)
    assert matmul.gflops == pytest.approx(matmul.operations / matmul.seconds / 1e9)
    assert all(kernel.name in str(found) for kernel in found.kernels)
    torch.testing.assert_close(compiled(x), model(x))


def test_loops_are_no_kernels() -> None:
    class Doubling(nn.Module):
        def forward(self, x: torch.Tensor, turns: int) -> torch.Tensor:
            for _ in range(turns):
                x = x + x
            return x

    compiled = torch_tvm.compile(torch.jit.script(Doubling()), (torch.ones(4), 3))
    names = [kernel.name for kernel in compiled.benchmark(torch.ones(4), 3, runs=2).kernels]
    assert names and not any(name.startswith("loop_") for name in names)


def test_arguments_that_do_not_fit_are_refused() -> None:
    compiled = torch_tvm.compile(nn.Linear(4, 4).eval(), (torch.ones(2, 4),))
    with pytest.raises(InvalidInput, match=r"argument .*: expected"):
        compiled.benchmark(torch.ones(3, 4))


def test_a_program_with_state_is_refused() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x + self.count

    compiled = torch_tvm.compile(Counter(), (torch.ones(2),))
    with pytest.raises(InvalidInput, match="only CPU programs without state are benchmarked"):
        compiled.benchmark(torch.ones(2))
    assert compiled(torch.zeros(2)).tolist() == [1.0, 1.0]


def test_limits_of_the_machine_are_plausible() -> None:
    limits = measure_limits(megabytes=32, repeats=2)
    assert 1 < limits.gflops < 1e5 and 0.1 < limits.gigabytes < 1e4
