"""The blobs of an MLIR bytecode file, read straight from its sections.

The bindings have no getter for a resource's bytes. The format is MLIR's own, "MLIR Bytecode Format"
(mlir.llvm.org/docs/BytecodeFormat): sections of an identifier, a length and data; numbers as prefix varints.
"""

from __future__ import annotations

from collections.abc import Iterator

MAGIC = b"ML\xefR"
_STRINGS, _RESOURCES, _RESOURCE_OFFSETS = 0, 5, 6
_ALIGNED = 0x80
_BLOB = 0


class _Reader:
    """A cursor over the file; alignment counts from the start of the file."""

    def __init__(self, data: memoryview, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """A prefix varint: as many trailing zeros in the first byte as bytes follow it."""
        first = self.byte()
        if first == 0:
            self.at += 8
            return int.from_bytes(self.data[self.at - 8 : self.at], "little")
        more = (first & -first).bit_length() - 1
        raw = int.from_bytes(self.data[self.at - 1 : self.at + more], "little")
        self.at += more
        return raw >> (more + 1)

    def align(self, alignment: int) -> None:
        self.at += -self.at % alignment


def blobs(bytecode: bytes) -> Iterator[tuple[str, bytearray]]:
    """Name and bytes of each blob resource. ``bytecode`` must be valid: MLIR has read it."""
    data = memoryview(bytecode)
    sections = dict(_sections(data))
    if _RESOURCES not in sections or _RESOURCE_OFFSETS not in sections:
        return
    names = _strings(data, *sections[_STRINGS])
    at = sections[_RESOURCES][0]
    for name, size, kind in _entries(_Reader(data, *sections[_RESOURCE_OFFSETS])):
        if kind == _BLOB:
            entry = _Reader(data, at, at + size)
            alignment, length = entry.number(), entry.number()
            entry.align(alignment)
            yield names[name], bytearray(data[entry.at : entry.at + length])
        at += size


def _sections(data: memoryview) -> Iterator[tuple[int, tuple[int, int]]]:
    """Identifier, start and end of each section."""
    reader = _Reader(data, len(MAGIC), len(data))
    reader.number()  # version
    while reader.byte():  # producer, up to a zero byte
        pass
    while reader.at < reader.end:
        identifier = reader.byte()
        length = reader.number()
        if identifier & _ALIGNED:
            reader.align(reader.number())
        yield identifier & ~_ALIGNED, (reader.at, reader.at + length)
        reader.at += length


def _strings(data: memoryview, start: int, end: int) -> list[str]:
    """Lengths come first, of the last string first; each string ends with a zero byte."""
    reader = _Reader(data, start, end)
    found = []
    for _ in range(reader.number()):
        size = reader.number()
        found.append(bytes(data[end - size : end - 1]).decode())
        end -= size
    return found[::-1]


def _entries(reader: _Reader) -> Iterator[tuple[int, int, int]]:
    """Name index, size and kind of each resource, in the order of the resource section."""
    reader.number()  # external groups come first and have the same layout
    while reader.at < reader.end:
        reader.number()  # the group's own name or dialect
        for _ in range(reader.number()):
            yield reader.number(), reader.number(), reader.byte()
