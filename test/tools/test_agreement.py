"""The table of ``docs/torch_compile.md`` has a row for each of its models, and says of some what they do now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from torch_tvm.tools import agreement

PAGE = Path(__file__).parents[2] / "docs" / "torch_compile.md"
ADVICE = "python -m torch_tvm.tools.agreement --page docs/torch_compile.md"


def rows() -> dict[str, str]:
    lines = PAGE.read_text().split("<!-- begin of the table -->")[1].splitlines()
    return {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}


def test_every_model_has_its_row_and_agrees() -> None:
    """In training but for two, whose gradients are less exact than eager's."""
    page = rows()
    assert list(page)[1:] == agreement.models(), ADVICE
    assert [name for name, line in page.items() if "**" in line] == ["resnet50_small", "mobilenet_v2_small"]


def test_some_rows_are_current() -> None:
    """In a process that has done nothing else, as the page is written."""
    command = [sys.executable, "-m", "torch_tvm.tools.agreement", "--filter", "^(mlp|lenet)$"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [rows()["mlp"], rows()["lenet"]], ADVICE


def test_a_page_without_marks_and_a_wrong_command_line() -> None:
    with pytest.raises(ValueError, match="no marks"):
        agreement.written("# Page", [])
    for arguments in (["--filter", "^nothing$"], ["--filter", "mlp", "--page", "x.md"]):
        with pytest.raises(SystemExit) as ended:
            agreement.main(arguments)
        assert ended.value.code == 2
