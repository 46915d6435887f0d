"""The file of a compiled module: a zip archive laid out as PyTorch's PT2 archives are, every entry as it is in memory.

::

    model/archive_format            ttvm
    model/archive_version           1
    model/byteorder                 little
    model/models/model.json         what is in the file, and what it needs
    model/models/model.sha256       the SHA-256 of that text
    model/data/code/0.so            machine code, for one processor each
    model/data/weights/0            a tensor's bytes, at a page of the file
    model/data/sample_inputs/0
    model/extra/report.json         the report of the compile

Nothing is compressed, so that weights are mapped into memory and not copied. ``model.json`` has the size and SHA-256 of
every entry with data; a reader checks all of them before it hands out anything. There is no pickle in it. The hashes
tell a damaged file; against one that somebody made on purpose only the hash of the whole file helps, from elsewhere.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
import stat
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO

from torch_tvm.runtime.threads import usable_cores
from torch_tvm.support.errors import InvalidInput

FORMAT = "ttvm"
VERSION = 1
ROOT = "model/"
MANIFEST = "models/model.json"
SEAL = "models/model.sha256"
REPORT = "extra/report.json"
_PREFACE = {"archive_format": FORMAT, "archive_version": str(VERSION), "byteorder": sys.byteorder}

SAMPLE_SEED = 0
"""The seed of PyTorch's generator with which the sample arguments give the sample results."""

PAGE = 4096
"""Bytes: where a tensor starts is a multiple of it."""

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_PADDING = 0x4654
"""The id of the extra field that fills up to a page ("TF"); readers skip what they do not know."""

_MOST_TEXT = 1 << 28
"""Bytes of the largest manifest that is read."""


