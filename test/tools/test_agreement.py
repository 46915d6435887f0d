"""The table of ``docs/torch_compile.md`` has a row for each of its models, and says of some what they do now."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_some_rows_are_current(name: str) -> None:
    assert agreement.row(name) == rows()[name], ADVICE


def test_a_page_without_marks_and_a_wrong_command_line() -> None:
    with pytest.raises(ValueError, match="no marks"):
        agreement.written("# Page", [])
    for arguments in (["--filter", "^nothing$"], ["--filter", "mlp", "--page", "x.md"]):
        with pytest.raises(SystemExit) as ended:
            agreement.main(arguments)
        assert ended.value.code == 2
