"""``torch_tvm.tune``: what is faster and equal is taken, kept and used; nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tvm
from torch_tvm.support.errors import InvalidInput
from torch_tvm.tuning import candidates, session
from torch_tvm.tuning.database import Database
from torch_tvm.tuning.local import LocalTimer
from torch_tvm.tuning.session import Tuning, tune_module
from torch_tvm.tuning.timing import Operand, Outcome, difference

Times = Callable[[str], float]


class PretendTimer:
    """A machine on which kernels take what a test says: ``own`` a second, others by their label."""

    def __init__(self, times: Times, errors: Mapping[str, str] | None = None) -> None:
        self.times, self.errors = times, dict(errors or {})
        self.asked: list[list[str]] = []

    def measure(self, libraries: Mapping[str, bytes], operands: Sequence[Operand], rounds: int) -> dict[str, Outcome]:
        self.asked.append(list(libraries))
        assert all(libraries.values())
        return {
            label: Outcome(error=self.errors[label])
            if label in self.errors
            else Outcome(1.0 if label in ("own", "former") else self.times(label))
            for label in libraries
        }

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def program(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[torch.nn.Module, torch.Tensor, torch_tvm.CompiledModule]:
    torch.manual_seed(1)
    model, x = torch.nn.Linear(24, 32).eval(), torch.randn(9, 24)
    return model, x, torch_tvm.compile(model, (x,), options={"cache": False})


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules are applied and not compiled."""
    for module in (candidates, session):
        monkeypatch.setattr(module, "build", lambda func, target: b"code")


def tuned(program: tuple, folder: Path, times: Times, *, trials: int = 6, **how: Any) -> Tuning:
    compiled = program[2]
    timer = how.pop("timer", None) or PretendTimer(times)
    target = torch_tvm.targets.resolve_target("auto")
    return tune_module(
        compiled.relax_module, target, Database(folder, is_new=True), trials=trials, timers=[timer], **how
    )


def is_searched(label: str) -> bool:
    return label.startswith("meta_schedule")


@pytest.mark.usefixtures("unbuilt")
def test_a_faster_schedule_is_kept_and_used(program: tuple, tmp_path: Path) -> None:
    model, x, _ = program
    found = tuned(program, tmp_path, lambda label: 0.5 if is_searched(label) else 2.0)
    (task,) = found.tasks
    assert is_searched(task.record.choice) and task.seconds == 0.5 and found.trials == 6
    compiled = torch_tvm.compile(model, (x,), options={"database": tmp_path, "cache": False}, fallback=False)
    (used,) = compiled.report.measured
    assert used.choice == task.record.choice and used.is_stored
    assert "stored, chose meta_schedule" in str(compiled.report)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.usefixtures("unbuilt")
def test_a_tile_of_our_rule_is_kept_and_used(program: tuple, tmp_path: Path) -> None:
    model, x, plain = program
    found = tuned(program, tmp_path, lambda label: 2.0 if is_searched(label) else 0.5)
    (task,) = found.tasks
    assert not is_searched(task.record.choice) and task.record.trace is None
    compiled = torch_tvm.compile(model, (x,), options={"database": str(tmp_path), "cache": False})
    assert compiled.tir_module[task.name].script() != plain.tir_module[task.name].script()
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.usefixtures("unbuilt")
def test_no_slower_one_takes_the_place_of_our_own(program: tuple, tmp_path: Path) -> None:
    model, x, plain = program
    found = tuned(program, tmp_path, lambda label: 0.98)
    assert found.tasks[0].record.choice == "" and found.tasks[0].seconds == 1.0
    compiled = torch_tvm.compile(model, (x,), options={"database": tmp_path, "cache": False})
    assert compiled.report.measured == []
    assert compiled.tir_module.script() == plain.tir_module.script()


@pytest.mark.usefixtures("unbuilt")
def test_what_seemed_faster_once_must_be_so_again(program: tuple, tmp_path: Path) -> None:
    class Lucky(PretendTimer):
        def measure(self, libraries, operands, rounds):
            self.times = lambda label: 0.5 if rounds == session.ROUNDS else 1.0
            return super().measure(libraries, operands, rounds)

    found = tuned(program, tmp_path, lambda label: 1.0, timer=Lucky(lambda label: 1.0))
    assert found.tasks[0].record.choice == ""


@pytest.mark.usefixtures("unbuilt")
def test_wrong_numbers_are_out(program: tuple, tmp_path: Path) -> None:
    class Wrong(PretendTimer):
        def measure(self, libraries, operands, rounds):
            self.errors = {label: "argument 3 differs" for label in libraries if label != "own"}
            return super().measure(libraries, operands, rounds)

    found = tuned(program, tmp_path, lambda label: 0.1, timer=Wrong(lambda label: 0.1))
    assert found.tasks[0].record.choice == ""
    assert set(found.tasks[0].record.tried.values()) == {None}


@pytest.mark.usefixtures("unbuilt")
def test_a_run_that_was_stopped_goes_on(program: tuple, tmp_path: Path) -> None:
    def stop(_: Tuning) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(program, tmp_path, lambda label: 1.0, trials=12, show=stop)
    (file,) = tmp_path.glob("*.json")
    first = json.loads(file.read_text())["tried"]
    assert len(first) == session.BATCH
    timer = PretendTimer(lambda label: 1.0)
    found = tuned(program, tmp_path, lambda label: 1.0, trials=12, timer=timer)
    assert found.trials == 12
    asked = [label for labels in timer.asked for label in labels if label != "own"]
    assert len(asked) == 4 and not set(asked) & set(first)
    again = PretendTimer(lambda label: 1.0)
    tuned(program, tmp_path, lambda label: 1.0, trials=12, timer=again)
    assert again.asked == []


