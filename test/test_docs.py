"""The documentation builds as a site, and every page of it is linked and has no dead link."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in tmp_path.glob("*.html")} >= pages
    assert "torch_tvm.debug.lockstep" in (tmp_path / "api.html").read_text()


GUIDES = [
    *"quick_start importers dynamic_shapes state training quantized custom_ops tuning deploying".split(),
    *"adding_an_op adding_a_pass adding_a_transform adding_a_schedule_rule adding_a_target".split(),
]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("guide", GUIDES)
def test_all_code_of_a_guide_runs(guide: str, tmp_path: Path) -> None:
    """From a file, as the importers name lines of it; what a ``text`` block after it says is printed.

    A block that begins with the name of a file of ours is a part of that file.
    """
    text = (ROOT / "docs" / f"{guide}.md").read_text()
    blocks = _BLOCK.findall(text)
    quotes = [block for block in blocks if block.startswith(("# lib/", "# test/"))]
    for quote in quotes:
        name, _, part = quote.removeprefix("# ").partition("\n")
        assert part.strip() in (ROOT / name).read_text(), f"{name} has no longer: {part}"
    (tmp_path / "guide.py").write_text("\n".join(block for block in blocks if block not in quotes))
    command = [sys.executable, "guide.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for shown in re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        assert shown.strip() in done.stdout


def test_links_between_files_are_alive() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").glob("*.md"),
    ]
    for page in pages:
        for link in _LINK.findall(page.read_text()):
            path = link.partition("#")[0]
            if path and "://" not in path:
                assert (page.parent / path).exists(), f"{page.name}: {link}"
