"""The page about coverage says of some operators what their samples say now, and names every op."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from torch_tvm.tools import coverage
from torch_tvm.tools.opinfo.samples import database

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
ADVICE = "python -m torch_tvm.tools.coverage --output docs/coverage.md"


def rows() -> dict[str, str]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `aten.")]
    return {line.split("`")[1]: line for line in lines}


def test_every_op_has_its_row() -> None:
    page = rows()
    assert list(page) == coverage.operators(), ADVICE
    found = {op: line.split("|")[2].strip() for op, line in page.items()}
    assert found == {op: coverage.LETTERS[coverage.by_name(op)] for op in page}, ADVICE


def test_some_rows_are_current() -> None:
    page, known = rows(), {info.aten_name for info in database()}
    sampled = [base for base in coverage.bases(page) if base in known]
    for base in random.Random(2).sample(sampled, 4):
        found = coverage.sampled(base)
        for op in page:
            if op.split(".")[1] == base:
                assert coverage.row(op, found.get(op, {})) == page[op], ADVICE


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage.main(["--filter", "^(relu|nonzero_static)$"]) == 0
    relu = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert relu[:6] == ["| `aten.relu`", "K", "K", "K", "K", "K"]


def test_a_wrong_command_line() -> None:
    for arguments in (["--filter", "^nothing$"], ["--filter", "relu", "--output", "x.md"]):
        with pytest.raises(SystemExit) as ended:
            coverage.main(arguments)
        assert ended.value.code == 2
