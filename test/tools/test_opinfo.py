"""The sweep over PyTorch's operator database: what it says of programs that agree, differ, end or hang."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_tvm.support.errors import InternalError, InvalidInput, UnsupportedOp
from torch_tvm.tools.opinfo import main, sweep
from torch_tvm.tools.opinfo.samples import cases, database, difference


def swept(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["--filter", "^add$", "--samples", "1", *arguments])
    return code, capsys.readouterr().out


def test_operators_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    code, table = swept(capsys, "--json", str(file), "--dtype", "float32,int64")
    assert code == 0 and [line.split() for line in table.splitlines()] == [
        ["via", "dtype", "operators", "agree"],
        ["fx", "float32", "1", "1"],
        ["fx", "int64", "1", "1"],
    ]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["op"], line["dtype"], line["via"]) for line in lines] == [
        ("add", "float32", "fx"),
        ("add", "int64", "fx"),
    ]
    before = file.read_text()
    assert swept(capsys, "--json", str(file), "--dtype", "float32,int64") == (0, table)
    assert file.read_text() == before, "what the file has is not run again"


def raises(error: Exception) -> Callable[..., Any]:
    def compiled(*_: Any) -> Any:
        raise error

    return compiled


@pytest.mark.parametrize(
    ("compiled", "verdict", "code"),
    [
        (lambda program, *_: lambda *tensors: [r + 1 for r in program(*tensors)], "wrong", 1),
        (lambda *_: os._exit(3), "dead", 1),
        (lambda *_: time.sleep(60), "hang", 1),
        (raises(InternalError("broken")), "internal", 1),
        (raises(KeyError("x")), "bare", 1),
        (raises(InvalidInput("no")), "refused", 1),
        (raises(UnsupportedOp("no kernel")), "unsupported", 0),
        (raises(sweep.Uncaptured("no trace")), "uncaptured", 0),
    ],
)
def test_what_is_wrong_is_named(
    compiled: Any,
    verdict: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "_compiled", compiled)
    found, text = swept(capsys, "--timeout", "2")
    assert found == code
    assert text.splitlines()[-2].split() == ["via", "dtype", "operators", verdict]
    assert text.splitlines()[-1].split() == ["fx", "float32", "1", "1"]


def test_small_results_of_a_transform() -> None:
    """A sum of large numbers that cancel has their error."""
    eager, ours = torch.tensor([1e9, 0.0]), torch.tensor([1e9, 8.0])
    assert difference(ours, eager) and not difference(ours, eager, is_transform=True)
    assert difference(ours * 1.1, eager, is_transform=True)
    assert difference(ours * math.nan, eager, is_transform=True)


@pytest.mark.parametrize(
    "arguments", [["--dtype", "float99"], ["--via", "jax"], ["--filter", "("], ["--filter", "^nothing$"]]
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_rounding_of_eager_is_no_fault() -> None:
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    eager, ours = torch.tensor([1.001, 2.0]), torch.tensor([0.9995, 2.0])
    assert difference(ours, eager) and not difference(ours, eager, exact=exact)
    assert difference(torch.tensor([1.001, 2.001]), eager, exact=exact)
    infinite, eager = torch.tensor([math.inf]), torch.tensor([math.nan])
    assert difference(infinite, eager) and not difference(infinite, eager, exact=infinite.double())


def test_memory_by_chance_has_sizes_alone() -> None:
    op = next(op for op in database() if op.full_name == "empty_like")
    for case in cases(op, torch.float32, 0, 3):
        assert not case.function(*case.tensors).any()


def test_transforms_are_given_finite_numbers() -> None:
    op = next(op for op in database() if op.full_name == "fft.fft")
    assert all(tensor.isfinite().all() for case in cases(op, torch.float32, 0, 3) for tensor in case.tensors)
