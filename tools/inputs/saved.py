"""``torch-tvm run`` of a file that ``save`` wrote: with its sample, with given arguments, or with random ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_tvm.loading import load_with_sample
from torch_tvm.runtime.calls.convention import Argument, Convention
from torch_tvm.runtime.module import CompiledModule
from torch_tvm.support.errors import InvalidInput
from torch_tvm.tools.inputs.tensors import given_tensors, in_order


def loaded_with_arguments(
    path: str, inputs: Sequence[str], seed: int, *, check: bool
) -> tuple[CompiledModule, Sequence[Any], tuple[Any, ...] | None]:
    """A saved module, arguments for it, and the results that it gave when it was saved if ``check`` asks for them."""
    module, sample = load_with_sample(path)
    if check and sample is None:
        raise InvalidInput(
            f"'{path}' has no arguments to check with",
            subject="--check",
            advice="save it with sample_args=(x,)",
        )
    if check and inputs:
        raise InvalidInput("the file has the arguments of its check", subject="--input")
    if inputs:
        convention = module.parts().code.convention
        names = [argument.name for argument in convention.arguments]
        given = in_order(given_tensors(inputs, seed), names)
        return module, _nested(convention, list(given)), None
    return module, _arguments(module, sample, seed), (sample[1],) if check and sample else None


def difference_from_saved(results: Any, expected: Any) -> str:
    """How results differ from those that were saved, ``""`` if they do not."""
    found, nesting = pytree.tree_flatten(results)
    wanted, other = pytree.tree_flatten(expected)
    try:
        assert nesting == other, f"its results are {nesting}, they were {other}"
        for result, before in zip(found, wanted, strict=True):
            if isinstance(before, (torch.Tensor, int, float, complex)):
                torch.testing.assert_close(result, before, rtol=1e-4, atol=1e-5, equal_nan=True)
            else:
                assert result == before, f"{result!r} where it was {before!r}"
    except AssertionError as error:
        return str(error)
    return ""


def _arguments(module: CompiledModule, sample: tuple[tuple[Any, ...], Any] | None, seed: int) -> Sequence[Any]:
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
            advice="give --input 2x3:f32, or a .npz, .npy or .pt file",
        )
    sizes = [size for size in argument.sizes if isinstance(size, int)]
    if argument.dtype.is_floating_point or argument.dtype.is_complex:
        return torch.randn(sizes, generator=generator, dtype=torch.float32).to(argument.dtype)
    return torch.randint(0, 2, sizes, generator=generator).to(argument.dtype)


def _nested(convention: Convention, leaves: list[Any]) -> Sequence[Any]:
    expected = len(convention.arguments)
    if len(leaves) != expected:
        raise InvalidInput(f"the program takes {expected} tensors, {len(leaves)} are given", subject="--input")
    if convention.in_spec is None:
        return leaves
    if convention.constants:
        raise InvalidInput("the program has fixed arguments", advice="save it with sample_args=(…)")
    args, kwargs = pytree.tree_unflatten(leaves, convention.in_spec)
    if kwargs:
        raise InvalidInput("the program has keyword arguments", advice="save it with sample_args=(…)")
    return list(args)


__all__ = ["difference_from_saved", "loaded_with_arguments"]
