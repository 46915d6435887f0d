"""Source locations on operations: the user's file and line, and the module path as the name around it."""

from __future__ import annotations

import re

from torch_tvm.dialect.mlir import ir
from torch_tvm.support.errors import SourceLocation

_FILE = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):(\d+)')
_NAME = re.compile(r'loc\("((?:[^"\\]|\\.)*)"\(')


def to_mlir(location: SourceLocation, context: ir.Context) -> ir.Location:
    """``loc("importer:Encoder.act"("model.py":41:0))``."""
    place = (
        ir.Location.file(location.file, location.line, 0, context=context)
        if location.file
        else ir.Location.unknown(context=context)
    )
    if not location.scope and not location.importer:
        return place
    return ir.Location.name(f"{location.importer}:{location.scope}", childLoc=place, context=context)


def from_mlir(location: ir.Location) -> SourceLocation:
    """The inverse of :func:`to_mlir`; also reads the locations that a text file gives its operations."""
    text = str(location)
    place = _FILE.search(text)
    name = _NAME.search(text)
    importer, _, scope = name.group(1).rpartition(":") if name else ("", "", "")
    if place is None:
        return SourceLocation(scope=scope, importer=importer)
    return SourceLocation(place.group(1), int(place.group(2)), scope, importer)
