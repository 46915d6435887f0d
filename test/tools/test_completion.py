"""Completion in shells: what they offer for a line that is half typed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from torch_tvm.tools.cli import main

pytest.importorskip("shtab")

OFFER = """
source {file}
COMP_WORDS=({words} "") COMP_CWORD={count}
[ -n "{last}" ] && COMP_WORDS[{count}]="{last}"
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "bash"
    import contextlib

    with path.open("w") as file, contextlib.redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ("torch-tvm", "co", {"compile", "completion"}),
        ("torch-tvm tune resnet18", "--tri", {"--trials"}),
        ("torch-tvm cache", "", {"info", "clear"}),
        ("torch-tvm-opt", "--relax", {"--relax-to-tir"}),
        ("torch-tvm-opt", "--fold-con", {"--fold-constants"}),
        ("torch-tvm-e2e", "--front", {"--frontend"}),
    ],
)
def test_bash_completes(completion: Path, words: str, last: str, expected: set[str]) -> None:
    listed = subprocess.run(
        ["bash", "-c", f"source {completion}; complete -p {words.split()[0]}"], capture_output=True, text=True
    )
    function = listed.stdout.split("-F ")[1].split()[0]
    line = OFFER.format(file=completion, words=words, last=last, count=len(words.split()), function=function)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert expected <= set(done.stdout.split()), done.stdout + done.stderr


def test_zsh_has_a_function_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    out = capsys.readouterr().out
    assert all(f"#compdef {name}" in out for name in ("torch-tvm", "torch-tvm-opt", "torch-tvm-e2e"))


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "invalid choice: 'fish'" in capsys.readouterr().err
