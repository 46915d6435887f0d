"""What ends an evaluation that is no error of the importer."""

from __future__ import annotations

from torch_tvm.support.errors import ImportFailed, SourceLocation


class CertainError(Exception):
    """The program raises on every path from here; ``message`` is what eager would say."""

    def __init__(self, message: str, location: SourceLocation) -> None:
        super().__init__(message)
        self.message = message
        self.location = location


class Specialise(Exception):
    """The import needs these user arguments (flat positions) as constants."""

    def __init__(self, arguments: frozenset[int], cause: ImportFailed) -> None:
        super().__init__(arguments)
        self.arguments = arguments
        self.cause = cause


__all__ = ["CertainError", "Specialise"]
