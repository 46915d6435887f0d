"""The public surface: lazy import, ``compile``'s arguments, report, targets."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest
import torch
import tvm
from torch import nn
from tvm import relax

import torch_tvm
from torch_tvm.lowering.registry import LOWERINGS, Tensor
from torch_tvm.support.errors import ImportFailed, InvalidInput, UnsupportedOp

_LAZY = """
import sys, time, torch
started = time.process_time()
import torch_tvm
seconds = time.process_time() - started
assert not {"tvm", "torch_mlir", "mlir"} & set(sys.modules)
assert {"compile", "import_fx", "parse"} <= set(dir(torch_tvm))
print(seconds)
"""


def linear() -> Any:
    return nn.Linear(6, 3).eval()


def test_import_is_lazy_and_fast() -> None:
    done = [subprocess.run([sys.executable, "-c", _LAZY], capture_output=True, text=True, check=True) for _ in range(2)]
    assert min(float(run.stdout) for run in done) < 0.05


def test_every_public_name_exists_and_others_do_not() -> None:
    for name in torch_tvm.__all__:
        assert getattr(torch_tvm, name) is not None
    with pytest.raises(AttributeError, match="module 'torch_tvm' has no attribute 'nonsense'"):
        torch_tvm.nonsense  # noqa: B018


@torch.no_grad()
@pytest.mark.parametrize("make", ["module", "exported", "scripted", "imported", "graph"])
def test_programs_of_every_kind(make: str) -> None:
    module, x = linear(), torch.randn(5, 6)
    program = {
        "module": lambda: module,
        "exported": lambda: torch.export.export(module, (x,)),
        "scripted": lambda: torch.jit.trace(module, (x,)),
        "imported": lambda: torch_tvm.import_fx(module, (x,)),
        "graph": lambda: torch.fx.symbolic_trace(module),
    }[make]()
    torch.testing.assert_close(torch_tvm.compile(program, (x,), fallback=False)(x), module(x))


@torch.no_grad()
def test_weights_are_snapshots() -> None:
    module, x = linear(), torch.randn(5, 6)
    compiled, expected = torch_tvm.compile(module, (x,)), module(x)
    module.weight.zero_()
    module.bias.zero_()
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frontend": "onnx"}, "frontend: unknown frontend 'onnx'"),
        ({"target": "quantum"}, "target: unknown target 'quantum'"),
        ({"target": {"kind": "quantum"}}, "target: TVM does not take it"),
        ({"options": {"speed": 1}}, "options: unknown option 'speed'"),
        ({"options": {"accuracy": "exact"}}, "options: unknown accuracy 'exact'"),
        ({"options": {"passes": {"never": []}}}, r"options\['passes'\]: unknown stage 'never'"),
        ({"options": ["accuracy"]}, "options: expected a dict, got list"),
        ({"options": {"passes": 1}}, r"options\['passes'\]: expected a dict of lists of passes, got int"),
        ({"target": {"kind": "llvm", "mcpu": "znver99"}}, r"(?s)no processor 'znver99'.*\n  known: .*znver4"),
        ({"target": {"kind": "llvm", "mcpu": ""}}, "no processor ''"),
        ({"target": {"kind": "llvm", "mtriple": "foo-bar"}}, "no processors of the family 'foo-bar'"),
        ({"target": {"kind": "llvm", "mattr": ["+avx2", "-avx3"]}}, "no feature '-avx3'"),
        ({"target": tvm.target.Target({"kind": "llvm", "mcpu": "x"})}, "no processor 'x'"),
        ({"target": {"kind": "cuda", "arch": "sm_x"}}, r"target\['arch'\]: 'sm_x' is no architecture"),
        ({"example_args": torch.zeros(1)}, r"example_args: expected a tuple of arguments, got float32\[1\]"),
        ({"example_args": "ab"}, "example_args: expected a tuple of arguments, got str 'ab'"),
        ({"example_args": {1, 2}}, "example_args: expected a tuple of arguments, got set"),
        ({"frontend": "torchscript", "dynamic_shapes": {}}, "dynamic_shapes: only the fx frontend takes it"),
    ],
)
def test_a_wrong_option_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        torch_tvm.compile(linear(), **{"example_args": (torch.randn(5, 6),), **arguments})


@pytest.mark.parametrize("program", [3, nn.Linear, None], ids=["int", "class", "None"])
def test_what_is_no_program_is_refused(program: Any) -> None:
    with pytest.raises(InvalidInput, match="program: cannot compile a "):
        torch_tvm.compile(program, (torch.zeros(1),))


def test_a_compiled_program_is_not_compiled_again() -> None:
    compiled = torch_tvm.compile(nn.ReLU(), (torch.zeros(1),))
    for frontend in ("auto", "fx", "torchscript", "lazy"):
        with pytest.raises(InvalidInput, match="program: this program is compiled"):
            torch_tvm.compile(compiled, (torch.zeros(1),), frontend=frontend)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (((-1, 3),), "-1 is no size"),
        (((2.0,),), "2.0 is no size"),
        (((True,),), "True is no size"),
        ((4,), "expected a tuple of sizes, got 4"),
        (((4,), "float32"), "expected a torch.dtype, got 'float32'"),
    ],
)
def test_a_wrong_spec_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"TensorSpec: {message}"):
        torch_tvm.TensorSpec(*given)
    assert torch_tvm.TensorSpec([None, 3]).shape == (None, 3)  # type: ignore[arg-type]


class Counting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def count(self, x: torch.Tensor) -> torch.Tensor:
        return torch.histc(x.to(torch.bfloat16), 4)


def counted(x: torch.Tensor) -> torch.Tensor:
    return torch.histc(x.to(torch.bfloat16), 4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_warning_stands_at_the_line_of_the_call() -> None:
    x, script = torch.arange(4), torch.jit.script(Counting())
    here = sys._getframe().f_lineno
    with pytest.warns(torch_tvm.FallbackWarning) as caught:
        torch_tvm.compile(counted, (x,), frontend="fx")
        torch_tvm.compile(torch.jit.script(counted), (x,))
        torch_tvm.compile(script, (x,)).count(x)
    lines = [(item.filename, item.lineno) for item in caught if item.category is torch_tvm.FallbackWarning]
    assert lines == [(__file__, here + 2), (__file__, here + 3), (__file__, here + 4)]


class Counter:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.histc(x.to(torch.bfloat16), 4)

    def method(self, x: torch.Tensor, *, least: int = 0) -> torch.Tensor:
        return torch.histc(x.to(torch.bfloat16), 4, least, 9)


@pytest.mark.parametrize(
    "function",
    [
        counted,
        lambda x: torch.histc(x.to(torch.bfloat16), 4),
        Counter(),
        Counter().method,
        functools.partial(Counter().method, least=2),
    ],
    ids=["function", "lambda", "object", "method", "partial"],
)
def test_ops_of_functions_have_their_lines(function: Any) -> None:
    """torch.export notes lines only below a frame whose name is ``forward``."""
    with pytest.raises(UnsupportedOp, match=r"test_api.py:\d+: torch.aten.histc"):
        torch_tvm.compile(function, (torch.arange(4),), frontend="fx", fallback=False)


def test_a_function_with_what_it_finds_outside() -> None:
    layer, calls = linear(), torch.zeros(6)

    def program(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        calls.add_(x.sum(0))
        known = torch.tensor([1.0, 2.0, 3.0])
        return torch.relu(layer(x)) * known.add_(shift) + calls.sum()

    with torch.no_grad():
        compiled = torch_tvm.compile(program, (torch.randn(5, 6), torch.randn(3)), fallback=False)
        assert not calls.any()
        for _ in range(3):  # each has its own calls, which start from zeros
            x, shift = torch.randn(5, 6), torch.randn(3)
            torch.testing.assert_close(compiled(x, shift), program(x, shift))


class TwoMethods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * 2


@pytest.mark.parametrize(
    "function",
    [
        TwoMethods().eval().encode,
        functools.partial(torch.add, alpha=2, other=1),
        torch.exp,
        lambda *x: x[0] + 1,
    ],
    ids=["method", "partial", "builtin", "lambda"],
)
def test_what_is_called_like_a_function(function: Any) -> None:
    x = torch.randn(5, 6)
    with torch.no_grad():
        torch.testing.assert_close(torch_tvm.compile(function, (x,), fallback=False)(x), function(x))


def test_a_failing_function_is_named() -> None:
    def choose(x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else eval("-x")  # nor does this script

    with pytest.raises(ImportFailed, match=r"(?s)test_api.py.*choose"):
        torch_tvm.import_fx(choose, (torch.randn(3),))


def test_a_program_that_fails_in_pytorch_too_is_told_to_be_tried_there() -> None:
    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y

    advice = r"(?s)test_api.py:\d+: .*run the program on these arguments in PyTorch; if it does, try frontend="
    with pytest.raises(ImportFailed, match=advice):
        torch_tvm.import_fx(product, (torch.ones(2, 3), torch.ones(2, 3)))


def test_a_generator_of_the_programs_own_is_refused_and_not_forgotten() -> None:
    own, x = torch.Generator(), torch.randn(3)
    for draw in (lambda x: x + torch.rand(3, generator=own), lambda x: x.clone().uniform_(generator=own)):
        with pytest.raises(ImportFailed, match=r"test_api.py:\d+: .*a random generator cannot be captured"):
            torch_tvm.import_fx(draw, (x,))


def test_what_is_assigned_to_data_is_refused_and_not_forgotten() -> None:
    def assigned(x: torch.Tensor) -> torch.Tensor:
        z = x.clone()
        z.data = x * 2
        return z + 1

    x = torch.randn(3)
    with pytest.raises(ImportFailed, match=r"(?s)test_api.py:\d+: .*assigns to \.data.*copy_"):
        torch_tvm.import_fx(assigned, (x,))
    assert torch.equal(torch_tvm.compile(assigned, (x,), frontend="lazy")(x), assigned(x))


def test_a_program_that_can_neither_be_exported_nor_scripted() -> None:
    class Hopeless(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return eval("x + 1")
            return x

    with pytest.raises(
        ImportFailed, match=r"(?s)neither be exported nor scripted.*torch\.export: .*torch\.jit\.script: "
    ):
        torch_tvm.compile(Hopeless(), (torch.randn(2),))


def test_the_report_names_kernels_fallbacks_and_phases() -> None:
    compiled = torch_tvm.compile(linear(), (torch.randn(5, 6),))
    report = compiled.report.to_dict()
    assert report["frontend"] == "fx" and report["fallbacks"] == []
    assert report["kernels"] and all(kernel["rule"] for kernel in report["kernels"])
    assert set(report["seconds"]) >= {"import", "canonicalise", "lower", "optimise", "schedule", "build"}
    text = str(compiled.report)
    assert "ops in PyTorch: 0" in text and report["kernels"][0]["name"] in text
    assert isinstance(compiled.relax_module, tvm.IRModule) and isinstance(compiled.tir_module, tvm.IRModule)


def test_passes_of_the_user_run_at_their_stage() -> None:
    seen: list[str] = []

    def note(stage: str) -> Any:
        def hook(mod: tvm.IRModule) -> tvm.IRModule:
            seen.append(stage)
            return mod

        return hook

    stages = ["after-lowering", "after-optimizing", "after-scheduling"]
    torch_tvm.compile(linear(), (torch.randn(5, 6),), options={"passes": {s: [note(s)] for s in stages}})
    assert seen == stages
    with pytest.raises(InvalidInput, match="a pass returned NoneType"):
        torch_tvm.compile(linear(), (torch.randn(5, 6),), options={"passes": {"after-lowering": [lambda mod: None]}})


@pytest.mark.skipif(tvm.cuda(0).exist, reason="there is a GPU")
def test_cuda_without_a_gpu_needs_an_architecture() -> None:
    with pytest.raises(InvalidInput, match=r"(?s)no GPU to read the architecture from.*sm_90"):
        torch_tvm.compile(linear(), (torch.randn(5, 6),), target="cuda")


def test_cuda_code_is_generated_without_a_gpu() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.Softmax(-1)).eval()
    target = {"kind": "cuda", "arch": "sm_90"}
    compiled = torch_tvm.compile(module, (torch.randn(2, 3, 8, 8),), target=target, fallback=False)
    rules = {kernel.rule for kernel in compiled.report.kernels}
    assert rules and "none" not in rules
    if not tvm.cuda(0).exist:
        with pytest.raises(InvalidInput, match="this machine cannot run the module: it has no NVIDIA GPU"):
            compiled(torch.randn(2, 3, 8, 8))


def test_code_for_another_machine_is_generated_and_not_run() -> None:
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "neoverse-n1"}
    compiled = torch_tvm.compile(linear(), (torch.randn(5, 6),), target=target)
    with pytest.raises(InvalidInput, match="the code is for aarch64, the machine is"):
        compiled(torch.randn(5, 6))


def test_an_op_of_the_user_is_lowered_by_his_function() -> None:
    with torch.library._scoped_library("torch_tvm_test", "DEF") as library:
        library.define("triple(Tensor x) -> Tensor")
        library.impl("triple", lambda x: x * 3, "CompositeExplicitAutograd")
        library.impl("triple", lambda x: torch.empty_like(x), "Meta")

        class Triple(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.ops.torch_tvm_test.triple(x) + 1

        def triple(b: Any, x: Tensor) -> Any:
            return b.emit(relax.op.multiply(x, relax.const(3.0, b.dtype(x))))

        torch_tvm.register_lowering("torch_tvm_test::triple")(triple)
        try:
            x = torch.randn(4)
            compiled = torch_tvm.compile(Triple(), (x,), fallback=False)
            torch.testing.assert_close(compiled(x), x * 3 + 1)
            with pytest.raises(ValueError, match="lowered twice"):
                torch_tvm.register_lowering("torch_tvm_test::triple")(triple)
        finally:
            del LOWERINGS["torch.torch_tvm_test.triple"]
    with pytest.raises(InvalidInput, match="'triple' is no operator name"):
        torch_tvm.register_lowering("triple")
    with pytest.raises(InvalidInput, match="register_lowering: 3 is no operator name"):
        torch_tvm.register_lowering(3)  # type: ignore[arg-type]
