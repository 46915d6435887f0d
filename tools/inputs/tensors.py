"""Tensors on a command line: ``1x3x64x64:f32``, ``x:1x3:i64``, and files that hold some."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.dialect.types import TEXT_DTYPE, TensorSpec
from torch_tvm.support.errors import InvalidInput, first_line
from torch_tvm.support.files import write_whole

_SIZE = r"(?:\d+|\?(?:[2-9]|[1-9]\d+)?)"
_SPEC = re.compile(rf"(?:({_SIZE}(?:x{_SIZE})*)(?::(\w+))?|:?(\w+))")
_NAMED = re.compile(r"([A-Za-z_][\w.]*):(.+)")
_FILES = (".npz", ".npy", ".pt")
_DTYPES = {
    **{dtype_name(dtype): dtype for dtype in TEXT_DTYPE.values()},
    **TEXT_DTYPE,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class Given:
    """A tensor that a command line gives; ``name`` is empty where only its place counts, ``open`` are its unknown
    sizes.

    A name ``is_typed`` by the user, or it is what a file calls the tensor, which may be about something else.
    """

    value: torch.Tensor
    name: str = ""
    open: tuple[int, ...] = ()
    is_typed: bool = False

    @property
    def spec(self) -> TensorSpec:
        """Shape and dtype as an importer takes them, ``None`` for an unknown size."""
        sizes = [None if dim in self.open else size for dim, size in enumerate(self.value.shape)]
        return TensorSpec(tuple(sizes), self.value.dtype)


def given_tensors(texts: Sequence[str], seed: int = 0) -> list[Given]:
    """The tensors of ``--input``: random ones of a shape, ``NAME:SHAPE:DTYPE``, and those of files."""
    found: list[Given] = []
    for index, text in enumerate(texts):
        if Path(text).suffix in _FILES:
            found += [Given(value, name) for name, value in read_tensors(text).items()]
            continue
        named = _NAMED.fullmatch(text)
        name, spec = named.groups() if named else ("", text)
        parsed, unknown = parse_spec(spec)
        found.append(Given(random_tensor(parsed, (seed + index) % (1 << 64)), name, unknown, bool(name)))
    return found


def in_order(given: Sequence[Given], names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """The tensors as a program with arguments of these names takes them: by name where all have one, else by place."""
    return tuple(each.value for each in given_in_order(given, names))


def given_in_order(given: Sequence[Given], names: Sequence[str]) -> tuple[Given, ...]:
    """As :func:`in_order`, with what else is known of each."""
    by_name = {each.name: each for each in given if each.name}
    if names and len(by_name) == len(given) and set(by_name) == set(names[: len(given)]):
        return tuple(by_name[name] for name in names[: len(given)])
    spelled = [each.name for each in given if each.name and each.name not in names]
    if names and spelled and any(each.is_typed or each.name in names for each in given):
        raise InvalidInput(
            f"the program has no argument '{spelled[0]}'",
            subject="--input",
            advice=f"it has {', '.join(names)}",
        )
    return tuple(given)


def parse_spec(text: str) -> tuple[TensorSpec, tuple[int, ...]]:
    """``1x3x64x64:f32`` as shape and dtype; ``f32`` alone is rank 0, a shape alone is ``f32``.

    Second, the dimensions of unknown sizes: ``?64`` is one of which 64 is an example, ``?`` has the example 2.
    """
    found = _SPEC.fullmatch(text)
    dtype = _DTYPES.get((found.group(2) or found.group(3) or "f32") if found else "")
    if found is None or dtype is None:
        raise InvalidInput(
            f"cannot read '{text}'",
            subject="--input",
            advice="write 1x3x64x64:f32, name:1x3:float32, or ?x3 or ?64x3 where a size is unknown (dtypes: "
            f"{', '.join(sorted(name for name in _DTYPES if name.isalnum()))}), or give a .npz, .npy or .pt file",
        )
    sizes = found.group(1).split("x") if found.group(1) else []
    shape = tuple(int(size.lstrip("?") or 2) for size in sizes)
    return TensorSpec(shape, dtype), tuple(dim for dim, size in enumerate(sizes) if size[0] == "?")


def random_tensor(spec: TensorSpec, seed: int = 0) -> torch.Tensor:
    """Random values: normal for floats, 0 to 9 for integers, both for booleans. Unknown sizes are 2."""
    generator = torch.Generator().manual_seed(seed)
    shape = [2 if size is None else size for size in spec.shape]
    try:
        if spec.dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(spec.dtype)
        if spec.dtype.is_complex:
            return torch.randn(shape, generator=generator, dtype=spec.dtype)
        high = 2 if spec.dtype == torch.bool else 10
        return torch.randint(0, high, shape, generator=generator).to(spec.dtype)
    except RuntimeError as error:  # more than there is memory, or than a size can be
        raise InvalidInput(f"no tensor can have the shape {'x'.join(map(str, shape))}", subject="--input") from error


def read_tensors(file: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, none of which may run code."""
    import numpy

    path = Path(file)
    try:
        if path.suffix == ".npz":
            with numpy.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if path.suffix == ".npy":
            return {path.stem: torch.from_numpy(numpy.load(path, allow_pickle=False))}
        if path.suffix == ".pt":
            leaves = pytree.tree_leaves(torch.load(path, weights_only=True))
            return {f"{path.stem}{index}": leaf for index, leaf in enumerate(leaves)}
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InvalidInput(f"cannot read '{file}': {first_line(error)}", subject="--input") from error
    except Exception as error:  # torch.load has errors of pickle's own
        raise InvalidInput(f"cannot read '{file}': {type(error).__name__}", subject="--input") from error
    raise InvalidInput(f"cannot read '{file}'", subject="--input", advice="give a .npz, .npy or .pt file")


def check_output(file: str | None) -> None:
    """Raise for a name that :func:`write_tensors` cannot write, before the work is done."""
    if file and not file.endswith(_FILES):
        raise InvalidInput(f"cannot tell the format from '{file}'", subject="-o", advice="name it .npz, .npy or .pt")


def write_tensors(file: str, leaves: Sequence[Any]) -> None:
    """Write results: ``.npz`` and ``.pt`` hold all of them, ``.npy`` one."""
    import numpy

    check_output(file)
    values = [leaf for leaf in leaves if isinstance(leaf, (torch.Tensor, bool, int, float, complex))]
    content = io.BytesIO()
    if file.endswith(".pt"):
        torch.save([torch.as_tensor(value).detach().clone() for value in values], content)
    elif file.endswith(".npy"):
        if len(values) != 1:
            raise InvalidInput(
                f"a .npy file holds one array, there are {len(values)}", subject="-o", advice="name it .npz"
            )
        numpy.save(content, _array(values[0]))
    else:
        numpy.savez(content, **{f"result{index}": _array(value) for index, value in enumerate(values)})
    write_whole(file, content.getvalue())


def _array(leaf: Any) -> Any:
    """A result for NumPy, which has no bfloat16: float32 has all of its numbers."""
    tensor = torch.as_tensor(leaf).detach().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def described(leaf: Any) -> str:
    """A result in a line: ``[1, 10] float32``."""
    if not isinstance(leaf, torch.Tensor):
        return repr(leaf)
    return f"{list(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}"


__all__ = [
    "Given",
    "check_output",
    "described",
    "given_in_order",
    "given_tensors",
    "in_order",
    "parse_spec",
    "random_tensor",
    "read_tensors",
    "write_tensors",
]
