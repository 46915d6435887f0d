"""A folder with what tuning found: a JSON file for each kernel and target, written whole.

A record holds the schedule that was the fastest, as a label of our rule's own or as a trace of MetaSchedule, and a hash
of the rule's own schedule that it was measured against. Where that has changed, the record is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import read_bytes, write_whole

FORMAT = 1
"""What records are written as; others are refused."""

LONGEST = 4 << 20
"""Bytes of the largest record that is read."""


@dataclass
class Record:
    """What is known of one kernel on one target.

    ``own`` is the hash of the rule's own schedule and ``own_seconds`` its time when ``choice`` was measured against it,
    interleaved, with ``seconds``. ``choice`` is ``""`` where the rule's own is the fastest, ``trace`` is the schedule
    where MetaSchedule found it. ``tried`` are the seconds of all candidates by label, relative to the rule's own at
    that time; ``None`` for one that failed. ``traces`` are those of the best candidates of MetaSchedule.
    """

    kernel: str
    line: str
    target: str
    own: str
    own_seconds: float = 0.0
    seconds: float = 0.0
    operations: float = 0.0
    choice: str = ""
    trace: list[Any] | None = None
    tried: dict[str, float | None] = field(default_factory=dict)
    traces: dict[str, list[Any]] = field(default_factory=dict)


class Database:
    """The records of a folder, which is made where ``is_new`` is allowed.

    Raises :class:`InvalidInput` for a path that is no folder, and for a record that is damaged or of another format.
    """

    def __init__(self, folder: str | os.PathLike[str], *, is_new: bool = False) -> None:
        self.folder = _folder(folder, is_new)

    def digest(self) -> str:
        """A hash of all records: what code that was made with them depends on."""
        stamp = hashlib.sha256()
        for path in sorted(self.folder.glob("*.json")):
            stamp.update(f"{path.name} {hashlib.sha256(read_bytes(path)).hexdigest()}\n".encode())
        return stamp.hexdigest()

    def find(self, key: str) -> Record | None:
        """The record of a kernel, ``None`` where there is none."""
        path = self.folder / f"{key}.json"
        return _read(path) if path.exists() else None

    def records(self) -> dict[str, Record]:
        """All records by key."""
        return {path.stem: _read(path) for path in sorted(self.folder.glob("*.json"))}

    def keep(self, key: str, record: Record) -> None:
        """Write a record, in place of the former one of the kernel."""
        content = json.dumps({"format": FORMAT, **asdict(record)}, indent=1)
        write_whole(self.folder / f"{key}.json", content.encode())


def _folder(given: str | os.PathLike[str], is_new: bool) -> Path:
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise InvalidInput(
            f"expected the path of a folder, got {given!r}",
            subject="database",
            advice='pass "tuned", for one',
        )
    folder = Path(given)
    try:
        if is_new:
            folder.mkdir(parents=True, exist_ok=True)
        is_folder = folder.is_dir()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"cannot make the folder '{folder}': {why}", subject="database") from error
    if not is_folder:
        raise InvalidInput(
            f"there is no folder '{folder}'",
            subject="database",
            advice="torch_tvm.tune(program, args, database=...) makes one",
        )
    return folder


def _read(path: Path) -> Record:
    """Raises :class:`InvalidInput` for a file that is no record."""
    if path.stat().st_size > LONGEST:
        raise _damaged(path, "it is too long")
    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise _damaged(path, f"its format is not {FORMAT}")
    wrong = _why_wrong(values)
    if wrong:
        raise _damaged(path, wrong)
    return Record(**values)


def _why_wrong(values: Mapping[str, Any]) -> str:
    if set(values) != {each.name for each in fields(Record)}:
        return "its fields are others"
    for name in ("kernel", "line", "target", "own", "choice"):
        if not isinstance(values[name], str):
            return f"'{name}' is no text"
    for name in ("own_seconds", "seconds", "operations"):
        if not _is_time(values[name]):
            return f"'{name}' is no positive number"
    if not isinstance(values["trace"], (list, type(None))):
        return "'trace' is no list"
    for name, is_right in (
        ("tried", lambda v: v is None or _is_time(v)),
        ("traces", lambda v: isinstance(v, list)),
    ):
        if not isinstance(values[name], dict) or not all(map(is_right, values[name].values())):
            return f"'{name}' has a wrong value"
    return ""


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _damaged(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"'{path}' is no record of tuning: {why}", subject="database", advice="delete it, or tune again"
    )


__all__ = ["Database", "Record"]
