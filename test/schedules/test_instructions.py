"""Instructions: the portable form computes the formula, the native form is the instruction, on
processors that have it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import tvm
from tvm import tirx

from torch_tvm.backends import optimize, schedule
from torch_tvm.schedules.instructions import arm, x86
from torch_tvm.schedules.instructions.dots import GROUP
from torch_tvm.schedules.instructions.instruction import PackedDot
from torch_tvm.schedules.instructions.maxima import Extremum
from torch_tvm.schedules.instructions.prefetch import PREFETCH
from torch_tvm.schedules.target import INSTRUCTIONS, CpuModel, host_target
from torch_tvm.support.errors import InvalidInput, Refusal
from torch_tvm.tir import const, load, store

from .programs import lowered

DOTS = [each for each in INSTRUCTIONS if isinstance(each, PackedDot)]
NAMES = [f"{each.name} {each.bits} {each.features[0]}" for each in DOTS]


def dot_kernel(dot: PackedDot) -> tirx.PrimFunc:
    """``out = total + left · right`` for one vector."""
    lanes, kind = dot.bits // 32, {"i32": "int32", "float": "float32"}[dot.result]
    total, out = (tirx.decl_buffer((const(lanes),), kind, name) for name in ("total", "out"))
    left, right = (tirx.decl_buffer((const(lanes),), "int32", name) for name in ("left", "right"))
    value = dot(*(load(buffer, [0], lanes) for buffer in (total, left, right)))
    body = dot.defined_in(store(out, value, [0], lanes))
    return tirx.PrimFunc([total, left, right, out], body).with_attr("global_symbol", "kernel")


def machine(architecture: str, features: tuple[str, ...]) -> tvm.target.Target:
    """A target that has just these features."""
    triple = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}[architecture]
    more = ("avx512f",) if any(name.startswith("avx512") for name in features) else ()
    return tvm.target.Target({"kind": "llvm", "mtriple": triple, "mattr": [f"+{name}" for name in (*more, *features)]})


def operands(dot: PackedDot) -> tuple[torch.Tensor, ...]:
    """Total, left and right as tensors of numbers: all values of bytes, ordinary bfloat16."""
    count = dot.bits // 32 * dot.size
    if dot.size == GROUP:
        total = torch.randint(-(2**31), 2**31 - 1, (count // GROUP,), dtype=torch.int32)
        left, right = torch.randint(0, 256, (count,)), torch.randint(-128, 128, (count,))
        left[:4], right[:4] = 255, -128
        return total, left.to(torch.uint8), right.to(torch.int8)
    return torch.randn(count // 2), torch.randn(count).bfloat16(), torch.randn(count).bfloat16()


def result(dot: PackedDot, target: tvm.target.Target, values: tuple[torch.Tensor, ...]) -> torch.Tensor:
    total, left, right = values
    out = torch.empty_like(total)
    words = [value.view(torch.int32) for value in (left, right)]
    tvm.compile(tvm.IRModule({"kernel": dot_kernel(dot)}), target)["kernel"](total, *words, out)
    return out


@pytest.mark.parametrize("dot", DOTS, ids=NAMES)
def test_portable_form_computes_the_formula(dot: PackedDot) -> None:
    host = host_target()
    total, left, right = values = operands(dot)
    products = (left.double() * right.double()).view(-1, dot.size).sum(1)
    expected = (total.double() + products).to(torch.int64) if dot.size == GROUP else total.double() + products
    expected = expected.to(torch.int32) if dot.size == GROUP else expected.float()
    portable = result(dot.portable(), host, values)
    torch.testing.assert_close(portable, expected)
    cpu = CpuModel.from_target(host)
    if dot.architecture == cpu.architecture and set(dot.features) <= cpu.features:
        torch.testing.assert_close(result(dot, host, values), portable)


@pytest.mark.parametrize("dot", DOTS, ids=NAMES)
def test_native_form_is_one_instruction(dot: PackedDot) -> None:
    target = machine(dot.architecture, dot.features)
    lines = tvm.compile(tvm.IRModule({"kernel": dot_kernel(dot)}), target).mod.inspect_source("s").splitlines()
    register = {512: "zmm", 256: "ymm", 128: "xmm"}[dot.bits] if dot.architecture == "x86_64" else "v"
    found = [line for line in lines if line.split()[:1] == [dot.name]]
    assert found or any(dot.name in line for line in lines), "\n".join(lines)
    assert all(register in line for line in lines if line.strip().startswith(dot.name))
    assert CpuModel.from_target(target).architecture == dot.architecture


@pytest.mark.parametrize("extremum", [arm.FMAX, arm.FMIN], ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extrema_keep_nan(extremum: Extremum, dtype: str) -> None:
    a, b, out = (tirx.decl_buffer((const(8),), dtype, name) for name in ("a", "b", "out"))

    def kernel(each: Extremum) -> tvm.IRModule:
        body = store(out, each(load(a, [0], 8), load(b, [0], 8)), [0], 8)
        return tvm.IRModule({"kernel": tirx.PrimFunc([a, b, out], body).with_attr("global_symbol", "kernel")})

    nan, inf = float("nan"), float("inf")
    x = torch.tensor([nan, 1, nan, inf, -inf, 2, 0.0, -3], dtype=getattr(torch, dtype))
    y = torch.tensor([1, nan, nan, -inf, 5, 2, 1.0, -4], dtype=getattr(torch, dtype))
    expected = torch.maximum(x, y) if extremum.is_largest else torch.minimum(x, y)
    got = torch.empty_like(x)
    tvm.compile(kernel(extremum.portable()), host_target())["kernel"](x, y, got)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    assembly = tvm.compile(kernel(extremum), machine("aarch64", ("neon",))).mod.inspect_source("s")
    assert extremum.name in assembly


def test_prefetch_is_an_instruction_everywhere_and_nothing_in_its_portable_form() -> None:
    place = tirx.BufferLoad(tirx.decl_buffer((const(8),), "float32", "a"), [const(0)])
    assert "prefetch" in str(PREFETCH(place, 3))
    assert "prefetch" not in str(PREFETCH.portable()(place, 3))


# -- descriptions ------------------------------------------------------------------------------------------

NEON = "architecture=aarch64 vector-bits=128 vector-registers=32 l1=64K l2=1M l3=32M cores=2 portable=true"
ELSEWHERE = {
    "usdot": f"{NEON} features=i8mm,bf16",
    "sdot": f"{NEON} features=dotprod",
    "vpdpbusd of 256 bits": (
        "vector-bits=256 vector-registers=16 features=fma,avxvnni l1=48K l2=1280K cores=8 portable=true"
    ),
    "vpdpbusd of 512 bits": "vector-bits=512 vector-registers=32 features=avx512vnni cores=4 portable=true",
}


class Product(torch.nn.Module):
    """A product of signed bytes with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-128, 128, (72, 40), dtype=torch.int8))
        self.register_buffer("example", torch.randint(-128, 128, (18, 72), dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._int_mm(x, self.weight)


@pytest.mark.parametrize("description", ELSEWHERE.values(), ids=ELSEWHERE)
def test_kernels_for_another_machine_run_here(description: str) -> None:
    """The schedule is that of the described machine, its instructions are spelled out for this one."""
    import torch_tvm

    target = {
        **{key: value for key, value in host_target().attrs.items()},
        "kind": "llvm",
        "model": description,
    }
    module = Product()
    compiled = torch_tvm.compile(module, (module.example,), target=target, fallback=False)
    assert "int8_matmul" in [kernel.rule for kernel in compiled.report.kernels]
    assert torch.equal(compiled(module.example), module(module.example))


def test_a_description_is_printed_and_read() -> None:
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver4", "num-cores": 16})
    cpu = CpuModel.from_target(target)
    assert (cpu.vector_bits, cpu.cores, cpu.l2, cpu.fma_per_cycle) == (512, 16, 1 << 20, 1)
    assert "l2=1M" in str(cpu) and "avx512bf16" in str(cpu)
    again = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "model": str(cpu)})
    assert CpuModel.from_target(again) == cpu


