"""The benchmark against other runtimes: its processes, its table, its plot and its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torch_tvm.support.errors import ImportFailed
from torch_tvm.tools.bench import main
from torch_tvm.tools.bench.imports import STEPS, imports_markdown, time_imports
from torch_tvm.tools.bench.measure import Comparison, Outcome, float64_results
from torch_tvm.tools.bench.options import Options
from torch_tvm.tools.bench.plot import plot
from torch_tvm.tools.bench.process import Ready, Request, RuntimeFailed, Worker, error_of
from torch_tvm.tools.bench.runtimes import RUNTIMES
from torch_tvm.tools.bench.table import geometric_mean, markdown
from torch_tvm.tools.cli import main as cli

OPTIONS = Options(threads=1)
TIMEOUT = 300.0


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each Markdown table of a text, by column."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")])
        inside = line.startswith("|")
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in found]


def test_ours_beside_eager_and_a_peer_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(RUNTIMES, "openvino", replace(RUNTIMES["openvino"], packages=("no_such_package",)))
    path = tmp_path / "table.md"
    arguments = ["--models", "mlp", "--peers", "eager,openvino", "--quick", "--threads", "1"]
    assert main([*arguments, "--output", str(path)]) == 0
    text = capsys.readouterr().out
    assert path.read_text() == text
    times, compilation = tables(text)
    model, mean = times
    assert model["model"] == "mlp" and model["best peer"] == "eager"
    ratio = float(model["eager"]) / float(model["torch-tvm"])
    assert float(model["ratio"]) == pytest.approx(ratio, rel=0.02)
    assert model["OpenVINO"] == "no_such_package is not installed: pip install '.[bench]'"
    assert mean["model"] == "geometric mean" and mean["ratio"] == model["ratio"]
    seconds, rmse = compilation[0]["torch-tvm"].split(" s, ")
    assert float(seconds) > 0 and 0 < float(rmse) < 1e-6
    assert compilation[0]["OpenVINO"] == "–"


def test_steps_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    """Gradients are what is compared; runtimes that do not train are refused."""
    arguments = ["--training", "--models", "lenet", "--quick", "--threads", "1"]
    assert main([*arguments, "--peers", "eager", "--batch", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Milliseconds of a step of training")
    _, compilation = tables(text)
    errors = [float(compilation[0][name].split(" s, ")[1]) for name in ("torch-tvm", "eager")]
    assert 0 < errors[0] <= 3 * errors[1] + 1e-5
    assert main([*arguments, "--peers", "openvino"]) == 2
    assert "'openvino' does not train" in capsys.readouterr().err


def request(folder: Path, runtime: str) -> Request:
    reference = folder / "reference.pt"
    torch.save(float64_results("mlp", 1), reference)
    return Request(runtime, "mlp", 1, OPTIONS, str(reference))


def test_a_runtime_that_raises_gives_its_reason(tmp_path: Path) -> None:
    worker = Worker(request(tmp_path, "nobody"), str(tmp_path), TIMEOUT)
    with pytest.raises(RuntimeFailed, match="KeyError: 'nobody'"):
        worker.start()


def test_a_process_that_dies_is_noticed(tmp_path: Path) -> None:
    worker = Worker(request(tmp_path, "eager"), str(tmp_path), TIMEOUT)
    worker.start()
    assert len(worker.time(4)) == 4
    worker._process.kill()
    worker._process.join()
    with pytest.raises(RuntimeFailed, match=r"its process ended \(signal SIGKILL\)"):
        worker.time(1)
    worker.stop()


def test_a_runtime_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    worker = Worker(request(tmp_path, "eager"), str(tmp_path), timeout=0.001)
    with pytest.raises(RuntimeFailed, match="no answer in"):
        worker.start()
    worker.stop()
    assert not worker._process.is_alive()


def outcome(runtime: str, milliseconds: float, rmse: float = 1e-7) -> Outcome:
    return Outcome(runtime, Ready(1.5, 0.1, rmse), (milliseconds / 1e3,) * 3)


FAILED = Outcome("onnxruntime", failure="RuntimeError: a | b " + "long " * 40)
COMPARISONS = [
    Comparison("one", (outcome("ours", 2.0), outcome("eager", 8.0), FAILED)),
    Comparison("two", (outcome("ours", 5.0, 1e-3), outcome("eager", 10.0), outcome("onnxruntime", 15.0))),
    Comparison("three", (Outcome("ours", failure="InternalError: x"), outcome("eager", 10.0), FAILED)),
]


def test_ratios_are_to_the_best_peer_that_ran() -> None:
    rows = tables(markdown(COMPARISONS, OPTIONS, 1))[0]
    assert [row["ratio"] for row in rows] == ["4.00", "2.00", "–", "2.83"]
    assert rows[0]["torch-tvm"] == "2" and rows[0]["best peer"] == "eager"
    assert rows[2]["torch-tvm"] == "InternalError: x"


def test_a_long_reason_is_cut_and_keeps_the_table_whole() -> None:
    reason = tables(markdown(COMPARISONS, OPTIONS, 1))[0][0]["ONNX Runtime"]
    assert reason.startswith("RuntimeError: a / b long") and reason.endswith("…") and len(reason) <= 90


def test_an_error_that_breaks_the_rule_is_marked() -> None:
    rows = tables(markdown(COMPARISONS, OPTIONS, 1))[1]
    assert rows[0]["torch-tvm"] == "1.50 s, 1.0e-07"
    assert rows[1]["torch-tvm"] == "1.50 s, 1.0e-03 **too large**"


def test_the_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_the_plot_names_models_and_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "speeds.svg"
    plot(COMPARISONS, path)
    text = path.read_text()
    assert all(name in text for name in ("one", "two", "three", "torch-tvm", "ONNX Runtime"))


def test_errors_need_results_of_the_same_shapes() -> None:
    assert error_of([torch.ones(2)], [torch.zeros(2).double()]) == 1.0
    with pytest.raises(ValueError, match=r"result 0 has shape \(3,\), eager's has \(2,\)"):
        error_of([torch.ones(3)], [torch.zeros(2)])
    with pytest.raises(ValueError, match="1 results, eager gives 2"):
        error_of([torch.ones(3)], [torch.ones(3)] * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "eager,onnx"], "--peers: unknown runtime 'onnx'"),
        (["--models", "no_such_model"], "--models: no model matches 'no_such_model'"),
        (["--models", "("], "--models: '(' is no regular expression"),
        (["--models", "mlp", "--plot", "speeds.txt"], "--plot: cannot draw '.txt'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_kernels_are_timed_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--models", "mlp", "--kernels", "--threads", "1"]) == 0
    (rows,) = tables(capsys.readouterr().out)
    assert [row["rule"] for row in rows] == ["matmul"] * 3
    assert all(float(row["µs"]) > 0 and float(row["GFLOP/s"]) > 0 for row in rows)


def test_imports_are_timed_by_frontend(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "imports.md"
    arguments = [
        "bench",
        "--imports",
        "--suite",
        "small",
        "--models",
        "mlp|elementwise_chain_small",
        "--rounds",
        "1",
    ]
    assert cli([*arguments, "--threads", "1", "--output", str(path)]) == 0
    text = capsys.readouterr().out
    assert path.read_text() == text
    (rows,) = tables(text)
    assert {row["model"] for row in rows} == {"mlp", "elementwise_chain_small"}
    assert all(float(row[step]) > 0 for row in rows for step in STEPS)


def test_a_road_that_fails_has_its_reason_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise ImportFailed("no lazy kernel")

    monkeypatch.setattr("torch_tvm.tools.bench.imports.import_lazy", refuse)
    (row,) = tables(imports_markdown([time_imports("mlp", 1, 1)], 1, 1))[0]
    assert row["lazy"] == row["canonical: lazy"] == "no lazy kernel" and float(row["fx"]) > 0


def test_the_benchmark_is_a_command_with_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli(["bench", "--help"])
    assert ended.value.code == 0 and "--suite" in capsys.readouterr().out
    quick = ["bench", "--suite", "small", "--models", "mlp", "--quick", "--threads", "1", "--peers", "eager"]
    assert cli(quick) == 0
    assert tables(capsys.readouterr().out)[0][0]["model"] == "mlp"
    assert cli(["bench", "--models", "no_such_model"]) == 2