@pytest.mark.usefixtures("unbuilt")
def test_a_record_against_another_schedule_of_ours_is_not_used(program: tuple, tmp_path: Path) -> None:
    model, x, plain = program
    tuned(program, tmp_path, lambda label: 0.5)
    (file,) = tmp_path.glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "own": "0" * 64}))
    compiled = torch_tvm.compile(model, (x,), options={"database": tmp_path, "cache": False})
    assert compiled.tir_module.script() == plain.tir_module.script()


def test_this_machine_measures(program: tuple, tmp_path: Path) -> None:
    """For real: nothing wrong passes, a kernel that crashes is an error, and the process goes on."""
    model, x, _ = program
    shown: list[str] = []
    found = torch_tvm.tune(model, (x,), database=tmp_path, trials=6, show=lambda tuning: shown.append(str(tuning)))
    (task,) = found.tasks
    assert found.trials == 6 and len(shown) == 1
    assert sum(ratio is not None for ratio in task.record.tried.values()) >= 4
    assert task.seconds <= task.own_seconds and ":" in task.line
    assert "GFLOP/s" in shown[0] and task.name in shown[0]
    timer = LocalTimer()
    try:
        outcome = timer.measure({"own": task.own, "damaged": b"no library"}, task.operands, 1)
        assert outcome["own"].seconds > 0 or outcome["damaged"].error
        assert outcome["damaged"].error
    finally:
        timer.close()


def test_messages_of_the_timing_process_that_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second was in a buffer, and its kernel seemed not to end."""
    answers = '{"trying": "own"}\\n{"found": {"own": [0.5, ""]}}\\n'
    process = tmp_path / "process"
    process.write_text(f"#!/bin/sh\necho '{{\"ready\": true}}'; read job; printf '{answers}'; sleep 60\n")
    process.chmod(0o700)
    monkeypatch.setattr("torch_tvm.tuning.local.sys.executable", str(process))
    monkeypatch.setattr("torch_tvm.tuning.local.SECONDS", 2.0)
    timer = LocalTimer()
    try:
        assert timer.measure({"own": b""}, [], 1)["own"].seconds == 0.5
    finally:
        timer.close()


@pytest.mark.usefixtures("unbuilt")
def test_kept_code_depends_on_the_records(program: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = program
    monkeypatch.setenv("TORCH_TVM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tuned"
    folder.mkdir()
    of = lambda: torch_tvm.compile(model, (x,), options={"database": folder}).report
    of()
    assert of().is_cached
    tuned(program, folder, lambda label: 0.5)
    assert not of().is_cached
    report = of()
    assert report.is_cached


@pytest.mark.usefixtures("unbuilt")
def test_trials_of_a_compile(program: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, x, _ = program
    timer = PretendTimer(lambda label: 0.5)
    monkeypatch.setattr(session, "LocalTimer", lambda: timer)
    compiled = torch_tvm.compile(model, (x,), options={"scheduler": "meta_schedule", "trials": 4})
    assert len(timer.asked) >= 2 and len(compiled.report.measured) == 1
    torch.testing.assert_close(compiled(x), model(x))


def test_results_that_differ() -> None:
    one = torch.tensor([1.0, float("nan"), 2.0])
    assert difference([one], [one]) == ""
    assert "differs by" in difference([one + 0.01], [one])
    assert difference([torch.ones(2, dtype=torch.int64)], [torch.zeros(2, dtype=torch.int64)])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"trials": -1}, "expected a number from 0 on, got -1"),
        ({"seconds": "long"}, "expected a number from 0 on, got 'long'"),
        ({"options": {"measure": True}}, "tune has 'measure' by itself"),
        ({"database": ""}, "expected the path of a folder"),
        ({"database": "/dev/null/x"}, "cannot make the folder"),
        (
            {"target": {"kind": "llvm", "mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}},
            "cannot be timed",
        ),
    ],
)
def test_wrong_arguments(how: dict, message: str, tmp_path: Path) -> None:
    arguments = {"database": tmp_path, **how}
    with pytest.raises(InvalidInput, match=message):
        torch_tvm.tune(torch.nn.ReLU(), (torch.ones(4),), **arguments)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": 99}', '{"format": 1}', "[" * 100_000, '{"format": 1, "kernel": 3}'],
)
def test_damaged_records(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    for use in (
        lambda: torch_tvm.compile(torch.nn.ReLU(), (torch.ones(4),), options={"database": tmp_path}),
        lambda: torch_tvm.tune(torch.nn.ReLU(), (torch.ones(4),), database=tmp_path),
    ):
        with pytest.raises(InvalidInput, match="is no record of tuning"):
            use()


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    "trace",
    [
        [],
        [[]],
        [["x"], []],
        [[["UnsafeSetDType", ["b0"], ["x"], []]], []],
        [[["GetSBlock", [], ["nowhere", "main"], ["b0"]]], []],
        [[["Annotate", ["b0", 1], ["pragma_import_llvm"], []]], []],
        [[["Split", ["l9", 1 << 70], [1, 1], ["l1"]]], []],
    ],
)
def test_hostile_schedules(trace: list, program: tuple, tmp_path: Path) -> None:
    model, x, _ = program
    tuned(program, tmp_path, lambda label: 0.5 if is_searched(label) else 2.0)
    (file,) = tmp_path.glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "trace": trace}))
    with pytest.raises(InvalidInput, match="does not fit its kernel"):
        torch_tvm.compile(model, (x,), options={"database": tmp_path, "cache": False})


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no folder"):
        torch_tvm.compile(torch.nn.ReLU(), (torch.ones(4),), options={"database": tmp_path / "none"})
