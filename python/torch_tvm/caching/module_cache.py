"""The cache of whole compiled modules, by the name that the caller gave (``options={"cache_key": ...}``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.artifact.code_cache import CodeCache, code_cache
from torch_tvm.artifact.load import read_archive
from torch_tvm.artifact.processor import instruction_sets, machine
from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.caching.versions import versions
from torch_tvm.options import Options
from torch_tvm.reporting.report import Report
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.runtime.warnings import warn_user
from torch_tvm.support.errors import InvalidInput


@dataclass(frozen=True)
class ModuleEntry:
    """The entry of a compiled module in the cache."""

    cache: CodeCache
    key: str

    def find(self) -> CompiledModule | None:
        """The module that an earlier call left here; what cannot be loaded is forgotten."""
        archive = self.cache.find(self.key)
        if archive is None:
            return None
        try:
            loaded = read_archive(archive)
        except InvalidInput:
            self.cache.drop(self.key)
            return None
        loaded.module.report = Report.from_dict(loaded.report)
        loaded.module.report.is_cached = True
        return loaded.module

    def keep(self, module: CompiledModule) -> None:
        """Leave a module here; a warning says why one cannot be."""
        try:
            self.cache.add(self.key, module.save)
        except InvalidInput as error:
            warn_user(f"the module is compiled but not kept: {error}", UserWarning)


def module_entry(
    options: Options,
    example_args: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
    frontend: str,
    target: Any,
    dynamic_shapes: Any,
    fallback: bool,
) -> ModuleEntry | None:
    """The entry of what a call compiles, ``None`` where the cache is off.

    Raises :class:`InvalidInput` for what cannot have a name.
    """
    if options.is_extended or options.measures:
        raise InvalidInput(
            "a module that passes, lowerings or rules of yours or measurements took part in is not kept",
            subject="options['cache_key']",
            advice="leave out one of them, or save the module with .save(path)",
        )
    cache = code_cache() if options.cache else None
    if cache is None:
        return None
    leaves, spec = pytree.tree_flatten(example_args)
    described = {
        "versions": versions(),
        "name": options.cache_key,
        "machine": [machine(), torch.get_num_threads(), instruction_sets()],
        "arguments": [str(spec), *(_described(leaf) for leaf in leaves)],
        "settings": [
            frontend,
            str(target),
            str(dynamic_shapes),
            fallback,
            options.of_code(),
            str(torch.get_default_dtype()),
        ],
    }
    return ModuleEntry(cache, hashlib.sha256(json.dumps(described).encode()).hexdigest())


def _described(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor):
        return f"{dtype_name(leaf.dtype)}{list(leaf.shape)} {leaf.device} {leaf.layout}"
    return repr(leaf)


__all__ = ["ModuleEntry", "module_entry"]
