"""Text or bytecode to an MLIR module and the bytes of its weights, recovered from the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

import torch

from torch_tvm.dialect import bytecode, view
from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.types import TEXT_DTYPE
from torch_tvm.support.errors import ImportFailed, InvalidInput, SourceLocation

_RESOURCES = "{-#"
_BLOB = re.compile(r'(?<![^\s{,])("(?:[^"\\]|\\.)*"|[^\s:"{},]+)\s*:\s*"0x([0-9A-Fa-f]*)"')
_HANDLE = re.compile(r'dense_resource<("(?:[^"\\]|\\.)*"|[^>\s]+)> : tensor<((?:\d+x)*)([^<>]*(?:<[^<>]*>)?)>')
_ALIGNMENTS = frozenset(1 << power for power in range(13))
_PLACE = re.compile(r'^loc\("(.*)":(\d+):(\d+)\)')


def read(data: str | bytes, source: str, on_disk: bool = False) -> tuple[ir.Module, dict[str, torch.Tensor]]:
    """The module and its weights by name. Raises :class:`ImportFailed` at the line and column of malformed text.

    ``source`` is how errors call the data; ``on_disk`` says that it is a file with just this data.
    """
    try:
        text = "".join(with_sound_blobs(data)) if isinstance(data, str) else data
        module = parse_mlir(text, source, on_disk)
    except ir.MLIRError as error:
        fail_at(error, data if isinstance(data, str) else "", source)
    needed = set(_resource_names(module))
    found = _blobs(data) if isinstance(data, str) else bytecode.blobs(data) if needed else ()
    blobs = {name: blob for name, blob in found if name in needed}
    return module, _weights(module, blobs, source)


def parse_mlir(data: str | bytes, source: str, on_disk: bool) -> ir.Module:
    """MLIR's own parser; operations of a file are located in it."""
    context = new_context()
    if isinstance(data, bytes):
        return ir.Module.parseFile(source, context) if on_disk else ir.Module.parse(data, context)
    module = ir.Module.parse(data, context)
    for operation in view.walk(module) if on_disk else ():
        place = operation.location
        if isinstance(place, ir.FileLineColLoc) and place.filename == "-":
            with context:
                operation.location = ir.Location.file(source, place.start_line, place.start_col)
    return module


def with_sound_blobs(text: str) -> tuple[str, str]:
    """What can upset a parser, and the blobs, written anew from those that are whole: MLIR checks none of them."""
    start = text.rfind("\n" + _RESOURCES)
    if start < 0:
        return text, ""
    entries = []
    for found in _BLOB.finditer(text, start + 1):
        name, digits = found.groups()
        alignment = int.from_bytes(bytes.fromhex(digits[: len(digits) // 2 * 2][:8]), "little")
        if len(digits) < 8 or len(digits) % 2 or alignment not in _ALIGNMENTS:
            raise InvalidInput(
                f"resource {name} is damaged: it has {len(digits)} digits and an alignment of {alignment}",
                advice=view.HOW_TO_PRINT,
            )
        entries.append(f'{name}: "0x{digits}"')
    head, tail = text[:start], text[start:].rpartition("#-}")[2]
    if not entries:
        return head + tail, ""
    section = "{-#\ndialect_resources: {\nbuiltin: {\n" + ",\n".join(entries) + "\n}\n}\n#-}\n"
    return head + tail, "\n" + section


def fail_at(error: ir.MLIRError, text: str, source: str) -> NoReturn:
    """Raise :class:`ImportFailed` for MLIR's first diagnostic, with the source line and a caret."""
    diagnostic = error.error_diagnostics[0]
    place = _PLACE.match(str(diagnostic.location))
    line, column = (int(place.group(2)), int(place.group(3))) if place else (0, 0)
    at = f"{source}:{line}:{column}" if line else source
    raise ImportFailed(f"{at}: {diagnostic.message}{caret(text, line, column)}") from error


def caret(text: str, line: int, column: int) -> str:
    """Line ``line`` of ``text`` with a caret under ``column`` (both from 1), or nothing outside of it."""
    lines = text.split("\n")
    if not 0 < line <= len(lines) or column < 1:
        return ""
    start = max(0, column - 80)
    return f"\n  {lines[line - 1][start : start + 160]}\n  {' ' * (column - 1 - start)}^"


# -- weights -----------------------------------------------------------------------------------------


def _resource_names(module: ir.Module) -> Iterator[str]:
    for operation in view.walk(module):
        if operation.name in ("torch.vtensor.literal", "torch.tensor.literal"):
            name = view.resource_name(operation)
            if name is not None:
                yield name


def _blobs(text: str) -> Iterator[tuple[str, bytearray]]:
    """Name and bytes of each blob in the ``dialect_resources`` section; four bytes of alignment lead."""
    start = text.rfind("\n" + _RESOURCES)
    if start < 0 and not text.startswith(_RESOURCES):
        return
    for found in _BLOB.finditer(text, start + 1):
        yield view.unquote(found.group(1)), bytearray.fromhex(found.group(2))[4:]


def _tensor(blob: bytearray, sizes: list[int], element: str, name: str) -> torch.Tensor:
    dtype = TEXT_DTYPE.get(element)
    if dtype is None:
        raise InvalidInput(f"resource '{name}' has element type {element}, which PyTorch does not have")
    empty = torch.empty(sizes, dtype=dtype)
    if len(blob) != empty.numel() * empty.element_size():
        raise InvalidInput(
            f"resource '{name}' has {len(blob)} bytes, its type needs {empty.numel() * empty.element_size()}",
            advice=view.HOW_TO_PRINT,
        )
    return torch.frombuffer(blob, dtype=dtype).reshape(sizes) if blob else empty


def _weights(module: ir.Module, blobs: dict[str, bytearray], source: str) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for operation in view.walk(module):
        if operation.name not in ("torch.vtensor.literal", "torch.tensor.literal"):
            continue
        name = view.resource_name(operation)
        if name is not None and name not in weights:
            _check_present(name, blobs, SourceLocation(source, view.location(operation).line))
            weights[name] = _from_handle(str(operation.attributes["value"]), blobs)
    return weights


def _check_present(name: str, blobs: dict[str, bytearray], place: SourceLocation) -> None:
    if name in blobs:
        return
    raise InvalidInput(
        "the elements of this literal were left out of the text"
        if name == view.ELIDED
        else f"the text has no data for resource '{name}'",
        subject="torch.vtensor.literal",
        location=place,
        advice=view.HOW_TO_PRINT,
    )


def _from_handle(text: str, blobs: dict[str, bytearray]) -> torch.Tensor:
    found = _HANDLE.match(text)
    if found is None:
        raise InvalidInput(f"a literal of this form cannot be read: {text[:80]}")
    name = view.unquote(found.group(1))
    sizes = [int(size) for size in found.group(2).split("x")[:-1]]
    return _tensor(blobs[name], sizes, found.group(3), name)


__all__ = ["caret", "parse_mlir", "read", "with_sound_blobs"]
