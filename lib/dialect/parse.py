"""Text, bytecode or a file from anywhere to a :class:`TorchModule`: tried in another process first."""

from __future__ import annotations

import os
from collections.abc import Iterable

from torch_tvm.dialect import bytecode
from torch_tvm.dialect.module import TorchModule
from torch_tvm.dialect.reader import parse_mlir, with_sound_blobs
from torch_tvm.support.errors import ImportFailed, InvalidInput, damaged
from torch_tvm.support.files import read_bytes
from torch_tvm.support.sandbox import crash_of, failure_of


def parse(text_or_path: str | os.PathLike[str] | bytes, *, allow_ops: Iterable[str] = ()) -> TorchModule:
    """Read a Torch dialect module: text, bytecode, or the path of a file with either.

    ``allow_ops`` are ops of the user's own that it may run. Raises :class:`ImportFailed` at the line and column of
    malformed text, :class:`InvalidInput` for a file that cannot be read and for a module whose weights were elided.
    """
    data, source = _read(text_or_path)
    return read_module(data, source, on_disk=source != "-", allow_ops=allow_ops)


def read_module(
    data: str | bytes,
    source: str,
    *,
    on_disk: bool = False,
    needs_state: bool = True,
    allow_ops: Iterable[str] = (),
) -> TorchModule:
    """:func:`parse` for data at hand; ``source`` is how errors call it.

    ``on_disk`` says that ``source`` is a file with just this data: its name is the operations' location.

    Without ``needs_state`` a module may name state tensors that the text has no values for.
    """
    # MLIR's reader of bytecode leaves a damaged heap behind when it refuses, so it must not refuse here.
    admitted = admitted_ops(allow_ops)
    attempt = failure_of if isinstance(data, bytes) else crash_of
    with damaged(source):
        head = data if isinstance(data, bytes) else with_sound_blobs(data)[0]
        failure = attempt(lambda: parse_mlir(head, source, on_disk))
        if failure is not None:
            raise ImportFailed(f"{source}: the module is damaged: MLIR cannot read it ({_last_line(failure)})")
        module = TorchModule.read(data, source, on_disk=on_disk, needs_state=needs_state)
    module.admitted = admitted
    return module


def admitted_ops(names: Iterable[str]) -> frozenset[str]:
    """``ns::op`` as the dialect spells it; :class:`InvalidInput` for what is no list of names."""
    given = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in given):
        raise InvalidInput(
            f"expected a list of names of ops, got {names!r}",
            subject="allow_ops",
            advice='pass allow_ops=["my_ns::scale"]',
        )
    return frozenset(name.replace("::", ".") for name in given)


def _last_line(text: str) -> str:
    """What an exception of MLIR says in the end: the diagnostic, without the file's name."""
    return text.strip().splitlines()[-1].rpartition('": ')[2].strip()


def _read(given: str | os.PathLike[str] | bytes) -> tuple[str | bytes, str]:
    if isinstance(given, bytes):
        return decode(given, "-"), "-"
    if isinstance(given, str) and ("\n" in given or "{" in given or not given.strip()):
        return given, "-"
    if not isinstance(given, (str, os.PathLike)):
        raise InvalidInput(f"expected the text or the path of a module, got {type(given).__name__}")
    advice = "pass the text of a module, or the path of a .mlir or .mlirbc file"
    return decode(read_bytes(given, advice=advice), os.fspath(given)), os.fspath(given)


def decode(data: bytes, source: str) -> str | bytes:
    """Bytecode as it is, anything else as text; :class:`InvalidInput` when it is neither."""
    if data.startswith(bytecode.MAGIC):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"'{source}' is neither MLIR bytecode nor UTF-8 text") from error


__all__ = ["decode", "parse", "read_module"]
