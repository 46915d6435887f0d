"""Textual IR through ``torch-tvm-opt``: each file says in ``// RUN:`` lines how it is run and checked.

``// RUN: torch-tvm-opt %s --cse | filecheck %s``; with ``not`` in front the tool must fail, and its standard
error is what is checked.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from torch_tvm.passes import base as passes
from torch_tvm.tools import opt
from torch_tvm.transforms import base as transforms

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.mlir"))


def run_lines(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line.partition("RUN:")[2].strip() for line in lines if line.startswith("// RUN:")]


def test_every_pass_and_every_transform_has_a_golden_text() -> None:
    lines = [line for path in FILES for line in run_lines(path)]
    words = {word for line in lines for word in re.findall(r"--([\w-]+)", line)}
    assert {*passes.registry(), *transforms.registry()} <= words
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("transforms/*.mlir")}
    assert files == set(transforms.registry())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = run_lines(path)
    assert lines, f"{path.name} has no RUN line"
    for line in lines:
        run_line(line, path, capfd)


def run_line(line: str, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tool, check = (shlex.split(part.replace("%s", str(path))) for part in line.split(" | "))
    fails = tool[0] == "not"
    assert tool[fails] == "torch-tvm-opt" and check[0] == "filecheck", line
    capfd.readouterr()
    code = opt.run(tool[fails + 1 :])
    out, err = capfd.readouterr()
    assert code == (2 if fails else 0), f"{line}: exit code {code}\n{err}"
    done = subprocess.run(
        [sys.executable, "-m", "filecheck", *check[1:]],
        input=err if fails else out,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n--- checked text ---\n{err if fails else out}"


def test_a_check_that_does_not_hold_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.mlir"
    path.write_text("func.func @main() {\n  return\n}\n// CHECK: not there\n")
    with pytest.raises(AssertionError, match="not there"):
        run_line("torch-tvm-opt %s | filecheck %s", path, capfd)
