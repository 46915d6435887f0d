"""Exceptions that end an evaluation, or ask for another one, without being errors of the importer."""

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


class OtherSizes(Exception):
    """The import needs other examples of unknown sizes, by argument and axis: sizes that other tensors have.

    ``are_known`` where those tensors have them whatever the call is.
    """

    def __init__(self, sizes: dict[tuple[int, int], int], are_known: bool, cause: ImportFailed) -> None:
        super().__init__(sizes)
        self.sizes = sizes
        self.are_known = are_known
        self.cause = cause


class KnownSizes(Exception):
    """No call of the program takes other numbers for these sizes, by argument and axis, that were given as unknown."""

    def __init__(self, sizes: dict[tuple[int, int], int]) -> None:
        super().__init__(sizes)
        self.sizes = sizes


__all__ = ["CertainError", "KnownSizes", "OtherSizes", "Specialise"]
