"""``torch-tvm`` as a command: what it prints, exit codes, and messages without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from torch_tvm.dialect.types import TensorSpec
from torch_tvm.tools import cli
from torch_tvm.tools.inputs.tensors import parse_spec


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


class Small(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = str(tmp_path / "small.pt")
    torch.jit.save(torch.jit.script(Small()), path)
    return path


@pytest.fixture
def exported(tmp_path: Path) -> str:
    path = str(tmp_path / "small.pt2")
    torch.export.save(torch.export.export(Small(), (torch.randn(2, 3),)), path)
    return path


def test_importers_agree(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "import", "--via", "fx,torchscript,lazy", "--diff", "mlp")
    assert code == 0
    assert out.splitlines() == [
        "fx and torchscript give the same program",
        "fx and lazy give the same program",
    ]


def test_a_difference_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_tvm.tools.inputs import sources

    first = sources._imported
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    monkeypatch.setattr(
        sources,
        "_imported",
        lambda program, args, frontend: first(other if frontend == "lazy" else program, args, frontend),
    )
    code, out, _ = run(capsys, "import", "--via", "fx,lazy", "--diff", "mlp")
    assert code == 1
    assert out.startswith("--- fx\n+++ lazy\n")
    assert "-  %2 = torch.aten.relu" in out


def test_text_goes_to_a_file_and_back(capsys: pytest.CaptureFixture[str], tmp_path: Path, exported: str) -> None:
    path = str(tmp_path / "small.mlir")
    assert run(capsys, "import", "--via", "lazy", "-o", path, exported)[0] == 0
    code, out, _ = run(capsys, "import", path)
    assert code == 0 and "torch.aten.relu" in out


@pytest.mark.parametrize("frontend", ["fx", "torchscript", "lazy"])
def test_an_exported_program_runs_by_every_frontend(
    capsys: pytest.CaptureFixture[str], exported: str, frontend: str
) -> None:
    code, out, err = run(capsys, "run", "--via", frontend, exported)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["result 0: [2, 3] float32", "agrees with eager PyTorch"]


def test_a_model_with_parameters_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "run", "--via", "lazy", "mlp")
    assert code == 0 and out.endswith("agrees with eager PyTorch\n")


def test_a_script_needs_inputs(capsys: pytest.CaptureFixture[str], script: str) -> None:
    code, out, err = run(capsys, "run", script)
    assert (code, out) == (2, "")
    assert "no known shape" in err and "Traceback" not in err
    code, out, _ = run(capsys, "run", "--input", "4x5", script)
    assert (code, out.splitlines()[0]) == (0, "result 0: [4, 5] float32")


def test_the_report(capsys: pytest.CaptureFixture[str], script: str) -> None:
    code, out, _ = run(capsys, "explain", "--input", "4x5:f32", script)
    assert code == 0 and "frontend: torchscript" in out and "compile time" in out
    code, out, _ = run(capsys, "compile", "--input", "4x5:f32", script)
    assert code == 0 and "0 ops in PyTorch" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "nosuch"], "no model 'nosuch'"),
        (["import", "nosuch.pt"], "no such file: nosuch.pt"),
        (["import", "--via", "onnx", "mlp"], "no such importer 'onnx'"),
        (["import", "--via", "fx", "--diff", "mlp"], "needs two importers"),
        (["import", "--input", "2x3", "mlp"], "inputs of their own"),
        (["run", "--batch", "0", "mlp"], "expected a number from 1 on"),
        (["run", "--via", "fx,lazy", "mlp"], "by one frontend"),
        (["tune", "--database", "tuned", "--via", "fx,lazy", "mlp"], "by one frontend"),
        (["run", "--target", "nosuch", "mlp"], "nosuch"),
        (["compile", "-o", "model.zip", "mlp"], "cannot tell the format"),
        (["run", "-o", "results.txt", "mlp"], "name it .npz, .npy or .pt"),
        (["explain", "-o", "page.pdf", "mlp"], "cannot tell the format"),
        (["run", "resnet"], "did you mean"),
        (["bench", "mlp", "--runs", "0"], "expected a number from 1 on"),
        (["compile", "no.ttvm"], "it is compiled"),
        (["run", "no.py"], "name it: no.py:MyModel"),
        (["run", "no.py:Net"], "no such file: no.py"),
        (["run", "no.onnx"], "no such file: no.onnx"),
        (["run", "mlp", "--seed", str(1 << 64)], "a whole number of 64 bits"),
        (["run", "mlp", "--seed", "x"], "a whole number of 64 bits"),
        (["run", "mlp", "--batch", str(1 << 70)], "a number from 1 on"),
        (["run", "mlp", "--batch", str((1 << 31) - 1)], "cannot be made"),
        (["compile", "mlp", "-o", "/no/such/folder/x.ttvm"], "there is no such folder"),
        (["run", "mlp", "-o", "/no/such/folder/x.npz"], "there is no such folder"),
        (["compile", "mlp", "--database", "/no/such/folder"], "there is no folder"),
        (["compile", "mlp", "--linker", "cc"], "nothing is linked without a file"),
        (["compile", "mlp", "--option", "accuracy"], "--option: cannot read 'accuracy'"),
        (["compile", "mlp", "--option", "acuracy=fast"], "unknown option 'acuracy'"),
        (["run", "mlp", "--option", "opt_level=9"], "expected a number from 0 to 3"),
        (["tune", "mlp"], "a folder is needed"),
        (["tune", "mlp", "--database", "x", "--trials", "-1"], "a number from 1 on"),
        (["tune", "mlp", "--database", "x", "--seconds", "nan"], "a number from 0 on"),
        (["bench", "--suite", "nosuch"], "invalid choice: 'nosuch'"),
        (["cache", "frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_use_is_an_error_in_words(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert (
        err.startswith(("torch-tvm: error: ", "torch-tvm bench: error: ")) and message in err and "Traceback" not in err
    )


@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        (["import", "nosuch", "--json"], "InvalidInput", "no model 'nosuch'"),
        (["run", "mlp", "--json", "--target", "nosuch"], "InvalidInput", "unknown target 'nosuch'"),
        (["run", "--json", "--batch", "x", "mlp"], "InvalidInput", "argument --batch"),
        (["cache", "info", "--json", "more"], "InvalidInput", "unrecognized arguments"),
    ],
)
def test_errors_are_json_where_answers_are(
    capsys: pytest.CaptureFixture[str], arguments: list[str], kind: str, problem: str
) -> None:
    code, out, err = run(capsys, *arguments)
    found = json.loads(out)["error"]
    assert code == 2 and err.startswith("torch-tvm: error: ")
    assert found["type"] == kind and problem in found["problem"]


def test_the_cache_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(run(capsys, "cache", "info", "--json")[1])["cache"] is None
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path))
    found = json.loads(run(capsys, "cache", "info", "--json")[1])["cache"]
    assert found["entries"] == 0 and Path(found["folder"]).parent == tmp_path


def test_seeds_at_the_end_of_their_range(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (-(1 << 63), (1 << 64) - 1):
        assert run(capsys, "import", "mlp", "--seed", str(seed))[0] == 0


def test_a_text_without_a_program(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "empty.mlir"
    path.write_text("")
    code, _, err = run(capsys, "import", str(path))
    assert code == 2 and "the module has no entry function" in err


def test_names_in_the_page_are_no_html(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    (tmp_path / "evil.py").write_text(
        "import torch\n"
        "class Evil(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.add_module('{evil}', torch.nn.Linear(3, 3))\n"
        "    def forward(self, x):\n"
        f"        return getattr(self, '{evil}')(x) + 1  # {evil}\n"
    )
    page = tmp_path / "page.html"
    source = f"{tmp_path}/evil.py:Evil"
    assert run(capsys, "explain", source, "--input", "2x3", "-o", str(page))[0] == 0
    assert evil not in page.read_text() and "alert(1)" in page.read_text()


def test_a_damaged_file_is_an_error_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("damaged.pt", "damaged.pt2", "damaged.mlir", "damaged.ltc", "damaged.ts", "damaged.onnx"):
        path = tmp_path / name
        path.write_text("nonsense\n")
        code, _, err = run(capsys, "import", str(path))
        assert code == 2 and name in err and "Traceback" not in err, name


def test_a_script_has_one_frontend(capsys: pytest.CaptureFixture[str], script: str) -> None:
    code, _, err = run(capsys, "import", "--via", "lazy", "--input", "4x5", script)
    assert code == 2 and "possible: torchscript" in err


def test_a_wrong_command_line_ends_with_2() -> None:
    done = subprocess.run([sys.executable, "-m", "torch_tvm.tools.cli", "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice" in done.stderr


@pytest.mark.parametrize(
    ("text", "shape", "unknown", "dtype"),
    [
        ("2x3", (2, 3), (), torch.float32),
        ("?x3x?:bfloat16", (2, 3, 2), (0, 2), torch.bfloat16),
        ("3x?64x?12", (3, 64, 12), (1, 2), torch.float32),
        ("7:i64", (7,), (), torch.int64),
        ("f64", (), (), torch.float64),
        ("1x2:bool", (1, 2), (), torch.bool),
    ],
)
def test_specs_of_inputs(text: str, shape: tuple[int, ...], unknown: tuple[int, ...], dtype: torch.dtype) -> None:
    assert parse_spec(text) == (TensorSpec(shape, dtype), unknown)


@pytest.mark.parametrize("text", ["2x", "2x3:f33", "", "ax2", "??x2", "?:?", "?1x3", "?0"])
def test_bad_specs(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        parse_spec(text)


def test_a_file_is_compiled_run_and_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path, script: str) -> None:
    file, given, results = (str(tmp_path / name) for name in ("model.ttvm", "x.npy", "y.npz"))
    code, printed, _ = run(capsys, "compile", script, "--input", "2x3", "-o", file)
    assert code == 0 and "0 ops in PyTorch" in printed
    assert run(capsys, "run", file, "--check")[:2] == (0, "agrees with what was saved\n")
    x = torch.randn(2, 3)
    numpy.save(given, x.numpy())
    code, printed, _ = run(capsys, "run", file, "--input", given, "-o", results)
    assert code == 0 and "result 0: [2, " in printed
    with numpy.load(results) as arrays, torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(arrays["result0"]), torch.jit.load(script)(x))
    library = str(tmp_path / "model.so")
    assert run(capsys, "compile", script, "--input", "2x3", "--linker", "cc", "-o", library)[0] == 0
    assert {path.name for path in tmp_path.glob("model.*")} == {
        "model.h",
        "model.params",
        "model.so",
        "model.ttvm",
    }
    for arguments, message in (
        (["run", file, "--input", str(tmp_path / "none.npy")], "cannot read"),
        (["run", file, "--input", file], "give a .npz, .npy or .pt file"),
        (["run", str(tmp_path / "none.ttvm")], "cannot read"),
        (["run", file, "--input", given, "--input", given], "takes 1 tensors, 2 are given"),
        (["run", script, "--input", "2x3", "--check"], "is for .ttvm files"),
        (["compile", script, "--input", "2x3", "--targets", "x86-64-v3"], "--targets: it is for .ttvm files"),
        (["compile", script, "--input", "2x3", "--originals", "-o", "m.so"], "--originals: it is for .ttvm"),
    ):
        code, _, error = run(capsys, *arguments)
        assert code == 2 and message in error and "Traceback" not in error


def test_a_program_that_draws_numbers_is_compared_with_the_same_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "draws.py").write_text("import torch\n\ndef f(x):\n    return torch.rand_like(x) + x.float()\n")
    model, file = str(tmp_path / "draws.py:f"), str(tmp_path / "draws.ttvm")
    assert run(capsys, "run", model, "--input", "2x3")[1].endswith("agrees with eager PyTorch\n")
    assert run(capsys, "compile", model, "--input", "2x3", "-o", file)[0] == 0
    assert run(capsys, "run", file, "--check")[:2] == (0, "agrees with what was saved\n")
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)  # other numbers are noticed
    assert run(capsys, "run", model, "--input", "2x3")[0] == 1


NETS = """import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, image, scale):
        return torch.relu(self.conv(image)) * scale

