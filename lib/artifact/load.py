"""Reading compiled modules from a file: nothing is compiled, weights are mapped and not copied."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tvm_ffi
from torch.utils import _pytree as pytree

from torch_tvm.artifact.archive import Archive
from torch_tvm.artifact.encoding import decode_convention, decode_tree, decode_value
from torch_tvm.artifact.methods import SavedMethods
from torch_tvm.artifact.processor import machine, missing
from torch_tvm.runtime.calls.convention import Convention
from torch_tvm.runtime.code import Code
from torch_tvm.runtime.library import load_runtime
from torch_tvm.runtime.module import CompiledModule, without_forward
from torch_tvm.runtime.openmp import use_openmp
from torch_tvm.runtime.weights.packed import Weights
from torch_tvm.support.errors import InvalidInput, TorchTvmError


@dataclass(frozen=True)
class Loaded:
    """What a file holds: the module, its report as plain values, arguments and the results that go with them."""

    module: CompiledModule
    report: dict[str, Any]
    sample: tuple[tuple[Any, ...], Any] | None


def read(path: str | os.PathLike[str], expect_sha256: str | None = None) -> Loaded:
    """The modules of a file that ``torch_tvm.artifact.save`` wrote.

    Everything is checked against the hashes in the file before any of it runs. Raises :class:`InvalidInput` for a file
    that is none, is damaged or is for another machine.
    """
    return read_archive(Archive(path, expect_sha256))


def read_archive(archive: Archive) -> Loaded:
    """What :func:`read` says, from an archive that was checked."""
    load_runtime()
    with _damaged(archive):
        report = archive.report()
        programs = archive.manifest["programs"]
        sample = _sample(archive, archive.manifest["sample"])
        if not programs:
            raise ValueError("it has no programs")
        modules = [(str(program["method"]), _module(archive, program)) for program in programs]
        names = [str(name) for name in archive.manifest.get("methods", ())]
        return Loaded(_joined(modules, names), report, sample)


@contextmanager
def _damaged(archive: Archive) -> Iterator[None]:
    """Whatever is raised that is none of our errors means that the manifest is none."""
    try:
        yield
    except TorchTvmError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"'{archive.path}' is no whole file of a compiled module: {type(error).__name__}: {error}",
            advice="save the module again",
        ) from error


def _module(archive: Archive, program: Mapping[str, Any]) -> CompiledModule:
    variant = _chosen(program["variants"])
    use_openmp(lambda: load_library(archive.view(variant["openmp"])))
    code = decode_code(
        variant["code"],
        load_library(archive.view(variant["library"])),
        decode_convention(program["convention"]),
    )
    weights = _tensors(archive, program["weights"])
    packed = variant["packed"]
    tensors = None if packed is None else [_tensor(archive, tensor) for tensor in packed]
    return CompiledModule(
        code,
        Weights.loaded(code, weights, tensors),
        _tensors(archive, program["state"]),
        scalars=_tensors(archive, program["scalars"]),
    )


def decode_code(described: Mapping[str, Any], library: tvm_ffi.Module, convention: Convention) -> Code:
    """The code that ``encode_code`` described, with its library and calling convention."""
    return Code(
        library=library,
        convention=convention,
        device={"cpu": "cpu", "cuda": "cuda"}[described["device"]],
        copies=frozenset(int(index) for index in described["copies"]),
        single=_flag(described["single"]),
        loops=frozenset(str(name) for name in described["loops"]),
        keeps_iteration=frozenset(str(name) for name in described["keeps_iteration"]),
        lifted=_flag(described["lifted"]),
        program=str(described["program"]),
        has_unknown_sizes=_flag(described["has_unknown_sizes"]),
    )


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _chosen(variants: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The variant for this machine that uses most of it."""
    here = machine()
    local = [variant for variant in variants if variant["machine"] == here]
    if not local:
        machines = ", ".join(sorted({str(variant["machine"]) for variant in variants}))
        raise InvalidInput(
            f"the code is for {machines}, the machine is {here}",
            subject="load",
            advice="compile the program on this machine, and save it there",
        )
    fitting = [variant for variant in local if not missing(variant["features"])]
    if not fitting:
        least = min(local, key=lambda variant: len(missing(variant["features"])))
        raise InvalidInput(
            f"the code needs a processor with {', '.join(missing(least['features'])[:8])}",
            subject="load",
            advice='save it for this machine too: cm.save(path, targets=["x86-64-v3", "x86-64-v4"])',
        )
    return max(fitting, key=lambda variant: len(variant["features"]))


def load_library(content: bytes | memoryview) -> tvm_ffi.Module:
    """A shared library, which the system's loader wants as a file of its own; it is gone when it is loaded.

    The code is unloaded when nothing refers to the library and its functions any more.
    """
    with tempfile.TemporaryDirectory(prefix="torch_tvm_") as folder:
        path = Path(folder) / "code.so"
        path.write_bytes(content)
        return tvm_ffi.load_module(str(path), keep_module_alive=False)


def _tensors(archive: Archive, described: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {str(name): _tensor(archive, tensor) for name, tensor in described.items()}


def _tensor(archive: Archive, described: Mapping[str, Any]) -> torch.Tensor:
    """A tensor over the file's memory; on the meta device where the file has no bytes of it."""
    dtype, shape = decode_value({"dtype": described["dtype"]}), [int(size) for size in described["shape"]]
    count = math.prod(shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"a tensor of shape {shape}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    if described["entry"] is None:
        return torch.empty(shape, dtype=dtype, device="meta")
    content = archive.view(described["entry"])
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for a tensor {described['dtype']}{shape}")
    return torch.frombuffer(content, dtype=dtype).view(shape)


def _sample(archive: Archive, described: Any) -> tuple[tuple[Any, ...], Any] | None:
    if described is None:
        return None
    leaves = [
        _tensor(archive, leaf["tensor"]) if "tensor" in leaf else decode_value(leaf["value"])
        for leaf in described["leaves"]
    ]
    spec = decode_tree(described["spec"])
    assert spec is not None
    args, result = pytree.tree_unflatten(leaves, spec)
    return args, result


def _joined(modules: Sequence[tuple[str, CompiledModule]], names: Sequence[str]) -> CompiledModule:
    """``forward`` with the other methods; all share one state."""
    state: dict[str, torch.Tensor] = {}
    for _, module in modules:
        module.share_state(state)
    forward = next((module for name, module in modules if name == "forward"), None)
    methods = SavedMethods(modules, names)
    if forward is None:
        return without_forward(methods)
    forward.methods = methods if len(methods) else {}
    return forward


__all__ = ["Loaded", "decode_code", "load_library", "read", "read_archive"]
