"""The linter, the formatter and the type checker pass on the whole tree; the stubs hold what the tree uses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from torch_tvm.support.errors import InvalidInput
from torch_tvm.tools import typings

ROOT = Path(__file__).resolve().parent.parent


CHECKS = {
    "lint": ["-m", "ruff", "check", "--quiet", "."],
    "format": ["-m", "ruff", "format", "--check", "--quiet", "."],
    "types": ["-m", "mypy"],
}


@pytest.mark.parametrize("command", CHECKS.values(), ids=CHECKS)
def test_tree_is_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hooks_are_the_same_checks() -> None:
    lines = (ROOT / ".pre-commit-config.yaml").read_text().splitlines()
    hooks = [line.partition(" -m ")[2] for line in lines if line.strip().startswith("entry:")]
    assert hooks == [" ".join(word for word in command[1:] if word[0] not in "-.") for command in CHECKS.values()]


def test_stubs_are_those_of_the_names_in_use(tmp_path: Path) -> None:
    """Names only: what is said of them may differ with the version of a wheel and of Python."""
    typings.write(tmp_path)
    wanted, held = _names_of_stubs(tmp_path), _names_of_stubs(ROOT / "typings")
    assert wanted == held, (
        f"typings/ is out of date, run: python -m torch_tvm.tools.typings; "
        f"missing {sorted(wanted - held)}, unused {sorted(held - wanted)}"
    )


def test_stubs_have_the_types_of_fields() -> None:
    text = (ROOT / "typings/tvm/tirx/__init__.pyi").read_text()
    loop = text[text.index("class For(Stmt):") :]
    assert "    loop_var: tvm.ir.Var\n" in loop and "    thread_binding: IterVar | None\n" in loop
    assert "    annotations: collections.abc.Mapping[str, Any]\n" in loop


def _names_of_stubs(folder: Path) -> set[str]:
    """The dotted names that the stubs in a folder define."""
    found: set[str] = set()
    for path in folder.rglob("*.pyi"):
        module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.add(f"{module}.{node.name}")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(f"{module}.{node.target.id}")
    return found


def test_stubs_need_a_folder_that_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InvalidInput, match="cannot write"):
        typings.write(file)
    assert typings.main([str(file)]) == 2
    assert f"cannot write '{file}" in capsys.readouterr().err


def test_stubs_need_the_sources(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no sources"):
        typings.write(tmp_path, root=tmp_path)
