"""Writing compiled modules into a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.artifact.archive import ArchiveWriter
from torch_tvm.artifact.encoding import encode_convention, encode_tree, encode_value
from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.runtime.code import Code
from torch_tvm.runtime.module import Parts
from torch_tvm.support.files import whole_file

WEIGHTS = "data/weights"
CODE = "data/code"
SAMPLES = "data/sample_inputs"


@dataclass(frozen=True)
class Variant:
    """A program compiled for one kind of processor: the library that its code was linked to, and what it read."""

    machine: str
    features: Sequence[str]
    library: bytes
    openmp: bytes
    parts: Parts


@dataclass(frozen=True)
class Program:
    """A method of what is saved, for arguments of one kind, in one variant and more."""

    method: str
    variants: Sequence[Variant]


def write(
    path: str | os.PathLike[str],
    programs: Sequence[Program],
    *,
    versions: Mapping[str, str],
    report: str,
    keeps_originals: bool,
    sample: tuple[tuple[Any, ...], Any] | None = None,
    methods: Sequence[str] = (),
) -> None:
    """Write programs, the first of them first, that share weights and state.

    A weight is there as kernels read it. The original is there as well where it ``keeps_originals``, or where
    both are the same. ``sample`` are arguments and what the first program gives for them.
    ``methods`` are the names of all methods, also of those that no program is code of.
    """
    with whole_file(path) as file, ArchiveWriter(file) as archive:
        encoded = [_program(archive, program, keeps_originals) for program in programs]
        manifest = {
            "versions": dict(versions),
            "programs": encoded,
            "methods": list(methods),
            "sample": _sample(archive, sample),
        }
        archive.add_report(report)
        archive.finish(manifest)


def _program(archive: ArchiveWriter, program: Program, keeps_originals: bool) -> dict[str, Any]:
    parts = program.variants[0].parts
    variants = [_variant(archive, variant) for variant in program.variants]
    keeps_originals |= any(variant["packed"] is None for variant in variants)
    weights = {name: _tensor(archive, tensor, keeps_originals) for name, tensor in parts.weights.tensors.items()}
    return {
        "method": program.method,
        "convention": encode_convention(parts.code.convention),
        "weights": weights,
        "state": {name: _tensor(archive, tensor) for name, tensor in parts.state.items()},
        "scalars": {name: _tensor(archive, tensor) for name, tensor in parts.scalars.items()},
        "variants": variants,
    }


def _variant(archive: ArchiveWriter, variant: Variant) -> dict[str, Any]:
    packed = variant.parts.weights.packed_tensors()
    return {
        "machine": variant.machine,
        "features": sorted(variant.features),
        "library": archive.add(CODE, variant.library, ".so"),
        "openmp": archive.add(CODE, variant.openmp, ".so"),
        "code": encode_code(variant.parts.code),
        "packed": None if packed is None else [_tensor(archive, tensor) for tensor in packed],
    }


def encode_code(code: Code) -> dict[str, Any]:
    """What a call has to know of the code, as JSON."""
    return {
        "device": code.device,
        "copies": sorted(code.copies),
        "single": code.single,
        "loops": sorted(code.loops),
        "keeps_iteration": sorted(code.keeps_iteration),
        "lifted": code.lifted,
        "program": code.program,
        "has_unknown_sizes": code.has_unknown_sizes,
    }


def _sample(archive: ArchiveWriter, sample: tuple[tuple[Any, ...], Any] | None) -> Any:
    if sample is None:
        return None
    leaves, spec = pytree.tree_flatten(sample)
    return {"spec": encode_tree(spec), "leaves": [_leaf(archive, leaf) for leaf in leaves]}


def _leaf(archive: ArchiveWriter, leaf: Any) -> dict[str, Any]:
    if isinstance(leaf, torch.Tensor):
        return {"tensor": _tensor(archive, leaf, folder=SAMPLES)}
    return {"value": encode_value(leaf)}


def _tensor(
    archive: ArchiveWriter, tensor: torch.Tensor, is_kept: bool = True, folder: str = WEIGHTS
) -> dict[str, Any]:
    """A tensor's type, and the entry that has its bytes; none where it is not kept and has no twin."""
    described = {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "entry": None}
    if tensor.numel():
        dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        content = memoryview(dense.reshape(-1).view(torch.uint8).numpy())
        described["entry"] = archive.add(folder, content) if is_kept else archive.find(folder, content)
    return described


__all__ = ["Program", "Variant", "encode_code", "write"]
