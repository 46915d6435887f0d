"""The cache of compiled code: what its key is made of, and what an entry holds.

The key is a hash of the canonical module with the user's lines, the target, the options and every version, sources of
ours included. Weights are arguments of the code, so they are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import tvm

from torch_tvm.artifact.archive import Archive, ArchiveWriter
from torch_tvm.artifact.code_cache import CodeCache, code_cache
from torch_tvm.artifact.encoding import decode_demands, encode_demands
from torch_tvm.artifact.load import decode_code, load_library
from torch_tvm.artifact.processor import instruction_sets
from torch_tvm.artifact.save import CODE, encode_code
from torch_tvm.backends import backend_of
from torch_tvm.caching import artifacts
from torch_tvm.caching.versions import versions
from torch_tvm.codegen.openmp import use_openmp
from torch_tvm.codegen.shared_library import has_linker
from torch_tvm.dialect import view
from torch_tvm.dialect.module import TorchModule
from torch_tvm.lowering.registry import LOWERINGS
from torch_tvm.options import Options
from torch_tvm.reporting.report import Report
from torch_tvm.runtime.calls.convention import Convention
from torch_tvm.runtime.code import Code
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import whole_file

_OWN = "torch_tvm."


@dataclass(frozen=True)
class CachedCode:
    """What an entry holds: the code and its library, the names of the weights that it takes, and the report."""

    code: Code
    library: bytes
    weights: Sequence[str]
    report: Report


@dataclass(frozen=True)
class CodeEntry:
    """The entry of one program in the cache; ``names`` are those of its weights before it was lowered.

    What is found or kept is an artifact of PyTorch's cache too, where ``is_artifact`` says so.
    """

    cache: CodeCache
    key: str
    names: frozenset[str]
    is_artifact: bool = False

    def find(self, convention: Convention) -> CachedCode | None:
        """What an earlier compile left here; ``convention`` is that of the program before it was lowered."""
        archive = self.cache.find(self.key)
        if archive is None:
            return None
        try:
            cached = _read(archive, convention)
        except Exception:  # whatever it holds, another version or another machine's loader wrote it
            self.cache.drop(self.key)
            return None
        self._record()
        return cached

    def keep(self, code: Code, library: bytes, weights: Sequence[str], report: Report) -> None:
        """Leave the code and its linked library here; a folder that cannot be written keeps nothing.

        Nor is code kept that reads weights which only lowering added: the next process would not have them.
        """
        if not self.names.issuperset(weights):
            return

        def write(path: Path) -> None:
            with suppress(InvalidInput), whole_file(path) as file, ArchiveWriter(file) as archive:
                entry = archive.add(CODE, library, ".so")
                archive.add_report(json.dumps(report.to_dict()))
                described = {"library": entry, "code": encode_code(code), "weights": list(weights)}
                archive.finish({**described, **encode_demands(code.convention)})

        self.cache.add(self.key, write)
        self._record()

    def _record(self) -> None:
        if self.is_artifact:
            artifacts.record(self.key, self.cache.path(self.key))


def code_entry(
    module: TorchModule,
    target: tvm.target.Target,
    options: Options,
    fallback: bool,
    is_artifact: bool = False,
) -> CodeEntry | None:
    """The entry of a canonical module in the cache, ``None`` for one whose code is not kept.

    That is the case where a pass, a lowering or a backend of the user's takes part, and where there is no C compiler.
    """
    is_plain = not options.is_extended and not options.measures
    store = code_cache() if options.cache and is_plain else None
    backend = backend_of(target)
    is_kept = (
        store is not None
        and backend.instruction_sets(target) is not None
        and type(backend).__module__.startswith(_OWN)
        and not backend.why_not_runnable(target)
        and has_linker()
        and all(map(_is_own, {view.op_name(op) for op in view.walk(module.main)}))
    )
    if store is None or not is_kept:
        return None
    admitted = None if module.admitted is None else sorted(module.admitted)
    settings = (options.of_code(), fallback, admitted, str(target))
    text = json.dumps([versions(), instruction_sets(), settings, module.asm(locations=True)])
    return CodeEntry(store, hashlib.sha256(text.encode()).hexdigest(), frozenset(module.weights), is_artifact)


def _is_own(name: str) -> bool:
    """Whether what lowers an op is known by the version of this package."""
    entry = LOWERINGS.get(name)
    return entry is None or str(entry.function.__module__).startswith(_OWN)


def _read(archive: Archive, convention: Convention) -> CachedCode:
    manifest = archive.manifest
    use_openmp()
    library = bytes(archive.view(manifest["library"]))
    demanding = replace(convention, **decode_demands(manifest))
    code = decode_code(manifest["code"], load_library(library), demanding)
    report = Report.from_dict(archive.report())
    return CachedCode(code, library, [str(name) for name in manifest["weights"]], report)


__all__ = ["CachedCode", "CodeEntry", "code_entry"]
