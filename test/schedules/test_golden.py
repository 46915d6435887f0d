"""One small kernel of each schedule rule, as TIR for one described processor or GPU: what a rule makes is seen at a
glance.

``pytest test/schedules/test_golden.py --update-golden`` writes the texts anew; read the difference before it is
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn

from torch_tvm.backends import backend_of, optimize, schedule
from torch_tvm.importers.fx import import_fx
from torch_tvm.lowering.module import lower
from torch_tvm.passes.pipeline import canonicalize
from torch_tvm.schedules.cpu.rules import RULES
from torch_tvm.schedules.gpu import rules as gpu
from torch_tvm.schedules.rule import Rule
from torch_tvm.schedules.sizes import name_sizes

TARGET = tvm.target.Target(
    {
        "kind": "llvm",
        "mtriple": "x86_64-linux-gnu",
        "mcpu": "sapphirerapids",
        "num-cores": 4,
        "model": "l1=48K l2=2M l3=60M",
    }
)


GPU_TARGET = tvm.target.Target(
    {
        "kind": "opencl",
        "max_threads_per_block": 256,
        "max_num_threads": 256,
        "max_shared_memory_per_block": 32768,
        "host": {"kind": "llvm", "mtriple": "x86_64-linux-gnu"},
    }
)

BY_NAME = {rule.name: rule for rule in RULES}
GPU_BY_NAME = {rule.name: rule for rule in gpu.RULES if not isinstance(rule, gpu.Dlight)}


class IntegerProduct(nn.Module):
    """A product of signed bytes with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(8, 16, dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._int_mm(x, self.weight)


class Function(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.function(*tensors)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


@dataclass(frozen=True)
class Workload:
    """A program with a kernel that a rule takes, or could where ``taken_by`` says which one comes before it."""

    program: Callable[[], nn.Module]
    arguments: Sequence[torch.Tensor]
    accuracy: str = "default"
    taken_by: str = ""


def function(body: Callable[..., torch.Tensor], *shapes: Sequence[int]) -> Workload:
    return Workload(lambda: Function(body), [torch.randn(*shape) for shape in shapes])


WORKLOADS = {
    "attention": function(F.scaled_dot_product_attention, *[(1, 1, 4, 16)] * 3),
    "recurrent": Workload(Lstm, [torch.randn(3, 1, 4)]),
    "direct-convolution": Workload(lambda: nn.Conv2d(16, 16, 3, stride=2), [torch.randn(1, 16, 9, 9)]),
    "depthwise-convolution": Workload(lambda: nn.Conv2d(16, 16, 3, groups=16), [torch.randn(1, 16, 8, 8)]),
    "winograd-convolution": Workload(lambda: nn.Conv2d(32, 32, 3, padding=1), [torch.randn(1, 32, 32, 32)]),
    "winograd-weights": function(lambda x, w: F.conv2d(x, w, padding=1), (1, 32, 32, 32), (32, 32, 3, 3)),
    "int8_matmul": Workload(IntegerProduct, [torch.ones(4, 8, dtype=torch.int8)]),
    "bfloat16_matmul": Workload(lambda: nn.Linear(32, 32), [torch.randn(8, 32)], "fast"),
    "matmul": Workload(lambda: nn.Linear(32, 32), [torch.randn(8, 32)]),
    "scan": function(lambda x: x.cumsum(1), (4, 32)),
    "fourier": function(lambda x: torch.view_as_real(torch.fft.fft(torch.view_as_complex(x))), (4, 6, 2)),
    "elementwise": function(lambda x, y: torch.relu(x + y) * 2, (4, 32), (32,)),
    "reduction": function(lambda x: x.sum(1), (4, 32)),
    "row_chain": function(lambda x: torch.softmax(x, 1), (4, 32)),
    "generic": replace(function(lambda x: torch.softmax(x, 0), (4, 32)), taken_by="row_chain"),
}


GPU_WORKLOADS = {
    "attention": function(F.scaled_dot_product_attention, *[(1, 1, 4, 16)] * 3),
    "elementwise": function(lambda x, y: torch.relu(x + y) * 2, (4, 32), (32,)),
    "split reduction": function(lambda x: x.sum(), (64, 512)),
    "product": function(lambda x, y: x @ y, (64, 32), (32, 64)),
    "rows": function(lambda x: torch.softmax(x, 1), (4, 32)),
    "windows": function(lambda x: F.max_pool2d(x, 2), (1, 8, 16, 16)),
    "spatial loops": replace(function(lambda x: F.max_pool2d(x, 2), (1, 8, 16, 16)), taken_by="windows"),
    "scan": function(lambda x: x.cumsum(1), (2, 8192)),
    "plain loops": function(lambda x: x.cumsum(1), (4, 32)),
}
"""Those of DLight are TVM's."""


@torch.no_grad()
def kernel(rule: Rule, work: Workload, target: tvm.target.Target) -> tvm.tirx.PrimFunc:
    """What the rule itself makes of the first kernel that it takes."""
    module = canonicalize(import_fx(work.program().eval(), tuple(work.arguments)))
    mod = lower(module, fallback=False).mod
    mod = optimize(mod, target, accuracy=work.accuracy)
    _, decisions = schedule(mod, target)
    taken = [decision.kernel for decision in decisions if decision.rule == (work.taken_by or rule.name)]
    assert taken, [f"{decision.kernel}: {decision.rule}" for decision in decisions]
    return rule.apply(name_sizes(mod[taken[0]]).func, backend_of(target).machine(target))


def test_every_rule_has_a_workload() -> None:
    assert list(WORKLOADS) == list(BY_NAME)
    assert list(GPU_WORKLOADS) == list(GPU_BY_NAME)


@pytest.mark.parametrize("rule", WORKLOADS)
def test_kernel(rule: str, golden: Callable[[str], None]) -> None:
    golden(kernel(BY_NAME[rule], WORKLOADS[rule], TARGET).script() + "\n")


@pytest.mark.parametrize("rule", GPU_WORKLOADS)
def test_gpu_kernel(rule: str, golden: Callable[[str], None]) -> None:
    golden(kernel(GPU_BY_NAME[rule], GPU_WORKLOADS[rule], GPU_TARGET).script() + "\n")
