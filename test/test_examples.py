"""Every public function's example runs, and so do the example scripts."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


MODULES = [
    *"custom dialect.types importing entry loading jit lazy tune_program".split(),
    *"debug.lockstep debug.minimize reporting.dry_run reporting.report".split(),
]


@pytest.mark.parametrize("module", [f"torch_tvm.{name}" for name in MODULES])
def test_docstring_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0, f"{module} has no example"
    assert result.failed == 0


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_scripts_run(script: str) -> None:
    runner = ["-m", "torch.distributed.run", "--nproc-per-node", "2"] if script == "distributed.py" else []
    command = [sys.executable, *runner, str(ROOT / "examples" / script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " apart" not in done.stdout


@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "examples").glob("*.ipynb")))
def test_notebooks_run(notebook: str, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = nbformat.read(ROOT / "examples" / notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in cells.cells), "results belong in no commit"
    nbclient.NotebookClient(cells, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_readme_example_runs() -> None:
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("(")[1].split(",")[0].rstrip(")\n")) < 1e-5
