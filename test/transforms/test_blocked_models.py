"""Ops of whole models between convolutions: they work on blocks of channels, and their numbers are eager's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_matches
from torch import nn

import torch_tvm
from torch_tvm.schedules.target import CpuModel, host_target

LANES = CpuModel.from_target(host_target()).lanes("float32")
Step = Callable[[torch.Tensor], torch.Tensor]


class Between(nn.Module):
    """``step`` between two convolutions of a 4x4 neighbourhood; the first has ``channels`` results."""

    def __init__(self, step: Step, channels: int = 64) -> None:
        super().__init__()
        self.first, self.step = nn.Conv2d(24, channels, 3, padding=1), step
        with torch.no_grad():
            outputs = step(torch.zeros(1, channels, 12, 14)).shape[1]
        self.last = nn.Conv2d(outputs, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.step(self.first(x)))


def check(step: Step, channels: int = 64, batch: int = 1, dynamic: bool = False) -> list[str]:
    """Compare with eager, without a change of layout between the convolutions; the names of the kernels."""
    module = Between(step, channels).eval()
    x = torch.randn(batch, 24, 12, 14)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    compiled = torch_tvm.compile(module, (x,), dynamic_shapes=shapes, fallback=False)
    exact = Between(step, channels).double().eval()
    exact.load_state_dict(module.state_dict())

    def reference(x: torch.Tensor) -> torch.Tensor:
        return (exact if x.dtype == torch.float64 else module)(x)

    with torch.no_grad():
        for size in {batch, 3} if dynamic else {batch}:
            args = (torch.randn(size, 24, 12, 14),)
            assert_matches(compiled(*args), reference, args)
    return [kernel.name for kernel in compiled.report.kernels]


def spread(gate: Step) -> Step:
    return lambda x: x * torch.sigmoid(gate(x))


def focus(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def chunks(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, F.silu(first), first], 1)


STEPS: dict[str, Step] = {
    "chunk": chunks,
    "every-second-pixel": focus,
    "crop": lambda x: x[:, :, 1:-2, 2:9],
    "reflection": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "replication": lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"),
    "zeros": lambda x: F.pad(x, (0, 1, 0, 1)),
    "zeros-before-a-window": lambda x: F.max_pool2d(F.pad(x, (0, 1, 2, 1)), 3, 2),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
    "bilinear": lambda x: F.interpolate(x, size=(7, 23), mode="bilinear"),
    "corners": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True),
    "mean": spread(lambda x: x.mean((2, 3), keepdim=True)),
    "mean-of-vectors": spread(lambda x: x.mean((2, 3))[:, :, None, None] * 2),
    "mean-of-many": spread(lambda x: F.interpolate(x, scale_factor=3.0).mean((2, 3), keepdim=True)),
    "maximum": spread(lambda x: x.amax((2, 3))[:, :, None, None]),
    "deviation": spread(lambda x: x.std((2, 3), keepdim=True)),
    "sum-of-rows": spread(lambda x: x.sum(3, keepdim=True)),
    "instance-norm": lambda x: F.relu(F.instance_norm(x)),
    "group-norm": lambda x: F.silu(F.group_norm(x, 4)),
    "layer-norm-of-images": lambda x: F.group_norm(x, 1, torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)),
    "small-groups": lambda x: F.group_norm(x, 32, None, torch.linspace(-1, 1, x.shape[1], dtype=x.dtype), 1e-3),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_change_of_layout(name: str) -> None:
    kernels = check(STEPS[name])
    assert [kernel.startswith("unpack_channels") for kernel in kernels].count(True) == 1
    assert [kernel.startswith("pack_channels") for kernel in kernels].count(True) <= 1


@pytest.mark.parametrize("name", [name for name in STEPS if name != "small-groups"])
def test_channels_that_do_not_fill_blocks(name: str) -> None:
    check(STEPS[name], channels=LANES * 3 + 4 if "group" in name or "chunk" in name else LANES * 3 + 1)


@pytest.mark.parametrize("name", STEPS)
def test_batches(name: str) -> None:
    check(STEPS[name], batch=2, dynamic=True)


def test_a_gate_of_one_channel() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.gate = nn.Conv2d(24, 48, 3), nn.Conv2d(24, 1, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.image(x)) * torch.sigmoid(self.gate(x)) + self.gate(x)

    module, x = Gate().eval(), torch.randn(2, 24, 9, 8)
    exact = Gate().double().eval()
    exact.load_state_dict(module.state_dict())
    with torch.no_grad():
        compiled = torch_tvm.compile(module, (x,), fallback=False)
        assert_matches(compiled(x), lambda x: (exact if x.dtype == torch.float64 else module)(x), (x,))


def test_a_value_that_is_reshaped_like_groups_but_not_normalised() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(x.shape[0], 8, -1)
        return F.layer_norm(rows, rows.shape[-1:]).reshape(x.shape) + rows.softmax(-1).reshape(x.shape)

    check(step)
    check(lambda x: F.layer_norm(x.reshape(1, 4, -1), (2688,), torch.ones(2688, dtype=x.dtype) * 2).reshape(x.shape))
    check(lambda x: F.layer_norm(x.reshape(1, 8, -1), (1344,)).reshape(x.shape[0], 32, 24, 14))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("channels", [64, LANES + 1])
def test_pixels_as_a_sequence_and_back(channels: int, dynamic: bool) -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        sequence = x.flatten(2).transpose(1, 2)
        normed = F.layer_norm(sequence, sequence.shape[-1:])
        return normed.transpose(1, 2).reshape(x.shape) + x

    kernels = check(step, channels, batch=2 if dynamic else 1, dynamic=dynamic)
    if channels % LANES == 0:
        assert [kernel.startswith("unpack_channels") for kernel in kernels].count(True) == 1
        assert [kernel.startswith("pack_channels") for kernel in kernels].count(True) <= 1


def test_reshapes_that_mix_images() -> None:
    def sequence(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 32, -1).transpose(1, 2).softmax(1).transpose(1, 2).reshape(4, 32, 12, 14)

    def groups(x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.reshape(2, 8, -1), (4 * 2 * 12 * 14,)).reshape(x.shape)

    def back(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2).exp().transpose(1, 2).reshape(2, 32, 24, 14)

    last = nn.Conv2d(32, 16, 1).eval()
    for step in (sequence, groups, back):
        module = nn.Sequential(nn.Conv2d(24, 32, 3, padding=1)).eval()

        def whole(x: torch.Tensor, step: Step = step, module: nn.Module = module) -> torch.Tensor:
            return last(step(module(x)))

        x = torch.randn(4, 24, 12, 14)
        with torch.no_grad():
            torch.testing.assert_close(torch_tvm.compile(whole, (x,), fallback=False)(x), whole(x))


def test_kernels_that_leave_out_channels_or_images() -> None:
    """They read each channel in its place, and are no work on all channels all the same."""

    def index(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.slice_scatter(x[:, :32], x[:, :32, :3] * 2, 2, 4, 7)

    check(index, channels=48)
    check(lambda x: x[:, :20] + x[:, 28:], channels=48)
    check(lambda x: x[:1].expand(x.shape) * x, batch=2)


STEPS_1D: dict[str, Step] = {
    "norm": lambda x: F.relu(F.batch_norm(x, torch.linspace(-1, 1, 64).to(x), torch.linspace(1, 2, 64).to(x))),
    "gate": lambda x: torch.tanh(x[:, :32]) * torch.sigmoid(x[:, 32:]),
    "causal": lambda x: F.pad(x, (3, 0)) + F.pad(x, (0, 3)),
    "pooling": lambda x: F.max_pool1d(x, 3, 2, 1) + F.avg_pool1d(x, 3, 2, 1),
    "resize": lambda x: F.interpolate(x, scale_factor=2.0),
    "squeeze": spread(lambda x: x.mean(2, keepdim=True)),
}


@pytest.mark.parametrize("name", STEPS_1D)
def test_one_dimension_stays_blocked(name: str) -> None:
    step = STEPS_1D[name]

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(24, 64, 3, padding=1)
            self.last = nn.Conv1d(32 if name == "gate" else 64, 32, 2, dilation=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(step(self.first(x)))

    module, exact, x = Line().eval(), Line().double().eval(), torch.randn(2, 24, 50)
    exact.load_state_dict(module.state_dict())
    with torch.no_grad():
        compiled = torch_tvm.compile(module, (x,), fallback=False)
        assert_matches(compiled(x), lambda x: (exact if x.dtype == torch.float64 else module)(x), (x,))
    kernels = [kernel.name for kernel in compiled.report.kernels]
    assert [kernel.startswith("unpack_channels") for kernel in kernels].count(True) == 1


@pytest.mark.parametrize("pool", [F.max_pool3d, F.avg_pool3d])
@pytest.mark.parametrize("channels", [32, LANES + 3])
def test_pools_of_three_dimensions_stay_blocked(pool: Callable[..., torch.Tensor], channels: int) -> None:
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv3d(8, channels, 3), nn.Conv3d(channels, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(pool(self.first(x), 3, 2, 1))

    module, x = Volume().eval(), torch.randn(2, 8, 7, 9, 8)
    with torch.no_grad():
        compiled = torch_tvm.compile(module, (x,), fallback=False)
        torch.testing.assert_close(compiled(x), module(x), rtol=1e-4, atol=1e-5)
    kernels = [kernel.name for kernel in compiled.report.kernels]
    assert [kernel.startswith("unpack_channels") for kernel in kernels].count(True) == 1


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.cumsum(2),
        lambda x: x.argsort(2),
        lambda x: (x.cumsum(3), x + 1, x.max(2)[0]),
        torch.sum,
        lambda x: x / x.std(),
    ],
    ids=["scan", "sort", "results", "total", "scale"],
)
def test_kernels_that_are_loops_or_leave_no_axis_get_plain_data(step: Callable) -> None:
    module, x = nn.Conv2d(16, 32, 3), torch.randn(2, 16, 8, 9)
    with torch.no_grad():
        function = lambda x: step(torch.relu(module(x)))
        torch.testing.assert_close(torch_tvm.compile(function, (x,), fallback=False)(x), function(x))
