"""The blocked layout is carried through a network, and leaves where an op needs plain channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax

from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights.weights_program import pack_weights
from torch_tvm.schedules.target import CpuModel, host_target
from torch_tvm.transforms.convolution.blocked_layout import REFUSALS, BlockLayout

TARGET = host_target()
CPU = CpuModel.from_target(TARGET)
LANES = CPU.lanes("float32")
R = relax.op
Body = Callable[[relax.BlockBuilder, relax.Var, list[relax.Var]], relax.Expr]


def module(
    x: torch.Tensor,
    weights: list[torch.Tensor],
    body: Body,
    dynamic: tuple[int, ...] = (),
    dtype: str = "float32",
) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    sizes = [tvm.tirx.Var(f"s{i}", "int64") if i in dynamic else size for i, size in enumerate(x.shape)]
    params = [relax.Var("x", relax.TensorType(sizes, dtype))]
    params += [relax.Var(f"w{i}", relax.TensorType(list(w.shape), dtype)) for i, w in enumerate(weights)]
    with builder.function("main", params, attrs={"num_input": 1}):
        with builder.dataflow():
            result = builder.emit_output(body(builder, params[0], params[1:]))
        builder.emit_func_output(result)
    return builder.get()


def run(mod: tvm.IRModule, x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    scheduled, _ = schedule(optimize(mod, TARGET, accuracy="strict"), TARGET)
    vm = relax.VirtualMachine(build(scheduled, TARGET), tvm.cpu())
    return vm["main"](x, pack_weights(scheduled, vm, weights))


def layout_changes(mod: tvm.IRModule) -> tuple[int, int]:
    """How often activations are packed and unpacked at run time."""
    text = optimize(mod, TARGET, accuracy="strict")["main"].script()
    calls = [line for line in text.splitlines() if "call_tir" in line]
    return sum("unpack_channels" not in c and "pack_channels" in c for c in calls), sum(
        "unpack_channels" in c for c in calls
    )


def check(
    x: torch.Tensor, weights: list[torch.Tensor], body: Body, eager: Callable, dynamic: tuple[int, ...] = ()
) -> tvm.IRModule:
    mod = module(x, weights, body, dynamic)
    exact = eager(x.double(), [w.double() for w in weights])
    result = run(mod, x, weights)
    assert result.shape == exact.shape
    torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-4)
    return mod


@pytest.mark.parametrize("channels", [48, 20])
@pytest.mark.parametrize("dynamic", [(), (0,)])
def test_residual_block_with_pooling_needs_no_layout_change(channels: int, dynamic: tuple[int, ...]) -> None:
    x = torch.randn(3, 3, 17, 19)
    weights = [
        torch.randn(channels, 3, 3, 3) * 0.2,
        torch.randn(1, channels, 1, 1),
        torch.randn(channels, channels, 3, 3) * 0.05,
    ]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        stem = b.emit(R.add(b.emit(R.nn.conv2d(x, w[0], strides=(2, 2), padding=(1, 1))), w[1]))
        stem = b.emit(R.nn.max_pool2d(b.emit(R.nn.relu(stem)), (3, 3), (2, 2), (1, 1)))
        branch = b.emit(R.nn.silu(b.emit(R.nn.conv2d(stem, w[2], padding=(1, 1)))))
        return b.emit(R.nn.adaptive_avg_pool2d(b.emit(R.add(branch, stem)), (1, 1)))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        stem = F.max_pool2d(torch.relu(F.conv2d(x, w[0], stride=2, padding=1) + w[1]), 3, 2, 1)
        return F.adaptive_avg_pool2d(F.silu(F.conv2d(stem, w[2], padding=1)) + stem, (1, 1))

    mod = check(x, weights, body, eager, dynamic)
    assert layout_changes(mod) == (0, 0 if channels % CPU.lanes("float32") == 0 else 1)


def test_squeeze_and_excite_stays_blocked() -> None:
    x = torch.randn(2, 2 * LANES, 9, 9)
    weights = [
        torch.randn(64, 2 * LANES, 1, 1) * 0.2,
        torch.randn(16, 64, 1, 1) * 0.1,
        torch.randn(64, 16, 1, 1) * 0.2,
    ]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.nn.conv2d(x, w[0]))
        gate = b.emit(R.mean(y, [2, 3], keepdims=True))
        gate = b.emit(R.nn.relu(b.emit(R.nn.conv2d(gate, w[1]))))
        gate = b.emit(R.sigmoid(b.emit(R.nn.conv2d(gate, w[2]))))
        return b.emit(R.multiply(y, gate))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        y = F.conv2d(x, w[0])
        return y * torch.sigmoid(F.conv2d(torch.relu(F.conv2d(y.mean((2, 3), keepdim=True), w[1])), w[2]))

    assert layout_changes(check(x, weights, body, eager)) == (0, 1)


@pytest.mark.parametrize(("first", "changes"), [(2 * LANES, (0, 1)), (3 * LANES // 2, (1, 3))])
def test_concat_of_whole_blocks_stays_blocked(first: int, changes: tuple[int, int]) -> None:
    x = torch.randn(1, 8, 6, 7)
    weights = [torch.randn(first, 8, 1, 1), torch.randn(20, 8, 3, 3), torch.randn(16, first + 20, 1, 1) * 0.1]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        parts = [b.emit(R.nn.conv2d(x, w[0])), b.emit(R.nn.conv2d(x, w[1], padding=(1, 1)))]
        return b.emit(R.nn.conv2d(b.emit(R.concat(parts, axis=1)), w[2]))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        return F.conv2d(torch.cat([F.conv2d(x, w[0]), F.conv2d(x, w[1], padding=1)], 1), w[2])

    assert layout_changes(check(x, weights, body, eager)) == changes


def test_an_op_that_mixes_channels_gets_plain_data() -> None:
    x, weights = torch.randn(1, 16, 5, 5), [torch.randn(24, 16, 3, 3), torch.randn(5)]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.add(b.emit(R.nn.conv2d(x, w[0], padding=(1, 1))), w[1]))
        return b.emit(R.reshape(b.emit(R.permute_dims(y, (0, 2, 3, 1))), (1, 25, 24)))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        return (F.conv2d(x, w[0], padding=1) + w[1]).permute(0, 2, 3, 1).reshape(1, 25, 24)

    check(x, weights, body, eager)


def test_sums_over_space_and_batch_norm_before_activation() -> None:
    x, weights = torch.randn(2, 16, 5, 6), [torch.randn(33, 16, 3, 3), torch.randn(33, 1, 1)]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.clip(b.emit(R.multiply(b.emit(R.nn.conv2d(x, w[0])), w[1])), -1, 6))
        total = b.emit(R.max(y, [2], keepdims=True))
        return b.emit(R.subtract(b.emit(R.nn.avg_pool2d(y, (1, 4), (1, 4))), total))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        y = (F.conv2d(x, w[0]) * w[1]).clamp(-1, 6)
        return F.avg_pool2d(y, (1, 4)) - y.amax(2, keepdim=True)

    check(x, weights, body, eager)


def test_refusals_carry_their_reason() -> None:
    x, weights = torch.randn(1, 16, 5, 5), [torch.randn(8, 16, 3, 3)]
    mod = module(x, weights, lambda b, x, w: b.emit(R.nn.conv2d(x, w[0])), dtype="float16")
    with TARGET:
        refused = BlockLayout().run(mod)["main"].attrs[REFUSALS]
    assert len(refused) == 1 and "conv2d" in refused[0] and "dtypes float16" in refused[0]


@pytest.mark.parametrize(("channels", "changes"), [(3 * LANES, (0, 1)), (LANES + 3, (1, 2))])
@pytest.mark.parametrize("dynamic", [(), (0,)])
def test_channels_that_go_last_and_come_back_are_moved_once(
    channels: int, changes: tuple[int, int], dynamic: tuple[int, ...]
) -> None:
    x = torch.randn(2, 8, 7, 5)
    weights = [torch.randn(channels, 8, 3, 3) * 0.1, torch.randn(channels, channels, 1, 1) * 0.1]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.nn.conv2d(x, w[0], padding=(1, 1)))
        last = b.emit(R.permute_dims(y, [0, 2, 3, 1]))
        normed = b.emit(R.nn.softmax(last, -1))
        back = b.emit(R.permute_dims(normed, [0, -1, 1, 2]))
        return b.emit(R.nn.conv2d(b.emit(R.add(back, y)), w[1]))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        y = F.conv2d(x, w[0], padding=1)
        return F.conv2d(F.softmax(y.permute(0, 2, 3, 1), -1).permute(0, 3, 1, 2) + y, w[1])

    assert layout_changes(check(x, weights, body, eager, dynamic)) == changes


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (0, 1, 0, 2), (3, 0, 2, 1)])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 32)])
@pytest.mark.parametrize("dynamic", [(), (2, 3)])
def test_zeros_around_the_data_are_padding_of_the_convolution(
    sides: tuple[int, ...], stride: int, groups: int, dynamic: tuple[int, ...]
) -> None:
    x = torch.randn(2, 16, 9, 10)
    weights = [torch.randn(32, 16, 1, 1), torch.randn(32, 32 // groups, 3, 3) * 0.1]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.nn.conv2d(x, w[0]))
        left, right, top, bottom = sides
        padded = b.emit(R.nn.pad(y, [0, 0, 0, 0, top, bottom, left, right], "constant", 0.0))
        return b.emit(R.nn.conv2d(padded, w[1], strides=(stride, stride), padding=(1, 0, 0, 1), groups=groups))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        y = F.pad(F.pad(F.conv2d(x, w[0]), sides), (0, 1, 1, 0))
        return F.conv2d(y, w[1], stride=stride, groups=groups)

    mod = check(x, weights, body, eager, dynamic)
    assert layout_changes(mod) == (0, 1)
    assert not any("pad" in name.name_hint.split("_") for name in optimize(mod, TARGET).get_global_vars())


def test_other_padding_stays_blocked() -> None:
    x, weights = torch.randn(2, 16, 9, 10), [torch.randn(32, 16, 1, 1), torch.randn(24, 32, 3, 3) * 0.1]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.nn.conv2d(x, w[0]))
        padded = b.emit(R.nn.pad(y, [0, 0, 0, 0, 1, 2, 3, 0], "constant", -1.5))
        return b.emit(R.nn.conv2d(padded, w[1]))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        return F.conv2d(F.pad(F.conv2d(x, w[0]), (3, 0, 1, 2), value=-1.5), w[1])

    assert layout_changes(check(x, weights, body, eager)) == (0, 1)


@pytest.mark.parametrize(("axes", "keeps"), [([1], True), ([1], False), ([1, 3], True), (None, False)])
@pytest.mark.parametrize("channels", [32, 33])
def test_reductions_over_channels_read_blocks(axes: list[int] | None, keeps: bool, channels: int) -> None:
    x, weights = torch.randn(2, 16, 9, 10), [torch.randn(channels, 16, 3, 3) * 0.1]

    def body(b: relax.BlockBuilder, x: relax.Var, w: list[relax.Var]) -> relax.Expr:
        y = b.emit(R.nn.conv2d(x, w[0]))
        return b.emit(R.add(b.emit(R.mean(y, axes, keeps)), b.emit(R.max(y, axes, keeps))))

    def eager(x: torch.Tensor, w: list[torch.Tensor]) -> torch.Tensor:
        y = F.conv2d(x, w[0])
        over = list(range(4)) if axes is None else axes
        return y.mean(over, keeps) + y.amax(over, keeps)

    assert layout_changes(check(x, weights, body, eager)) == (0, 0 if channels % LANES == 0 else 1)
