"""``torch-tvm-opt`` as a command: its options, exit codes and messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch_tvm.tools import opt

ADDS = """func.func @main() -> !torch.int {
  %0 = torch.constant.int 2
  %1 = torch.constant.int 2
  %2 = torch.aten.add.int %0, %1 : !torch.int, !torch.int -> !torch.int
  return %2 : !torch.int
}
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "adds.mlir"
    path.write_text(ADDS)
    return str(path)


def tool(arguments: list[str], text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "torch_tvm.tools.opt", *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_standard_input_and_output() -> None:
    done = tool(["-", "--canonicalize"], ADDS)
    assert done.returncode == 0 and done.stderr == ""
    assert "constant.int 4" in done.stdout and "aten.add.int" not in done.stdout


def test_wrong_input_ends_with_code_2_and_without_traceback() -> None:
    done = tool(["-"], ADDS.replace("aten.add.int", "aten.nope"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("torch-tvm-opt: error: -:4:8: custom op 'torch.aten.nope' is unknown\n    %2 = ")
    assert "Traceback" not in done.stderr


def test_flags_apply_in_order(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert opt.run([source, "--cse", "--canonicalize", "--mlir-print-ir-after-all"]) == 0
    err = capfd.readouterr().err
    assert 0 <= err.index("CSEPass") < err.index("CanonicalizerPass")


def test_output_file(source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.mlir"
    assert opt.run([source, "-o", str(target)]) == 0
    assert capfd.readouterr().out == "" and "torch.aten.add.int" in target.read_text()


def test_what_is_printed_reads_back(source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert opt.run([source, "--mlir-print-debuginfo"]) == 0
    first = capfd.readouterr().out
    again = tmp_path / "again.mlir"
    again.write_text(first)
    assert opt.run([str(again), "--mlir-print-debuginfo"]) == 0
    assert capfd.readouterr().out == first and 'adds.mlir":4:8' in first


def test_bytecode_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from torch_tvm.dialect.parse import parse

    path = tmp_path / "m.mlirbc"
    parse(ADDS).save(path)
    assert opt.run([str(path)]) == 0
    assert "torch.aten.add.int" in capfd.readouterr().out


def test_a_bad_part_leaves_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "parts.mlir"
    path.write_text(f"{ADDS}// -----\nfunc.func @bad( {{\n// -----\n{ADDS.replace('@main', '@third')}")
    assert opt.run([str(path), "--split-input-file"]) == 2
    out, err = capfd.readouterr()
    assert "@main" in out and "@third" in out and f"{path}:8:" in err


COMMANDS = [
    (["a", "b"], "one input at a time, got a, b"),
    (["--pass-pipeline"], "--pass-pipeline needs a value"),
    (["--verify-each=1"], "--verify-each takes no value"),
    (["--mlir-elide-resource-strings-if-larger=x"], "needs a number, got 'x'"),
    (["--torch-to-relax", "--cse"], "--cse works on Torch dialect and comes after --torch-to-relax"),
    (["--emit=pdf"], "--emit does not know 'pdf'"),
    (["--run=twice"], "--run does not know 'twice'"),
    (["no/such/file.pt2"], "no such file: no/such/file.pt2"),
    (["no/such/file.mlir"], "cannot read 'no/such/file.mlir': No such file or directory"),
    (["."], "cannot read '.': Is a directory"),
]


@pytest.mark.parametrize(("arguments", "message"), COMMANDS, ids=[row[1] for row in COMMANDS])
def test_command_lines_that_cannot_be_meant(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert opt.run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("torch-tvm-opt: error: ") and message in err


FLAGS = [
    (["--no-such-pass"], "'no-such-pass' is no pass of torch-mlir or of torch_tvm"),
    (["--pass-pipeline=builtin.module(nope)"], "pass pipeline: column 16: 'nope' is no pass"),
    (["--torch-decompose-complex-ops=x=1"], "no such option x"),
    (["--torch-tvm-canonicalize=1"], "--torch-tvm-canonicalize takes no value"),
    (["--relax-to-tir", "--target=no cpu"], "'no cpu' is no LLVM processor name"),
    (["-o", "no/such/folder/file"], "cannot write 'no/such/folder/file'"),
]


@pytest.mark.parametrize(("arguments", "message"), FLAGS, ids=[row[0][0] for row in FLAGS])
def test_options_that_do_not_fit(
    source: str, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert opt.run([source, *arguments]) == 2
    assert message in capfd.readouterr().err


def test_a_target_is_scheduled_for(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert opt.run([source, "--relax-to-tir", "--target=haswell"]) == 0
    assert "R.function" in capfd.readouterr().out


def test_elided_weights_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "elided.mlir"
    path.write_text(
        "func.func @main() -> !torch.vtensor<[2],f32> {\n"
        "  %0 = torch.vtensor.literal(dense_resource<w> : tensor<2xf32>) : !torch.vtensor<[2],f32>\n"
        "  return %0 : !torch.vtensor<[2],f32>\n}\n"
    )
    assert opt.run([str(path)]) == 2
    assert f"{path}:2: torch.vtensor.literal: the text has no data for resource 'w'" in capfd.readouterr().err


def test_an_unexpected_error_is_one_line(
    source: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(module: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("torch_tvm.passes.pipeline.canonicalize", broken)
    assert opt.run([source, "--torch-tvm-canonicalize"]) == 1
    assert "internal error in torch-tvm-canonicalize: KeyError: 'oops'" in capfd.readouterr().err
    monkeypatch.setenv("TORCH_TVM_TRACEBACK", "1")
    with pytest.raises(KeyError):
        opt.run([source, "--torch-tvm-canonicalize"])


def test_a_crash_names_the_pass_and_does_not_spread() -> None:
    script = (
        "import os, signal, sys\n"
        "from torch_tvm.tools import opt\n"
        "def work():\n"
        "    opt._note_progress('bad-pass')\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "code = opt.guarded(work)\n"
        "sys.exit(code + 40)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 41
    assert "error: bad-pass crashed (signal 11)" in done.stderr


def test_guarded_passes_code_and_output_on() -> None:
    script = "import sys\nfrom torch_tvm.tools import opt\nsys.exit(opt.guarded(lambda: print('out') or 7))\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "out\n")


def test_help_lists_options_and_passes(capfd: pytest.CaptureFixture[str]) -> None:
    from torch_tvm.passes.base import registry

    assert opt.run(["--help"]) == 0
    out = capfd.readouterr().out
    for name in ("--pass-pipeline", "--torch-to-relax", "--torch-decompose-complex-ops", "--canonicalize"):
        assert name in out
    for name, found in registry().items():
        assert f"--{name}" in out and found.summary() in out


def test_text_of_torchscript_and_lazy_graphs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    graph = tmp_path / "relu.ts"
    graph.write_text("graph(%x : Float(2, 3)):\n  %y : Tensor = aten::relu(%x)\n  return (%y)\n")
    dump = tmp_path / "relu.ltc"
    dump.write_text(
        "IR {\n  %0 = [Float[2,3]] lazy_tensors::device_data(), device=CPU0\n"
        "  %1 = [Float[2,3]] aten::relu(%0), ROOT=0\n}\n"
    )
    for path in (graph, dump):
        assert opt.run([str(path)]) == 0
        assert "torch.aten.relu %arg0 : !torch.vtensor<[2,3],f32>" in capfd.readouterr().out
    graph.write_text("graph(%x : Float(2, 3)):\n  %y : Tensor = aten::rilu(%x)\n  return (%y)\n")
    assert opt.run([str(graph)]) == 2
    assert "relu.ts:2:17: no such op: aten::rilu" in capfd.readouterr().err


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch

    path = str(tmp_path_factory.mktemp("programs") / "net.pt2")
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU())
    torch.export.save(torch.export.export(net, (torch.randn(2, 8),)), path)
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("mlir", "torch.aten.linear"),
        ("tvmscript", "@I.ir_module"),
        ("llvm", "target triple"),
        ("asm", ".globl"),
        ("cuda", "__global__"),
        ("opencl", "__kernel"),
    ],
)
def test_kernels_in_every_language(exported: str, kind: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert opt.run([exported, f"--emit={kind}"]) == 0
    assert text in capfd.readouterr().out


def test_a_module_runs_and_is_checked(
    exported: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opt.run([exported, "--run=interpreter", "--input=2x8"]) == 0
    assert capfd.readouterr().out.startswith("result 0: [2, 16] float32\ntensor(")
    assert opt.run([exported, "--check-against=eager"]) == 0
    assert capfd.readouterr().out == "result 0: [2, 16] float32: agrees with eager\n"
    monkeypatch.setattr("torch_tvm.debug.compare.limit_of", lambda *_: -1.0)
    assert opt.run([exported, "--check-against=eager"]) == 1
    assert "differs from eager: error" in capfd.readouterr().out


def test_eager_is_the_program_and_not_the_interpreter(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_tvm.dialect.module import TorchModule

    def wrong(self, args):
        raise AssertionError("the interpreter")

    class Nested(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(x) * y, x.add_(1)

    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2

    args = (torch.randn(2, 3), torch.randn(2, 3))
    exported, script, graph = (str(tmp_path / f"program.{end}") for end in ("pt2", "pt", "ts"))
    torch.export.save(torch.export.export(Nested(), args), exported)
    torch.jit.save(torch.jit.trace(program, args[:1]), script)
    Path(graph).write_text("graph(%x : Float(2, 3)):\n  %y : Float(2, 3) = aten::relu(%x)\n  return (%y)\n")
    monkeypatch.setattr(TorchModule, "run", wrong)
    for path, count in ((exported, 2), (script, 1), (graph, 1)):
        assert opt.run([path, "--check-against=eager", *(["--input=2x3"] if path == script else [])]) == 0
        assert capfd.readouterr().out.count(": agrees with eager\n") == count


def test_eager_draws_the_same_numbers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Draws(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    path = str(tmp_path / "draws.pt2")
    torch.export.save(torch.export.export(Draws(), (torch.ones(2, 3),)), path)
    assert opt.run([path, "--check-against=eager"]) == 0
    assert capfd.readouterr().out == "result 0: [2, 3] float32: agrees with eager\n"


def test_passes_are_listed_told_and_timed(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert opt.run(["--list-passes"]) == 0
    assert "--fold-constants  (options: max-elements)" in capfd.readouterr().out
    arguments = ["--cse", "--fold-constants=max-elements=8", "--dump-pass-pipeline", "--mlir-timing"]
    assert opt.run([source, *arguments]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == ["cse", "fold-constants=max-elements=8"]
    assert [line.split()[-1] for line in lines[2:]] == ["pass", "cse", "fold-constants"]


def test_announced_errors_are_expected(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "announced.mlir"
    wrong = ADDS.replace("aten.add.int", "aten.nope")
    path.write_text(f"// expected-error@+4 {{{{unknown}}}}\n{wrong}")
    assert opt.run([str(path), "--verify-diagnostics"]) == 0
    path.write_text(f"// expected-error@+3 {{{{unknown}}}}\n{wrong}")
    assert opt.run([str(path), "--verify-diagnostics"]) == 2
    path.write_text(f"// expected-error@+4 {{{{unknown}}}}\n{ADDS}")
    assert opt.run([str(path), "--verify-diagnostics"]) == 2
    path.write_text(wrong)
    assert opt.run([str(path), "--verify-diagnostics"]) == 2
    err = capfd.readouterr().err
    assert "was not produced" in err and "at line 4" in err and "unexpected error" in err


def test_a_crash_leaves_a_reproducer(source: str, tmp_path: Path) -> None:
    left = tmp_path / "crash.mlir"
    script = (
        "import os, signal, sys\n"
        "from torch_tvm.passes import pipeline_text\n"
        "from torch_tvm.tools import opt\n"
        "pipeline_text.Step.run = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "sys.exit(opt.guarded(lambda: opt.run(sys.argv[1:])))\n"
    )
    arguments = [source, "--fold-constants=max-elements=8", f"--crash-reproducer={left}"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and "fold-constants crashed (signal 11)" in done.stderr
    first, module = left.read_text().split("\n", 1)
    assert first == f"// torch-tvm-opt {left} --fold-constants=max-elements=8" and "torch.aten.add.int" in module
    assert opt.run(first.split()[2:]) == 0
    assert opt.run([source, "--cse", f"--crash-reproducer={left}"]) == 0 and not left.exists()


def test_a_crash_reproducer_is_not_the_input(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = Path(source).read_bytes()
    assert opt.run([source, "--cse", f"--crash-reproducer={source}"]) == 2
    assert "over the input" in capfd.readouterr().err
    assert Path(source).read_bytes() == before
