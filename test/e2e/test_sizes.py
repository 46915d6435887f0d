"""Programs of unknown sizes against eager PyTorch at every small size: eager's values, or an error where it has one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from size_programs import PROGRAMS, Program
from torch.export import Dim

import torch_tvm
from torch_tvm import ImportFailed, InvalidInput, TensorSpec

_IN_CI = {
    "slice_front",
    "slice_add",
    "slice_assign_tensor",
    "element",
    "narrow",
    "view_pairs",
    "view_sevens",
    "interpolate_uneven",
    "pad_zeros",
    "conv1d",
    "max_pool2d",
    "pad_reflect",
    "topk",
    "amax",
    "branch_on_size",
    "add_two",
    "linear",
    "shifted_spectrum",
    "spectrum",
    "shifted_bits_of_sizes",
    "distances_of_pairs",
    "margins",
    "entropy_of_probabilities",
    "rolled_by_size",
    "norm_of_size",
    "sum_of_scaled_products",
    "steps_of_size",
    "a_column_is_written",
}
"""The rest runs with ``-m e2e``."""

_BROADCAST = {"add_two", "add_rows", "where_two", "matmul_batches", "mse_loss", "chunk_two"}
"""Unknown sizes that meet are taken for equal: one of 1 beside another is refused."""

_NOT_EMPTY = {"pixel_unshuffle"}
"""PyTorch's kernel gives no shape for a size of 0 that its fake tensors know."""

_CONSTANT = {"split_two", "unbind_three"}
"""The size can only be one number: an unknown one is an ``ImportFailed`` that says so."""

_FIXED = {
    "split_all",
    "view_fixed",
    "expand_to_three",
    "add_four",
    "matmul_four",
    "linear",
    "conv1d_channels",
    "layer_norm",
    "batch_norm_channels",
}
"""The size can only be one number, or nearly: the program says which, and another is refused by a call."""


def _cases() -> list[Any]:
    return [
        pytest.param(program, id=str(program), marks=() if str(program) in _IN_CI else pytest.mark.e2e)
        for program in PROGRAMS
    ]


@pytest.mark.parametrize("program", _cases())
def test_torchscript(program: Program) -> None:
    specs = tuple(
        TensorSpec(tuple(None if isinstance(size, str) else size for size in shape), torch.float32)
        for shape in program.shapes
    )
    if str(program) in _CONSTANT:
        with pytest.raises(ImportFailed):
            torch_tvm.compile(torch.jit.script(program.function), specs)
        return
    compiled = torch_tvm.compile(torch.jit.script(program.function), specs)
    _compare(compiled, program, may_refuse=str(program) in _BROADCAST | _NOT_EMPTY | _FIXED)


@pytest.mark.parametrize("program", _cases())
def test_export(program: Program) -> None:
    example = _example(program)
    if example is None:
        pytest.skip("no example of two sizes above 3 that eager takes")
    shapes = tuple(
        {axis: Dim.AUTO for axis, size in enumerate(shape) if isinstance(size, str)} for shape in program.shapes
    )
    compiled = torch_tvm.compile(program.function, example, dynamic_shapes=shapes, frontend="fx")
    _compare(compiled, program, may_refuse=True)


def _example(program: Program) -> tuple[torch.Tensor, ...] | None:
    for n, m in ((8, 8), (6, 6), (4, 4), (8, 4), (5, 5)):
        arguments = program.arguments({"n": n, "m": m})
        try:
            program.function(*arguments)
        except (RuntimeError, IndexError, ValueError):
            continue
        return arguments
    return None


def _compare(compiled: Any, program: Program, *, may_refuse: bool) -> None:
    """Results as eager's; an ``InvalidInput`` where eager raises, and with ``may_refuse`` elsewhere too."""
    answers = 0
    for sizes in program.calls():
        arguments = program.arguments(sizes)
        try:
            want = program.function(*(argument.clone() for argument in arguments))
        except (RuntimeError, IndexError, ValueError):
            with pytest.raises(InvalidInput):
                print(sizes, compiled(*arguments))
            continue
        try:
            got = compiled(*arguments)
        except InvalidInput:
            assert may_refuse, sizes
            continue
        answers += 1
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert answers
