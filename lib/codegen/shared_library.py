"""Compiled code as a file that the system's loader takes: TVM's objects, linked by the C compiler of the machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import tvm
from tvm.runtime import _ffi_api
from tvm.support import cc

from torch_tvm.support.errors import InvalidInput

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_ROOM = 64 << 20
"""Bytes: objects of the largest models take a few million."""


def link(module: tvm.runtime.Module, target: tvm.target.Target, linker: str | None = None) -> bytes:
    """A module that holds machine code for a target, and what it imports, as a library that TVM's runtime loads.

    ``linker`` is a C compiler that links for the target, by default the one of this machine. Raises
    :class:`InvalidInput` where there is none, or where it fails.
    """
    command = _found(linker)
    with _folder() as folder:
        path, parts = Path(folder) / "code.so", _exportable(module)
        objects = [str(Path(folder) / f"part{index}.o") for index in range(len(parts))]
        with ThreadPoolExecutor(max(1, min(len(parts), len(os.sched_getaffinity(0))))) as pool:
            list(pool.map(lambda part, file: part.write_to_file(file), parts, objects))
        if module.imports:
            # What is no machine code is data; TVM takes code of one function for a library of the system's.
            objects.append(str(Path(folder) / "imports.o"))
            _ffi_api.ModulePackImportsToLLVM(module, False, str(target), "").write_to_file(objects[-1])
        _run([*command, "-shared", "-fPIC", "-o", str(path), *objects])
        if not path.exists():
            raise _unlinked(command, "it wrote no library")
        return path.read_bytes()


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for what is linked, which has room: LLVM ends the process where it cannot write an object."""
    try:
        with tempfile.TemporaryDirectory(prefix="torch_tvm_") as folder:
            if shutil.disk_usage(folder).free < _ROOM or _largest_file() < _ROOM:
                raise OSError("there is no room for objects")
            yield folder
    except OSError as error:
        raise InvalidInput(
            f"the code cannot be linked in a folder for temporary files: {error.strerror or error}",
            subject="linker",
            advice=f"name a folder with {_ROOM >> 20} MB in TMPDIR",
        ) from error


def _largest_file() -> int:
    """Bytes that this process may write into one file."""
    if resource is None:
        return _ROOM
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return _ROOM if soft == resource.RLIM_INFINITY else soft


def has_linker() -> bool:
    """Whether there is a C compiler to link with."""
    try:
        return bool(_found(None))
    except InvalidInput:
        return False


def _exportable(module: tvm.runtime.Module) -> list[tvm.runtime.Module]:
    """The parts of a module that hold machine code, each once; C, which cannot be linked as it is, holds nothing."""
    found: list[tvm.runtime.Module] = []
    pending = [module]
    while pending:
        part = pending.pop()
        is_code = part.is_compilation_exportable() and part.kind != "c"
        if is_code and not any(part.same_as(known) for known in found):
            found.append(part)
        pending.extend(part.imports)
    return found


def _found(linker: str | None) -> list[str]:
    """The compiler and its first arguments: ``CC="ccache gcc -m64"`` is as in a shell."""
    if not isinstance(linker, (str, type(None))):
        raise InvalidInput(f"expected a command, got {type(linker).__name__}", subject="linker")
    given = linker or os.environ.get("CC") or cc.get_cc() or ""
    try:
        command = shlex.split(given)
    except ValueError:  # a quote that is not closed
        command = []
    if not command or not shutil.which(command[0]):
        named = f" '{given}'" if given else ""
        raise InvalidInput(
            f"there is no C compiler{named} to link with",
            subject="linker",
            advice="install gcc or clang, or name one in CC",
        )
    return command


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and "ld returned" not in line]
        raise _unlinked(command, said[-1] if said else f"it ends with exit code {done.returncode}")


def _unlinked(command: Sequence[str], why: str) -> InvalidInput:
    return InvalidInput(
        f"'{command[0]}' cannot link the code: {why}",
        subject="linker",
        advice="name a C compiler that links for the target: linker='aarch64-linux-gnu-gcc'",
    )


__all__ = ["has_linker", "link"]
