"""Convolution kernels, from Relax ops to machine code, against PyTorch in float64."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import tvm
from spelled_out import spell_out
from tvm import relax

import torch_tvm
from torch_tvm.backends import build, optimize, schedule
from torch_tvm.runtime.weights.weights_program import pack_weights
from torch_tvm.schedules.cpu.convolution.geometry import Phase, cover_columns, split_columns
from torch_tvm.schedules.cpu.convolution.tiling import choose_tiling
from torch_tvm.schedules.target import CpuModel, host_target
from torch_tvm.tir import exact
from torch_tvm.transforms.convolution import choice as conv_choice
from torch_tvm.workloads.winograd import winograd_matrices

from ..relax_models import check as compare

TARGET = host_target()


@dataclass(frozen=True)
class Case:
    """One convolution; ``shape`` is the data's, ``dynamic`` the axes whose size is unknown to the compiler."""

    shape: tuple[int, ...]
    outputs: int
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False
    output_padding: int = 0
    dtype: torch.dtype = torch.float32
    dynamic: tuple[int, ...] = ()
    rule: str = "direct-convolution"
    accuracy: str = "strict"

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.shape)), f"o{self.outputs}", "k" + "x".join(map(str, self.kernel))]
        parts += [f"{k[0]}{getattr(self, k)}" for k in ("stride", "padding", "dilation", "groups")]
        return "-".join([*parts, "t" * self.transposed, str(self.dtype)[6:], *map(str, self.dynamic)])

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(str(self).encode()))
        channels = self.shape[1]
        if self.transposed:
            weight_shape = (channels, self.outputs // self.groups, *self.kernel)
        else:
            weight_shape = (self.outputs, channels // self.groups, *self.kernel)
        make = lambda shape: torch.randn(shape, generator=generator, dtype=self.dtype)
        return make(self.shape), make(weight_shape), make((self.outputs,))

    def eager(self, data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        rank = len(self.kernel)
        if self.transposed:
            function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
            result = function(
                data, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )
        else:
            function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
            result = function(data, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return torch.relu(result)

    def module(self) -> tvm.IRModule:
        """``relu(conv(x, w) + b)``."""
        rank = len(self.kernel)
        _, weight, bias = self.tensors()
        dtype = str(self.dtype).removeprefix("torch.")
        sizes = [
            tvm.tirx.Var(f"s{axis}", "int64") if axis in self.dynamic else size for axis, size in enumerate(self.shape)
        ]
        builder = relax.BlockBuilder()
        x = relax.Var("x", relax.TensorType(sizes, dtype))
        w = relax.Var("w", relax.TensorType(list(weight.shape), dtype))
        b = relax.Var("b", relax.TensorType(list(bias.shape), dtype))
        options = {
            "strides": [self.stride] * rank,
            "padding": [self.padding] * rank,
            "dilation": [self.dilation] * rank,
            "groups": self.groups,
        }
        if self.transposed:
            options["output_padding"] = [self.output_padding] * rank
        op = getattr(relax.op.nn, f"conv{rank}d" + ("_transpose" if self.transposed else ""))
        with builder.function("main", [x, w, b], attrs={"num_input": 1}):
            with builder.dataflow():
                conv = builder.emit(op(x, w, **options))
                shifted = builder.emit(
                    relax.op.add(conv, builder.emit(relax.op.reshape(b, (1, self.outputs, *[1] * rank))))
                )
                result = builder.emit_output(builder.emit(relax.op.nn.relu(shifted)))
            builder.emit_func_output(result)
        return builder.get()


def check(case: Case) -> None:
    """Compile, run, and hold against PyTorch in float64: at most 3 times eager's own error, and no fallback."""
    data, weight, bias = case.tensors()
    optimised = optimize(case.module(), TARGET, accuracy=case.accuracy)
    scheduled, decisions = schedule(optimised, TARGET)
    assert case.rule in {decision.rule for decision in decisions}
    vm = relax.VirtualMachine(build(scheduled, TARGET), tvm.cpu())
    params = pack_weights(scheduled, vm, [weight, bias])
    result = vm["main"](data, params)
    eager = case.eager(data, weight, bias)
    exact = case.eager(data.double(), weight.double(), bias.double())
    assert result.shape == eager.shape and result.dtype == eager.dtype
    assert _rmse(result, exact) <= 3 * _rmse(eager, exact) + 1e-5
    assert torch.isfinite(result).all()


def _rmse(value: torch.Tensor, exact: torch.Tensor) -> float:
    return (value.double() - exact).square().mean().sqrt().item() if exact.numel() else 0.0


CASES = [
    # kernels, strides, padding, odd channels and sizes, planar and blocked data
    Case((1, 3, 23, 29), 32, (7, 7), stride=2, padding=3),
    Case((1, 64, 15, 17), 48, (3, 3), padding=1),
    Case((3, 33, 9, 11), 19, (3, 3), stride=2, padding=1),
    Case((1, 40, 12, 13), 70, (1, 1)),
    Case((3, 17, 7, 7), 128, (1, 1), stride=2),
    Case((1, 48, 10, 21), 16, (5, 3), stride=3, padding=2),
    Case((2, 64, 13, 5), 1, (3, 3), padding=2, dilation=2),
    Case((1, 16, 5, 5), 32, (5, 5)),
    Case((1, 16, 4, 3), 32, (3, 3), padding=4),
    # groups: whole blocks, and blocks that cross groups
    Case((2, 64, 9, 10), 96, (3, 3), padding=1, groups=2),
    Case((1, 32, 9, 10), 32, (3, 3), padding=1, groups=8),
    Case((1, 15, 8, 8), 10, (3, 3), groups=5),
    Case((1, 24, 8, 8), 48, (3, 3), padding=1, groups=24),
    # ranks
    Case((2, 40, 31), 24, (5,), stride=2, padding=2),
    Case((1, 3, 50), 16, (3,), dilation=3),
    Case((1, 16, 5, 6, 7), 24, (3, 3, 3), padding=1),
    Case((2, 3, 6, 9, 8), 16, (3, 2, 3), stride=2),
    # transposed
    Case((1, 32, 7, 9), 24, (3, 3), stride=2, padding=1, output_padding=1, transposed=True),
    Case((2, 20, 6, 5), 16, (4, 4), stride=2, padding=1, transposed=True),
    Case((1, 16, 5, 5), 32, (3, 3), stride=3, dilation=2, groups=2, transposed=True),
    Case((1, 24, 11), 16, (5,), stride=2, padding=2, transposed=True),
    Case((1, 8, 3, 4, 5), 16, (2, 2, 2), stride=2, transposed=True),
    Case((2, 20, 6, 5), 14, (4, 4), stride=2, padding=1, transposed=True),
    Case((2, 16, 3, 4, 5), 32, (3, 2, 5), stride=2, padding=1, transposed=True),
    Case((3, 33, 1, 1), 32, (4, 3), stride=3, transposed=True),
    Case((1, 16, 9, 8), 16, (5, 5), stride=3, padding=4, output_padding=2, transposed=True),
    Case((1, 16, 9, 8), 32, (3, 3), padding=1, transposed=True),
    # unknown sizes
    Case((3, 32, 9, 9), 32, (3, 3), padding=1, dynamic=(0,)),
    Case((1, 32, 14, 19), 48, (3, 3), padding=1, dynamic=(2, 3)),
    Case((2, 3, 30, 31), 32, (5, 5), stride=2, padding=2, dynamic=(0, 2, 3)),
    Case((2, 40, 9, 31), 32, (1, 1), dynamic=(0, 2, 3)),
    Case((1, 32, 6, 2), 32, (3, 3), padding=1, dynamic=(2, 3)),
    Case((1, 16, 5, 9), 16, (3, 3), stride=2, padding=1, transposed=True, dynamic=(2, 3)),
    # dtype
    Case((1, 24, 9, 9), 24, (3, 3), padding=1, dtype=torch.float64),
    # depthwise
    Case((1, 32, 15, 15), 32, (3, 3), padding=1, groups=32, rule="depthwise-convolution"),
    Case((3, 20, 14, 13), 20, (5, 5), stride=2, padding=2, groups=20, rule="depthwise-convolution"),
    Case((1, 16, 9, 9), 16, (3, 3), padding=2, dilation=2, groups=16, rule="depthwise-convolution"),
    Case((2, 48, 9, 17), 48, (3, 3), padding=1, groups=48, dynamic=(0, 2, 3), rule="depthwise-convolution"),
    Case((2, 24, 33), 24, (7,), padding=3, groups=24, rule="depthwise-convolution"),
]


WINOGRAD: dict[str, Any] = {"rule": "winograd-convolution", "accuracy": "default"}

WINOGRAD_CASES = [
    # (case, tile): odd sizes and channels, no and wide padding, batch, few and many tiles (fused, split)
    (Case((1, 64, 15, 17), 48, (3, 3), padding=1, **WINOGRAD), 2),
    (Case((1, 64, 15, 17), 48, (3, 3), padding=1, **WINOGRAD), 4),
    (Case((3, 33, 9, 10), 40, (3, 3), padding=0, **WINOGRAD), 4),
    (Case((1, 16, 40, 38), 16, (3, 3), padding=2, **WINOGRAD), 4),
    (Case((2, 40, 7, 7), 24, (3, 3), padding=1, dynamic=(0,), **WINOGRAD), 2),
    # three dimensions: planes that read padding, taps apart, none but the border
    (Case((2, 32, 5, 9, 11), 24, (3, 3, 3), padding=1, **WINOGRAD), 4),
    (Case((1, 16, 9, 8, 8), 40, (2, 3, 3), padding=0, **WINOGRAD), 2),
    (Case((1, 128, 3, 9, 7), 64, (3, 3, 3), padding=1, **WINOGRAD), 2),
    (Case((2, 16, 1, 12, 12), 16, (3, 3, 3), padding=1, dynamic=(0,), **WINOGRAD), 4),
]


@pytest.mark.parametrize(("case", "tile"), WINOGRAD_CASES, ids=str)
def test_winograd(case: Case, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_choice, "winograd_tile", lambda *_: tile)
    check(case)


@pytest.mark.parametrize(("stride", "dilation", "padding"), [(2, 1, 1), (1, 2, 2), (2, 3, 0), (3, 1, 2)])
def test_winograd_with_steps_in_depth(
    stride: int, dilation: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv_choice, "winograd_tile", lambda *_: 4)
    model = torch.nn.Conv3d(32, 24, 3, (stride, 1, 1), (padding, 1, 1), (dilation, 1, 1)).eval()
    x = torch.randn(2, 32, 8, 10, 9)
    compiled = torch_tvm.compile(model, (x,), fallback=False)
    assert "winograd-convolution" in {kernel.rule for kernel in compiled.report.kernels}
    with torch.no_grad():
        exact = torch.nn.functional.conv3d(
            x.double(),
            model.weight.double(),
            model.bias.double(),
            model.stride,
            model.padding,
            model.dilation,
        )
        compare(compiled(x), model(x), exact)


PAIR_CASES = [
    Case((1, 64, 15, 17), 48, (3, 3), padding=1),
    Case((3, 40, 9, 11), 19, (3, 3), stride=2, padding=1),
    Case((1, 70, 12, 13), 70, (1, 1)),
    Case((2, 64, 7, 7), 128, (1, 1), stride=2),
    Case((2, 64, 9, 10), 96, (3, 3), padding=1, groups=2),
    Case((1, 40, 5, 6, 7), 24, (3, 3, 3), padding=1),
    Case((2, 40, 31), 24, (5,), stride=2, padding=2),
    Case((1, 64, 7, 9), 24, (3, 3), stride=2, padding=1, output_padding=1, transposed=True),
    Case((2, 40, 9, 31), 32, (1, 1), dynamic=(0, 2, 3)),
    Case((1, 34, 14, 19), 48, (3, 3), padding=1, dynamic=(2, 3)),
]


@pytest.mark.parametrize("case", PAIR_CASES, ids=str)
def test_pairs_of_bfloat16(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """``accuracy="fast"`` rounds data and weights, and nothing else."""
    spell_out(monkeypatch)
    monkeypatch.setattr(conv_choice, "winograd_tile", lambda *_: 0)
    data, weight, bias = case.tensors()
    scheduled, decisions = schedule(optimize(case.module(), TARGET, accuracy="fast"), TARGET)
    assert any("round_to_bfloat16" in decision.kernel for decision in decisions)
    vm = relax.VirtualMachine(build(scheduled, TARGET), tvm.cpu())
    result = vm["main"](data, pack_weights(scheduled, vm, [weight, bias]))
    data, weight = data.bfloat16(), weight.bfloat16()
    eager = case.eager(data.float(), weight.float(), bias)
    exact = case.eager(data.double(), weight.double(), bias.double())
    compare(torch.from_dlpack(result), eager, exact)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (Case((1, 65, 9, 9), 48, (1, 1)), "odd channels"),
        (Case((1, 64, 9, 9), 64, (3, 3), groups=64, padding=1), "one channel a group"),
        (Case((1, 64, 9, 9), 4, (1, 1)), "few outputs"),
    ],
    ids=str,
)
def test_no_pairs_where_channels_do_not_fill_them(case: Case, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spell_out(monkeypatch)
    names = [g.name_hint for g in optimize(case.module(), TARGET, accuracy="fast").get_global_vars()]
    assert not any("round_to_bfloat16" in name for name in names), why


def assembly_for(mcpu: str, case: Case) -> list[str]:
    """Machine code of a convolution under ``accuracy="fast"`` for another processor."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "mtriple": "x86_64-linux-gnu", "num-cores": 2})
    scheduled, _ = schedule(optimize(case.module(), target, accuracy="fast"), target)
    libraries = build(scheduled, target).mod.imports
    return "\n".join(library.inspect_source("asm") for library in libraries).splitlines()


@pytest.mark.parametrize("mcpu", ["znver4", "sapphirerapids"])
def test_pairs_are_multiplied_in_full_vectors(mcpu: str) -> None:
    lines = assembly_for(mcpu, Case((1, 128, 14, 14), 256, (1, 1)))
    dots = [line for line in lines if "vdpbf16ps" in line]
    assert len(dots) >= 14
    assert all("%zmm" in line for line in dots)
    assert not any("torch_tvm_dot" in line and "call" in line for line in lines)


@pytest.mark.parametrize("outputs", [48, 40], ids=["squares of channels", "a rest"])
def test_winograd_on_weights_that_are_arguments(outputs: int) -> None:
    """The result, and the gradient of the data, which is a convolution of the weights turned around."""

    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor) -> Any:
            how = [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
            backward = torch.ops.aten.convolution_backward(grad, x, weight, None, *how)
            return F.conv2d(x, weight, padding=1), backward[0]

    given = torch.randn(2, 32, 28, 28), torch.randn(outputs, 32, 3, 3), torch.randn(2, outputs, 28, 28)
    compiled = torch_tvm.compile(Both(), given, fallback=False)
    rules = [kernel.rule for kernel in compiled.report.kernels]
    assert rules.count("winograd-convolution") == 2
    assert rules.count("winograd-weights") == (2 if outputs == 48 else 0)
    exact = Both()(*(t.double() for t in given))
    for ours, eager, right in zip(compiled(*given), Both()(*given), exact, strict=True):
        assert (ours - right).square().mean().sqrt() <= 3 * (eager - right).square().mean().sqrt() + 1e-5


def test_winograd_is_chosen_by_shape_and_never_when_strict() -> None:
    large = Case((1, 64, 56, 56), 64, (3, 3), padding=1)
    assert _algorithms(large, "default") == {"winograd"}
    assert _algorithms(large, "strict") == {"direct"}
    strided = Case((1, 64, 56, 56), 64, (3, 3), stride=2, padding=1)
    assert _algorithms(strided, "default") == {"direct"}


def test_taps_of_a_small_transposed_convolution_are_computed_first() -> None:
    small = Case((1, 64, 8, 8), 64, (4, 4), stride=2, padding=1, transposed=True)
    large = Case((1, 64, 256, 256), 64, (4, 4), stride=2, padding=1, transposed=True)
    apart = Case((1, 64, 8, 8), 64, (2, 2), stride=2, transposed=True)
    has_sum = lambda case: any("meeting_taps" in g.name_hint for g in optimize(case.module(), TARGET).get_global_vars())
    assert [has_sum(case) for case in (small, large, apart)] == [True, False, False]


@pytest.mark.parametrize(
    "case",
    [
        Case((1, 64, 13, 14), 40, (3, 3), stride=2, padding=1),
        Case((2, 32, 9, 8), 48, (3, 2), padding=2, dilation=2),
        Case((3, 64, 21), 33, (5,), stride=3),
        Case((1, 32, 4, 5, 6), 24, (2, 3, 3), stride=2, padding=1),
        Case((3, 64, 7, 7), 64, (3, 3), stride=2, padding=1, dynamic=(0,)),
        Case((1, 64, 7, 7), 32, (3, 3), padding=1, dtype=torch.float64),
    ],
    ids=str,
)
def test_taps_gathered_before_the_product(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_choice, "WORTH_GATHERING", float("inf"))
    assert "gather_taps" in _kernels(case, TARGET)
    check(case)


def test_taps_are_gathered_where_rows_do_not_fill_the_registers() -> None:
    target = tvm.target.Target({"kind": "llvm", "mcpu": "haswell", "num-cores": 2, "model": "l2=2M"})
    narrow = Case((1, 512, 14, 14), 512, (3, 3), stride=2, padding=1)
    wide = Case((1, 512, 56, 56), 512, (3, 3), stride=2, padding=1)
    deep = Case((1, 512, 1, 7, 7), 512, (3, 3, 3), padding=1)
    assert ["gather_taps" in _kernels(case, target) for case in (narrow, wide, deep)] == [True, False, False]


def _kernels(case: Case, target: tvm.target.Target) -> set[str]:
    return {gvar.name_hint for gvar in optimize(case.module(), target).get_global_vars()}


def _algorithms(case: Case, accuracy: str) -> set[str]:
    names = [gvar.name_hint for gvar in optimize(case.module(), TARGET, accuracy=accuracy).get_global_vars()]
    return {name.split("_")[1] for name in names if "_conv" in name}


@pytest.mark.parametrize("dynamic", [(), (0,)])
def test_empty_batch(dynamic: tuple[int, ...]) -> None:
    case = Case((0, 16, 8, 8), 16, (3, 3), padding=1, dynamic=dynamic, accuracy="default")
    _, weight, bias = case.tensors()
    scheduled, _ = schedule(optimize(case.module(), TARGET), TARGET)
    vm = relax.VirtualMachine(build(scheduled, TARGET), tvm.cpu())
    result = vm["main"](torch.empty(0, 16, 8, 8), pack_weights(scheduled, vm, [weight, bias]))
    assert result.shape == (0, 16, 8, 8)


def test_winograd_matrices_filter() -> None:
    for tile in (2, 4):
        matrices = winograd_matrices(tile)
        output, weight, data = (
            torch.tensor(m, dtype=torch.float64) for m in (matrices.output, matrices.weight, matrices.data)
        )
        signal, taps = torch.randn(tile + 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        exact = signal.unfold(0, 3, 1) @ taps
        torch.testing.assert_close(output @ ((weight @ taps) * (data @ signal)), exact)


@pytest.mark.parametrize("width", [1, 7, 28, 57, 224])
@pytest.mark.parametrize("blocks", [1, 3, 4, 32])
def test_tiles_fit_the_registers(width: int, blocks: int) -> None:
    cpu = CpuModel.from_target(TARGET)
    tiling = choose_tiling(cpu, [width], blocks, 576)
    assert 1 <= tiling.vectors <= min(4, blocks)
    assert tiling.width * tiling.vectors + tiling.vectors < cpu.vector_registers


@pytest.mark.parametrize(("stride", "padding", "kernel", "extent"), [(1, 1, 3, 15), (2, 3, 7, 20), (3, 0, 2, 11)])
def test_runs_cover_every_column_once(stride: int, padding: int, kernel: int, extent: int) -> None:
    count = (extent + 2 * padding - kernel) // stride + 1
    phase = Phase(0, 1, count, stride, tuple((k, k - padding) for k in range(kernel)))
    covered: list[int] = []
    for run in split_columns(phase, extent, 6):
        for tile in range(run.count):
            first = run.first + tile * run.width
            covered += range(first, first + run.width)
            for (_, offset), columns in zip(phase.taps, run.valid, strict=True):
                inside = [m for m in range(run.width) if 0 <= (first + m) * stride + offset < extent]
                assert list(columns) == inside
    assert covered == list(range(count))


@pytest.mark.parametrize(("total", "width"), [(1, 6), (5, 6), (6, 6), (49, 5), (196, 6), (13, 4)])
def test_overlapping_tiles_cover_every_column(total: int, width: int) -> None:
    run = cover_columns(total, width, 1)
    starts = [exact(tvm.sym.Analyzer().simplify(run.start(tvm.tirx.IntImm("int64", t)))) for t in range(run.count)]
    columns = [start + column for start in starts for column in range(run.width)]
    assert set(columns) == set(range(total))
    assert len(columns) - total < run.width
    assert run.valid == (tuple(range(run.width)),)


@pytest.mark.parametrize(("batch", "size"), [(1, 23), (2, 23), (1, 41), (3, 16)])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 256), (520, 136)])
def test_tasks_of_several_tiles_reach_every_column(batch: int, size: int, inputs: int, outputs: int) -> None:
    """The tiles of an image come out even with neither the tiles of a task nor the tasks of a group."""
    check(Case((batch, inputs, size, size), outputs, (1, 1)))


@pytest.mark.skipif(
    not TARGET.attrs.get("mcpu", "").startswith(("cascadelake", "skylake-avx512", "icelake", "znver4", "sapphire")),
    reason="the host has no AVX-512",
)
def test_tile_uses_whole_vectors_and_does_not_spill() -> None:
    module, _ = schedule(
        optimize(Case((1, 64, 56, 56), 64, (3, 3), padding=1).module(), TARGET, accuracy="strict"), TARGET
    )
    kernel = next(f for g, f in module.functions_items() if "direct_conv" in g.name_hint)
    built = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), TARGET)
    assembly = built.mod.inspect_source("asm")
    fused = [line for line in assembly.splitlines() if "vfmadd" in line]
    assert len(fused) > 100
    assert all("zmm" in line for line in fused)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution(case: Case) -> None:
    check(case)
