"""Run mypy over the package: ``python -m torch_tvm.tools.typecheck``, in a checkout.

A static checker does not follow the package mapping of an editable install, so the folders are linked
into one tree first.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def link_tree(root: Path) -> Path:
    """``build/tree/torch_tvm`` with a link for each mapped folder's files; returns ``build/tree``."""
    mapping = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    tree = root / "build" / "tree"
    for package, folder in mapping.items():
        target = tree.joinpath(*package.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.iterdir():
            if stale.is_symlink():
                stale.unlink()
        for source in (root / folder).iterdir():
            if source.suffix == ".py" or source.name == "py.typed":
                (target / source.name).symlink_to(source)
    return tree


def main() -> int:
    """mypy's exit code."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").exists():
        print("typecheck: run it from a checkout, not from an installed wheel", file=sys.stderr)
        return 2
    tree = link_tree(root)
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), "-p", "torch_tvm"]
    return subprocess.run(command, cwd=tree, env=None, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
