"""``torch-tvm completion bash|zsh``: what a shell needs to complete the three commands, made by ``shtab`` of their
parsers.

eval "$(torch-tvm completion bash)"
"""

from __future__ import annotations

import argparse
from typing import Any

from torch_tvm.support.errors import InvalidInput

SHELLS = ("bash", "zsh")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion of ``torch-tvm``, whose parser this is, and of ``torch-tvm-opt`` and ``torch-tvm-e2e``.

    Raises :class:`InvalidInput` where the package ``shtab`` is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise InvalidInput(
            "the package 'shtab' is not installed",
            subject="completion",
            advice="pip install 'torch-tvm[completion]'",
        ) from error
    from torch_tvm.tools.e2e.command import make_parser

    parsers = (parser, _opt_parser(), make_parser())
    parts = []
    for each in parsers:
        _complete_files(each, shtab.FILE)
        parts.append(shtab.complete(each, shell=shell))
    return "\n".join(parts)


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Arguments that name a file or a folder are completed as such."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner, files)
        elif action.metavar in ("FILE", "MODEL", "FOLDER", "SPEC", "FILE.md", "FILE.svg"):
            action.complete = files  # type: ignore[attr-defined]


def _opt_parser() -> argparse.ArgumentParser:
    """The options of ``torch-tvm-opt``, which reads its command line itself: their order counts."""
    from torch_tvm.passes.base import registry
    from torch_tvm.tools.opt import KINDS, OPTIONS
    from torch_tvm.transforms.pipeline import known

    parser = argparse.ArgumentParser(prog="torch-tvm-opt", add_help=False)
    parser.add_argument("input", metavar="FILE", nargs="?")
    for spelled in OPTIONS:
        names = [name.strip().partition("=")[0].partition("[")[0].partition(" ")[0] for name in spelled.split(",")]
        if "--emit" in names:
            parser.add_argument(*names, choices=KINDS)
        else:
            takes: dict[str, Any] = {"metavar": "FILE"} if "FILE" in spelled else {"action": "store_true"}
            parser.add_argument(*names, **takes)
    for name in sorted({*registry(), *known()}):
        parser.add_argument(f"--{name}", action="store_true")
    return parser


__all__ = ["SHELLS", "script"]
