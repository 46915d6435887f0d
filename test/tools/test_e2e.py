"""The end-to-end script: what it says of programs that agree, differ, crash or hang, and what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from torch_tvm.runtime.opencl.devices import why_no_device
from torch_tvm.support.errors import InternalError, InvalidInput
from torch_tvm.tools.e2e import Case, Program, command, main
from torch_tvm.tools.e2e.case import CASES, case

ROOT = Path(__file__).parents[2]


def raises(error: Exception) -> Case:
    def run(frontend: str, fallback: bool) -> tuple[str, str]:
        raise error

    return Case(type(error).__name__.lower(), None, run=run)


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def scaled() -> Program:
    return Program(Scaled(), [(torch.ones(3),)])


def wrong_numbers() -> Program:
    def compare(results: object, args: object) -> None:
        raise AssertionError("2.0 for 3.0")

    return Program(Scaled(), [(torch.ones(3),)], compare=compare)


def dies(frontend: str, fallback: bool) -> tuple[str, str]:
    print("about to die")
    os._exit(3)


def hangs(frontend: str, fallback: bool) -> tuple[str, str]:
    time.sleep(600)
    return "pass", ""


FOUND = [
    (Case("good", scaled), "pass", 0),
    (Case("wrong", wrong_numbers), "wrong", 1),
    (Case("dies", None, run=dies), "crash", 1),
    (Case("hangs", None, run=hangs), "hang", 1),
    (raises(InternalError("broken")), "internal", 1),
    (raises(KeyError("x")), "error", 1),
    (raises(InvalidInput("no")), "refused", 1),
    (Case("expected", None, refused={"fx": "known"}, run=raises(InvalidInput("no")).run), "xfail", 0),
    (Case("better", scaled, refused={"fx": "known"}), "xpass", 1),
]


def test_every_verdict_and_what_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "all_cases", lambda suites, seed: [each for each, _, _ in FOUND])
    files = tmp_path / "found.json", tmp_path / "found.xml"
    arguments = ["--frontend", "fx", "--timeout", "30", "--jobs", "3", "--verbose"]
    assert main([*arguments, "--json", str(files[0]), "--junit", str(files[1])]) == 1
    shown = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(files[0].read_text())["cases"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {each.name: v for each, v, _ in FOUND}
    assert rows["dies"]["reason"] == "the process ended with exit code 3: about to die"
    assert "torch.aten.mul.Scalar" in shown, "the IR of a case that fails"
    alone = "torch-tvm-e2e --suite ours --filter '^wrong$' --frontend fx --config compiled --verbose"
    assert rows["wrong"]["command"] == alone and f"alone: {alone}" in shown
    failed = [case.name for case, _, code in FOUND if code]
    assert f"{len(failed)} failed; each alone:" in shown and "Traceback" not in shown
    suite = ElementTree.fromstring(files[1].read_bytes())[0]
    assert suite.attrib["tests"] == str(len(FOUND)) and suite.attrib["failures"] == str(len(failed))
    assert {item.attrib["name"] for item in suite if item.find("failure") is not None} == set(failed)


@pytest.mark.parametrize("config", ["compiled", "interpreter", "opencl"])
def test_every_frontend_and_configuration(config: str) -> None:
    """In a process of its own: what an OpenCL driver has started does not survive the forks of one that used it."""
    command = [
        sys.executable,
        "-m",
        "torch_tvm.tools.e2e",
        "--filter",
        "^CountsItsCalls$",
        "--config",
        config,
    ]
    done = subprocess.run([*command, "--jobs", "1"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    columns = [line.split() for line in done.stdout.splitlines()][:5]
    assert [row[1] for row in columns[1:]] == ["fx", "torchscript", "lazy", "dynamo"]
    runs = 0 if config == "opencl" and why_no_device() else 4 - (config == "interpreter")
    assert sum(int(row[4]) for row in columns[1:]) == runs


def test_there_are_cases_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert len(names) >= 600 and len(set(names)) == len(names)
    assert {"conv2d", "conv2d[n]", "Conv2dModule", "a_loop_until_a_value", "promotion-f16-f32", "lstm-1"} <= {*names}
    assert main(["--suite", "models,opinfo", "--list", "--filter", "resnet18|^add$"]) == 0
    assert "resnet18-dynamic fx dynamo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frontend", "jax"], "--frontend: unknown 'jax'"),
        (["--config", "fast"], "--config: unknown 'fast'"),
        (["--suite", ","], "--suite: nothing is named"),
        (["--filter", "("], "'(' is no regular expression"),
        (["--filter", "^nothing at all$"], "no case matches"),
        (["--jobs", "-1"], "--jobs: expected a positive number"),
        (
            ["--json", "/no/such/folder/file"],
            "--json: cannot write '/no/such/folder/file': there is no such folder",
        ),
    ],
)
def test_a_wrong_command_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("error:") == 1 and shown.out == ""


def test_two_cases_of_a_name_are_refused() -> None:
    try:
        case("3", name="twice")(lambda x: x)
        with pytest.raises(ValueError, match="two cases are named 'twice'"):
            case("3", name="twice")(lambda x: x)
    finally:
        CASES.pop("twice", None)


def test_the_script_of_a_checkout() -> None:
    script = str(ROOT / "tools" / "e2e_test.sh")
    done = subprocess.run([script, "--filter", "Conv2d", "--list"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0 and "Conv2dModule fx torchscript lazy dynamo" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeout", "nan"], "a number from 0 on"),
        (["--timeout", "0"], "expected a positive number"),
        (["--seed", str(1 << 70)], "a whole number of 64 bits"),
        (["--json", "/no/such/folder/x.json"], "there is no such folder"),
        (["--frobnicate"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_ends_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    from torch_tvm.tools.e2e.command import main

    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("torch-tvm-e2e: error: ") and message in error