class Broken(torch.nn.Module):
    def __init__(self):
        raise ValueError("no")

def product(x, y):
    return x @ y

def pooled(x):
    return torch.nn.functional.max_pool2d(x, 5)
"""


@pytest.mark.parametrize("via", ["fx", "torchscript"])
def test_unknown_sizes(capsys: pytest.CaptureFixture[str], tmp_path: Path, exported: str, via: str) -> None:
    nets, file = str(tmp_path / "nets.py"), str(tmp_path / "model.ttvm")
    Path(nets).write_text(NETS)
    given = ["--input", "?x3:float32", "--input", "3x4"]
    chosen = ["--via", via, "--option", "accuracy=strict"]
    assert run(capsys, "compile", f"{nets}:product", *given, *chosen, "-o", file)[0] == 0
    for rows in (1, 7):
        code, printed, _ = run(capsys, "run", file, "--input", f"{rows}x3", "--input", "3x4")
        assert code == 0 and f"result 0: [{rows}, 4] float32" in printed
    for option in (["--via", "fx"], ["--option", "accuracy=fast"], ["--target", "llvm"], ["--no-fallback"]):
        for command in ("run", "explain"):
            code, _, error = run(capsys, command, file, *option)
            assert code == 2 and f"error: {option[0]}: {file} is compiled" in error
    for refused in ([f"{nets}:product", *given, "--via", "lazy"], [exported, "--input", "?x3"]):
        code, _, error = run(capsys, "import", *refused)
        assert code == 2 and "error: --input: " in error and "Traceback" not in error


def test_unknown_sizes_that_cannot_be_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nets = tmp_path / "nets.py"
    nets.write_text(NETS)
    code, printed, _ = run(capsys, "import", f"{nets}:pooled", "--input", "1x3x?20x?30")
    assert code == 0 and "!torch.vtensor<[1,3,?,?],f32>" in printed


def test_a_class_and_a_function_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, results = str(tmp_path / "nets.py"), str(tmp_path / "y.pt")
    Path(file).write_text(NETS)
    given = ["--input", "scale:4x1x1", "--input", "image:1x3x6x6:f32"]
    code, printed, _ = run(capsys, "run", f"{file}:Net", *given, "-o", results)
    assert (code, printed.splitlines()) == (
        0,
        ["result 0: [1, 4, 4, 4] float32", "agrees with eager PyTorch"],
    )
    assert torch.load(results)[0].shape == (1, 4, 4, 4)
    code, printed, _ = run(capsys, "run", f"{file}:product", "--input", "2x3", "--input", "3x4", "--json")
    answer = json.loads(printed)
    assert code == 0 and answer["results"] == ["[2, 4] float32"] and "agrees" in answer["verdict"]
    for arguments, message in (
        ([f"{file}:Broken"], f"{file}:13: Broken() fails: ValueError: no"),
        ([f"{file}:Nobody"], "the file has no class or function 'Nobody'"),
        ([f"{file}:Net"], "'Net' takes image, scale"),
        ([f"{file}:product", "--input", "q:2x3", "--input", "y:3x4"], "no argument 'q'"),
        ([f"{file}:product", "--input", "q:2x3", "--input", "3x4"], "no argument 'q'"),
        ([f"{file}:product", "--input", "99999999999x99999999"], "no tensor can have the shape"),
    ):
        code, _, error = run(capsys, "run", *arguments)
        assert code == 2 and message in error and "Traceback" not in error
    Path(file).write_text("import torch\nx = = 1\n")
    code, _, error = run(capsys, "import", f"{file}:Net")
    assert code == 2 and f"{file}:2: the file cannot be imported: SyntaxError" in error


def test_an_onnx_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import onnx

    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy")
    for op, code in (("Relu", 0), ("NonMaxSuppression", 2)):
        inputs = ["x"] if op == "Relu" else ["x", "x"]
        node = onnx.helper.make_node(op, inputs, ["y"])
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]))
        path = str(tmp_path / f"{op}.onnx")
        onnx.save(model, path)
        found, printed, error = run(capsys, "import", path)
        assert found == code, error
        assert ("torch.aten.relu" in printed) == (op == "Relu") and "Traceback" not in error
    assert run(capsys, "run", str(tmp_path / "Relu.onnx"))[0] == 0


def test_an_onnx_operator_on_a_tensor_of_unknown_rank(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import onnx

    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    x, y = (onnx.helper.make_tensor_value_info(n, float32, shape) for n, shape in (("x", [8]), ("y", ["a", "b"])))
    sizes = onnx.helper.make_tensor_value_info("sizes", int64, ["rank"])
    reshape = onnx.helper.make_node("Reshape", ["x", "sizes"], ["z"])
    turn = onnx.helper.make_node("Transpose", ["z"], ["y"], "turned", perm=[1, 0])
    path = str(tmp_path / "m.onnx")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([reshape, turn], "g", [x, sizes], [y])), path)
    code, _, error = run(capsys, "import", path)
    assert code == 2 and "cannot convert onnx.Transpose at node 'turned'" in error and "fixed sizes" in error


def test_a_model_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "bench", "mlp", "--runs", "2", "--json")
    answer = json.loads(printed)
    assert code == 0 and answer["eager_milliseconds"] > 0 and answer["kernels"][0]["seconds"] > 0


def test_the_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed, _ = run(capsys, "doctor", "--json")
    answer = json.loads(printed)
    assert code == 0 and answer["works"]
    states = {each["topic"]: each["state"] for each in answer["findings"]}
    assert states["a small model"] == states["torch"] == states["target"] == "ok"
    monkeypatch.setattr("torch_tvm.tools.doctor._PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr("torch_tvm.tools.doctor._compile", lambda: iter(()))
    code, printed, _ = run(capsys, "doctor")
    assert code == 1 and "-> pip install no-such-package" in printed


def test_cache(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "key.ttvm").write_bytes(bytes(1 << 20))
    place = tmp_path / "code"
    assert run(capsys, "cache", "info") == (0, f"{place}: 1 entry, 1.0 of 2048 MB\n", "")
    assert run(capsys, "cache", "clear") == (0, f"{place}: deleted 1 entry, 1.0 of 2048 MB\n", "")
    assert run(capsys, "cache", "info")[1].endswith("0 entries, 0.0 of 2048 MB\n")
    monkeypatch.setenv("TORCH_TVM_CACHE", "off")
    assert run(capsys, "cache", "info") == (0, "the cache is off (TORCH_TVM_CACHE)\n", "")
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_TVM_CACHE_SIZE", "x")
    assert run(capsys, "cache", "info")[0] == 2


HOSTILE = """
import torch
class Nothing(torch.nn.Module):
    def forward(self, x):
        return x + 1, None, "a text"
class Ends(torch.nn.Module):
    def forward(self, x):
        raise SystemExit(0)
def two(x, y):
    return x + y
"""


def test_models_that_return_no_tensors_or_end_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hostile.py").write_text(HOSTILE)
    (tmp_path / "ends.py").write_text("raise SystemExit(0)")
    (tmp_path / "broken.pt2").write_bytes(b"PK no archive")
    assert cli.main(["run", f"{tmp_path}/hostile.py:Nothing", "--input", "2:f32"]) == 0
    assert "agrees with eager" in capsys.readouterr().out
    for arguments, message in (
        ([f"{tmp_path}/hostile.py:Ends", "--input", "2:f32"], "ends the process"),
        ([f"{tmp_path}/hostile.py:two", "--input", "2:f32"], "missing a required argument: 'y'"),
        ([f"{tmp_path}/ends.py:Model"], "SystemExit"),
        ([f"{tmp_path}/broken.pt2"], "not an exported program"),
    ):
        assert cli.main(["run", *arguments]) == 2
        shown = capsys.readouterr().err
        assert message in shown and "Traceback" not in shown
