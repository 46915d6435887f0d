"""Collectives stay in PyTorch, and kernels read what they gave only when it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as collectives

from torch_tvm.runtime.warnings import FallbackWarning


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_no_collective_is_in_flight_when_a_kernel_reads_its_result() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        total = collectives.all_reduce(torch.relu(x), "sum", [0])
        (gathered,) = collectives.all_gather_into_tensor_coalesced([total * 2], [0])
        return gathered + 1

    x = torch.randn(4, 8)
    with pytest.warns(FallbackWarning, match="all_reduce"):
        found = torch.compile(step, backend="torch_tvm", fullgraph=True)(x)
    torch.testing.assert_close(found, torch.relu(x) * 2 + 1)
    assert torch._C._distributed_c10d._get_work_registry_size() == 0
