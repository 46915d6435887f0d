"""``torch-tvm run`` of a file that ``save`` wrote: with its sample, with arguments from files, or with random ones."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.loading import load_with_sample
from torch_tvm.runtime.convention import Argument, Convention
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.support.errors import InvalidInput
from torch_tvm.support.files import write_whole


def run_saved(path: str, inputs: Sequence[str], *, check: bool, output: str | None, seed: int) -> int:
    """Run a saved module and print what came of it; 1 where its results are not those of the sample."""
    module, sample = load_with_sample(path)
    if check:
        return _checked(module, sample, path)
    arguments = _from_files(module, inputs) if inputs else _arguments(module, sample, seed)
    started = time.perf_counter()
    results = module(*arguments)
    print(f"ran in {(time.perf_counter() - started) * 1e3:.2f} ms")
    leaves = pytree.tree_leaves(results)
    for index, leaf in enumerate(leaves):
        print(f"result {index}: {described(leaf)}")
    if output:
        _write(output, leaves)
    return 0


def described(leaf: Any) -> str:
    """A result in a line: ``[1, 10] float32``."""
    if not isinstance(leaf, torch.Tensor):
        return repr(leaf)
    return f"{list(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}"


def _checked(module: CompiledModule, sample: tuple[tuple[Any, ...], Any] | None, path: str) -> int:
    if sample is None:
        raise InvalidInput(
            f"'{path}' has no arguments to check with",
            subject="--check",
            advice="save it with sample_args=(x,)",
        )
    args, expected = sample
    results, nesting = pytree.tree_flatten(module(*args))
    wanted, other = pytree.tree_flatten(expected)
    try:
        assert nesting == other, f"its results are {nesting}, they were {other}"
        for result, before in zip(results, wanted, strict=True):
            if isinstance(before, (torch.Tensor, int, float, complex)):
                torch.testing.assert_close(result, before, rtol=1e-4, atol=1e-5, equal_nan=True)
            else:
                assert result == before, f"{result!r} where it was {before!r}"
    except AssertionError as error:
        print(f"differs from what was saved: {error}")
        return 1
    print("agrees with what was saved")
    return 0


def _arguments(
    module: CompiledModule, sample: tuple[tuple[Any, ...], Any] | None, seed: int
) -> Sequence[Any]:
    """Those of the sample, or random ones for a signature of tensors."""
    if sample is not None:
        return sample[0]
    convention = module.parts().code.convention
    generator = torch.Generator().manual_seed(seed)
    return _nested(convention, [_random(argument, generator) for argument in convention.arguments])


def _random(argument: Argument, generator: torch.Generator) -> Any:
    if argument.kind != "tensor":
        return {"int": 1, "float": 0.5, "bool": True}[argument.kind]
    unknown = [size for size in argument.sizes if not isinstance(size, int)]
    if unknown or None in argument.sizes:
        raise InvalidInput(
            f"argument '{argument.name}' has the sizes {argument}",
            advice="give --input FILE.npz, .npy or .pt",
        )
    sizes = [size for size in argument.sizes if isinstance(size, int)]
    if argument.dtype.is_floating_point or argument.dtype.is_complex:
        return torch.randn(sizes, generator=generator, dtype=torch.float32).to(argument.dtype)
    return torch.randint(0, 2, sizes, generator=generator).to(argument.dtype)


def _nested(convention: Convention, leaves: list[Any]) -> Sequence[Any]:
    expected = len(convention.arguments)
    if len(leaves) != expected:
        raise InvalidInput(
            f"the program takes {expected} tensors, the files have {len(leaves)}", subject="--input"
        )
    if convention.in_spec is None:
        return leaves
    if convention.constants:
        raise InvalidInput("the program has fixed arguments", advice="save it with sample_args=(…)")
    args, kwargs = pytree.tree_unflatten(leaves, convention.in_spec)
    if kwargs:
        raise InvalidInput("the program has keyword arguments", advice="save it with sample_args=(…)")
    return list(args)


def _from_files(module: CompiledModule, files: Sequence[str]) -> Sequence[Any]:
    """The flat arguments, one file after the other; arrays of an ``.npz`` by argument name, or in their order."""
    convention = module.parts().code.convention
    names = [argument.name for argument in convention.arguments]
    found: list[Any] = []
    for file in files:
        tensors = _read(file)
        by_name = all(name in tensors for name in names)
        found += [tensors[name] for name in names] if by_name else list(tensors.values())
    return _nested(convention, found)


def _read(file: str) -> dict[str, torch.Tensor]:
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
        raise InvalidInput(f"cannot read '{file}': {error}", subject="--input") from error
    except Exception as error:  # torch.load has errors of pickle's own
        raise InvalidInput(f"cannot read '{file}': {type(error).__name__}", subject="--input") from error
    raise InvalidInput(f"cannot read '{file}'", subject="--input", advice="give a .npz, .npy or .pt file")


def _write(file: str, leaves: Sequence[Any]) -> None:
    import numpy

    if not file.endswith(".npz"):
        raise InvalidInput(f"cannot tell the format from '{file}'", subject="-o", advice="name it .npz")
    arrays = {f"result{index}": _array(leaf) for index, leaf in enumerate(leaves) if _has_array(leaf)}
    content = io.BytesIO()
    numpy.savez(content, **arrays)
    write_whole(file, content.getvalue())


def _has_array(leaf: Any) -> bool:
    return isinstance(leaf, (torch.Tensor, bool, int, float, complex))


def _array(leaf: Any) -> Any:
    """A result for NumPy, which has no bfloat16: float32 has all of its numbers."""
    tensor = torch.as_tensor(leaf).detach().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


__all__ = ["described", "run_saved"]