class ArchiveWriter:
    """Writes an archive into a file that can be sought, which is open until the context ends. Entries with the same
    content are one entry."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._entries: dict[str, dict[str, Any]] = {}
        self._known: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)
        for name, text in _PREFACE.items():
            self._put(name, text.encode())

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the archive, which would go on writing when it is collected; what failed before is what counts."""
        with suppress(*([Exception] if kind else [])):
            self._zip.close()

    def add(self, folder: str, content: bytes | memoryview, suffix: str = "") -> str:
        """Put content into a folder, at the start of a page; give the name of the entry that has it."""
        digest = hashlib.sha256(content).hexdigest()
        name = self._known.get((folder, digest))
        if name is None:
            name = self._known[folder, digest] = f"{folder}/{self._counts[folder]}{suffix}"
            self._counts[folder] += 1
            self._entries[name] = {"size": len(content), "sha256": digest}
            self._put(name, content, aligned=True)
        return name

    def find(self, folder: str, content: bytes | memoryview) -> str | None:
        """The name of the entry in a folder that has this content already."""
        return self._known.get((folder, hashlib.sha256(content).hexdigest()))

    def add_report(self, text: str) -> None:
        """Add the report of a compile, as JSON."""
        content = text.encode()
        self._entries[REPORT] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self._put(REPORT, content)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest; the last thing."""
        whole = {"format": VERSION, **manifest, "entries": self._entries}
        content = json.dumps(whole, indent=1, allow_nan=False).encode()
        self._put(MANIFEST, content)
        self._put(SEAL, hashlib.sha256(content).hexdigest().encode())

    def _put(self, name: str, content: bytes | memoryview, aligned: bool = False) -> None:
        info = zipfile.ZipInfo(ROOT + name)
        info.file_size = len(content)
        if aligned:
            has_long_size = len(content) * 1.05 > zipfile.ZIP64_LIMIT
            start = self._file.tell() + _LOCAL_HEADER.size + len(info.filename) + 4 + 20 * has_long_size
            info.extra = struct.pack("<2H", _PADDING, -start % PAGE) + bytes(-start % PAGE)
        with self._zip.open(info, "w") as entry:
            entry.write(content)


class Archive:
    """An archive that was checked: every byte that the manifest names is there, as it was written, and nothing else.

    Raises :class:`InvalidInput` for a file that is none, that is damaged or whose SHA-256 is not ``expect_sha256``.
    """

    def __init__(self, path: str | os.PathLike[str], expect_sha256: str | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidInput(f"expected a path, got {type(path).__name__}")
        if not isinstance(expect_sha256, (str, type(None))):
            raise InvalidInput(f"expected a text, got {type(expect_sha256).__name__}", subject="expect_sha256")
        self.path = os.fspath(path)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ValueError("it is no regular file")  # opening a pipe waits for who writes
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error).replace("cannot mmap an empty file", "it is empty")
            raise InvalidInput(f"cannot read '{self.path}': {why}") from error
        if expect_sha256 is not None:
            self._expect(expect_sha256)
        self._places = self._located()
        self.manifest = self._read_manifest()
        self._check_entries()

    def view(self, name: str) -> memoryview:
        """The content of an entry, where it is mapped; what is written to it stays in this process."""
        start, size = self._place(name)
        return memoryview(self._map)[start : start + size]

    def report(self) -> dict[str, Any]:
        """The report of the compile, as plain values."""
        report: dict[str, Any] = json.loads(self._text(REPORT))
        return report

    def _text(self, name: str) -> str:
        return bytes(self.view(name)).decode("utf-8", "replace")

    def _place(self, name: Any) -> tuple[int, int]:
        if not isinstance(name, str) or name not in self._places:
            raise self._damaged(f"it has no entry '{name}'")
        return self._places[name]

    def _damaged(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"'{self.path}' is no whole file of a compiled module: {why}", advice="save the module again"
        )

    def _expect(self, expected: str) -> None:
        found = hashlib.sha256(self._map).hexdigest()
        if found != expected.strip().lower():
            raise InvalidInput(
                f"'{self.path}' is not the file that you expect: its SHA-256 is {found}",
                subject="expect_sha256",
            )

    def _located(self) -> dict[str, tuple[int, int]]:
        """The offset and size in the file of each entry's content, by name; :class:`InvalidInput` for a damaged
        archive.
        """
        try:
            with zipfile.ZipFile(self._map) as archive:  # type: ignore[call-overload]
                infos = archive.infolist()
            places = [self._located_entry(info) for info in infos]
        except InvalidInput:
            raise
        except Exception as error:  # zipfile lets many kinds through for bytes that are no archive
            raise self._damaged(str(error) or type(error).__name__) from error
        names = [name for name, _, _ in places]
        if len(set(names)) != len(names):
            raise self._damaged("an entry is there twice")
        ordered = sorted((start, start + size) for _, start, size in places)
        if any(start < end for (_, end), (start, _) in itertools.pairwise(ordered)):
            raise self._damaged("entries overlap")
        return {name: (start, size) for name, start, size in places}

    def _located_entry(self, info: zipfile.ZipInfo) -> tuple[str, int, int]:
        name = info.filename
        if not name.startswith(ROOT) or ".." in name.split("/") or "\\" in name or name.endswith("/"):
            raise self._damaged(f"it has an entry '{name}'")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise self._damaged(f"the entry '{name}' is compressed or encrypted")
        header = self._map[info.header_offset : info.header_offset + _LOCAL_HEADER.size]
        signature, *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
        name_at = info.header_offset + _LOCAL_HEADER.size
        own = self._map[name_at : name_at + min(name_size, PAGE)]
        if signature != b"PK\3\4" or own != name.encode() or start + info.file_size > len(self._map):
            raise self._damaged(f"the entry '{name}' is not where the directory says")
        return name.removeprefix(ROOT), start, info.file_size

    def _read_manifest(self) -> dict[str, Any]:
        for name, expected in _PREFACE.items():
            start, size = self._place(name)
            found = bytes(self._map[start : start + min(size, 64)]).decode("ascii", "replace")
            if found != expected:
                advice = "load it with the torch_tvm that saved it, or save it again"
                raise InvalidInput(
                    f"'{self.path}' has the {name.replace('_', ' ')} '{found}', this torch_tvm reads '{expected}'",
                    advice=advice,
                )
        start, size = self._place(MANIFEST)
        if size > _MOST_TEXT:
            raise self._damaged("its manifest is too large")
        content = bytes(self._map[start : start + size])
        if self._text(SEAL) != hashlib.sha256(content).hexdigest():
            raise self._damaged("its manifest was changed")
        try:
            manifest = json.loads(content, parse_constant=self._refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its manifest is no JSON: {error}") from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("entries"), dict):
            raise self._damaged("its manifest lists no entries")
        return manifest

    def _refuse_constant(self, text: str) -> None:
        raise self._damaged(f"its manifest has a number {text}")

    def _check_entries(self) -> None:
        entries = self.manifest["entries"]
        others = set(self._places) - set(entries) - set(_PREFACE) - {MANIFEST, SEAL}
        if others:
            raise self._damaged(f"its manifest does not know '{min(others)}'")
        for name, entry in entries.items():
            if not isinstance(entry, dict) or self._place(name)[1] != entry.get("size"):
                raise self._damaged(f"the size of '{name}' is not what the manifest says")
        with ThreadPoolExecutor(len(usable_cores())) as pool:
            digests = pool.map(lambda name: hashlib.sha256(self.view(name)).hexdigest(), entries)
            for (name, entry), digest in zip(entries.items(), digests, strict=True):
                if digest != entry.get("sha256"):
                    raise self._damaged(f"'{name}' was changed")


__all__ = ["SAMPLE_SEED", "Archive", "ArchiveWriter"]
