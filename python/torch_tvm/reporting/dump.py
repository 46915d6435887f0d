"""``TORCH_TVM_DUMP=folder``: the module after each phase and each pass of each compile, as numbered text files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from torch_tvm.support.errors import InvalidInput

VARIABLE = "TORCH_TVM_DUMP"


class Dump:
    """The files of one compile; none without the variable.

    ``compile_0/0_imported.mlir``, ``compile_0/1_canonical.mlir``, … are the module after each phase,
    ``compile_0/1_canonical/00_give-types.mlir``, ``01_apply-patterns.mlir``, … after each pass of one. Weights are left
    out of the text. Raises :class:`InvalidInput` where the folder cannot be written.
    """

    def __init__(self) -> None:
        folder = os.environ.get(VARIABLE, "")
        self._count = 0
        self._folder = _new_folder(Path(folder)) if folder else None

    def __call__(self, name: str, text: Callable[[], str]) -> None:
        """Write what ``text`` returns as the next file."""
        if self._folder is not None:
            (self._folder / f"{self._count}_{name}").write_text(text())
            self._count += 1

    @property
    def is_on(self) -> bool:
        """Whether files are written."""
        return self._folder is not None

    def passes(self, phase: str) -> Callable[[str, Callable[[], str]], None] | None:
        """What writes the files of the passes of a phase, whose own file comes next; ``None`` where
        nothing is written.
        """
        if self._folder is None:
            return None
        stem, _, kind = phase.partition(".")
        folder, numbers = self._folder / f"{self._count}_{stem}", itertools.count()

        def write(name: str, text: Callable[[], str]) -> None:
            folder.mkdir(exist_ok=True)
            (folder / f"{next(numbers):02}_{name.strip('_-')}.{kind}").write_text(text())

        return write


def _new_folder(parent: Path) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            folder = parent / f"compile_{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise InvalidInput(
            f"cannot make a folder in '{parent}': {error.strerror}",
            subject=VARIABLE,
            advice="name one that you may write",
        ) from error
    raise AssertionError


__all__ = ["Dump"]
