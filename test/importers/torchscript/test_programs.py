"""Scripted programs with control flow and data structures: imported, verified, and run against eager."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from torch_tvm.importers.torchscript import import_torchscript
from torch_tvm.passes.pipeline import canonicalize

PROGRAMS = sys.modules["torchscript_programs"].PROGRAMS


def copied(args: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, args)


def assert_same(got: Any, want: Any) -> None:
    got_leaves, _ = pytree.tree_flatten(got)
    want_leaves, _ = pytree.tree_flatten(want)
    assert len(got_leaves) == len(want_leaves), (got, want)
    for a, b in zip(got_leaves, want_leaves, strict=True):
        assert type(a) is type(b), (a, b)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
        else:
            assert a == b if not isinstance(a, float) else a == pytest.approx(b, rel=1e-6)


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case.name)
def test_program(case: Any) -> None:
    scripted = torch.jit.script(case.function)
    module = import_torchscript(scripted, copied(case.calls[0]))
    module.verify()
    for call in case.calls:
        if _differs_in_nesting(call, case.calls[0]):
            module = import_torchscript(scripted, copied(call))
        want = scripted(*copied(call))
        assert_same(module(*copied(call)), want)


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case.name)
def test_program_in_canonical_form(case: Any) -> None:
    scripted = torch.jit.script(case.function)
    module = canonicalize(import_torchscript(scripted, copied(case.calls[0])))
    for call in case.calls:
        if not _differs_in_nesting(call, case.calls[0]):
            assert_same(module(*copied(call)), scripted(*copied(call)))


def _differs_in_nesting(a: Any, b: Any) -> bool:
    return any((x is None) != (y is None) for x, y in zip(a, b, strict=True))


def test_table_is_large() -> None:
    assert len(PROGRAMS) >= 60
    assert len({case.name for case in PROGRAMS}) == len(PROGRAMS)


def test_only_text_and_none_are_fixed_at_import() -> None:
    fixed = {}
    for case in PROGRAMS:
        constants = import_torchscript(
            torch.jit.script(case.function), copied(case.calls[0])
        ).signature.constants
        fixed.update({case.name: constants} if constants else {})
    assert fixed == {
        "if_on_optional": {1: None},
        "string_choice": {1: "relu"},
        "named_tuple_argument": {1: None},
        "optional_number": {1: None},
        "strings_enums_and_formats": {1: "mean"},
    }
