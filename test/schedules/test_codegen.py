"""What generic kernels become on AVX-512, AVX2 and NEON: full vectors, no libm, small kernels on one
thread."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, tirx

from torch_tvm.backends import optimize, schedule
from torch_tvm.schedules.cpu.emit import INTERLEAVED
from torch_tvm.schedules.cpu.loops.producers.steps import PARALLEL_THRESHOLD
from torch_tvm.schedules.target import CpuModel, host_target

from .relax_models import var

R = relax.op
TARGETS = {
    "avx512": ({"kind": "llvm", "mcpu": "cascadelake", "num-cores": 2}, 16, ("zmm",)),
    "avx2": ({"kind": "llvm", "mcpu": "haswell", "num-cores": 2}, 8, ("ymm",)),
    "neon": (
        {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76", "num-cores": 2},
        4,
        (".4s", "q0"),
    ),
}
KERNELS = {
    "gelu": (lambda x: R.nn.gelu(x), (64, 100)),
    "softmax": (lambda x: R.nn.softmax(x, -1), (64, 100)),
    "softmax of columns": (lambda x: R.nn.softmax(x, 0), (64, 100)),
    "sum": (lambda x: R.sum(x, [1]), (64, 100)),
    "sum of columns": (lambda x: R.sum(x, [0]), (64, 100)),
    "variance": (lambda x: R.variance(x, [1]), (64, 100)),
    "maximum": (lambda x: R.max(x, [1]), (64, 100)),
    "transpose": (lambda x: R.permute_dims(x), (64, 100)),
    "blocked pool": (
        lambda x: R.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1), layout="NCHW16c"),
        (1, 2, 9, 9, 16),
    ),
    "concat": (lambda x: R.concat([x, x], 1), (64, 100)),
}


def kernel(body, shape, target: tvm.target.Target) -> tirx.PrimFunc:
    """The one scheduled PrimFunc of ``body``."""
    x = var("x", shape)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(body(x)))
        builder.emit_func_output(result)
    mod, _ = schedule(optimize(builder.get(), target), target)
    (func,) = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    return func.with_attr("global_symbol", "kernel")


def source(func: tirx.PrimFunc, target: tvm.target.Target, kind: str) -> str:
    return tvm.compile(tvm.IRModule({"kernel": func}), target).mod.inspect_source(kind)


@pytest.mark.parametrize("machine", sorted(TARGETS))
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_vectors_of_the_full_width(name: str, machine: str) -> None:
    fields, lanes, registers = TARGETS[machine]
    target = tvm.target.Target(fields)
    func = kernel(*KERNELS[name], target)
    text = source(func, target, "ll")
    assert f"<{lanes * INTERLEAVED if name == 'gelu' else lanes} x float>" in text
    for function in ("expf", "erff", "tanhf", "logf", "powf", "fmaxf"):
        assert f"@{function}(" not in text
    text = source(func, target, "asm")
    assert any(register in text for register in registers)


@pytest.mark.parametrize(("rows", "threads"), [(4, 0), (4096, 1)])
def test_small_kernels_stay_on_one_thread(rows: int, threads: int) -> None:
    target = tvm.target.Target(TARGETS["avx512"][0])
    text = kernel(lambda x: R.exp(x), (rows, 100), target).script()
    assert text.count("T.parallel") == threads


def test_a_single_result_is_reduced_on_all_cores() -> None:
    target = tvm.target.Target(TARGETS["avx512"][0])
    assert kernel(lambda x: R.sum(x), (1000, 1001), target).script().count("T.parallel") == 1


def test_symbolic_kernels_decide_when_they_run() -> None:
    target = tvm.target.Target(TARGETS["avx512"][0])
    text = kernel(lambda x: R.exp(x), (tirx.Var("n", "int64"), 100), target).script()
    assert text.count("T.parallel") == 1
    assert f"{PARALLEL_THRESHOLD}" in text


def test_accumulators_stay_in_registers() -> None:
    target = tvm.target.Target(TARGETS["avx512"][0])
    text = source(kernel(lambda x: R.sum(x, [1]), (64, 100), target), target, "ll")
    assert "load ptr, ptr @__TVMBackendAllocWorkspace" not in text


def test_host_target_describes_this_machine() -> None:
    target = host_target()
    cpu = CpuModel.from_target(target)
    assert tvm.target.codegen.llvm_is_valid_cpu(target.attrs["mcpu"], target.attrs["mtriple"])
    assert cpu.cores >= 1
    assert cpu.lanes("float32") * 32 == cpu.vector_bits