def test_nothing_of_this_machine_is_in_the_kernels_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"})
    x, weight = torch.randn(64, 300), torch.randn(300, 200)
    before = lowered(lambda x, w: torch.softmax(x @ w, 1), (x, weight))
    texts = []
    for cores in (1, 96):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setattr("torch_tvm.schedules.target._cache_bytes", lambda _, cores=cores: cores << 10)
        texts.append(schedule(optimize(before, target), target)[0].script())
    assert texts[0] == texts[1]
    assert CpuModel.from_target(host_target()).l2 == 96 << 10


def test_a_dict_describes_a_processor() -> None:
    from torch_tvm.targets import resolve_target

    given = {"kind": "llvm", "mcpu": "skylake-avx512", "num-cores": 4, "l2": "2M", "features": ["avx512vnni"]}
    cpu = CpuModel.from_target(resolve_target(given))
    assert (cpu.l2, cpu.cores, cpu.features) == (2 << 20, 4, frozenset({"avx512vnni"}))
    host = host_target()
    named = resolve_target({"kind": "llvm", "mcpu": host.attrs["mcpu"], "l3": "7M"})
    own = CpuModel.from_target(host)
    assert CpuModel.from_target(named) == replace(own, l3=7 << 20)
    with pytest.raises(InvalidInput, match=r"target\['l2'\]: got '2G'"):
        resolve_target({**given, "l2": "2G"})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("l2=2G", r"(?s)target\['l2'\]: got '2G'.*a number, such as"),
        ("l4=2M", r"(?s)target\['l4'\]: a processor has no such property.*known: .*l1, l2, l3"),
        ("portable=yes", r"(?s)target\['portable'\].*true or false"),
        ("architecture=mips", r"(?s)target\['architecture'\].*x86_64 or aarch64"),
    ],
)
def test_a_description_that_cannot_be_read(model: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        CpuModel.from_target(tvm.target.Target({"kind": "llvm", "model": f"bcm2711 {model}"}))


def test_a_refusal_names_the_instructions_that_would_do() -> None:
    haswell, armv8 = machine("x86_64", ("avx2",)), machine("aarch64", ("neon",))
    for target, wanted in ((haswell, "vpdpbusd"), (armv8, "usdot or sdot")):
        with pytest.raises(Refusal, match=f"the target has no {wanted}$"):
            CpuModel.from_target(target).required_dot(GROUP)


def test_each_instruction_set_has_its_own_file() -> None:
    assert {each.architecture for each in x86.INSTRUCTIONS} == {x86.ARCHITECTURE}
    assert {each.architecture for each in arm.INSTRUCTIONS} == {arm.ARCHITECTURE}
