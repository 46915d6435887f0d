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
        constants = import_torchscript(torch.jit.script(case.function), copied(case.calls[0])).signature.constants
        fixed.update({case.name: constants} if constants else {})
    assert fixed == {
        "if_on_optional": {1: None},
        "string_choice": {1: "relu"},
        "named_tuple_argument": {1: None},
        "optional_number": {1: None},
        "strings_enums_and_formats": {1: "mean"},
    }


def test_quantised_tensors() -> None:
    """Elements, scale and zero point of what the program quantises."""

    @torch.jit.script
    def program(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float, int]:
        signed = torch.quantize_per_tensor(x, 0.1, 3, torch.qint8)
        unsigned = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
        return (
            signed.dequantize(),
            unsigned.dequantize(),
            unsigned.int_repr(),
            signed.q_scale(),
            signed.q_zero_point(),
        )

    x = torch.randn(5, 7) * 8
    module = import_torchscript(program, (x,))
    for ours, eager in zip(module(x), program(x), strict=True):
        torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize("name", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig", "float16_dynamic_qconfig"])
def test_linear_layers_that_are_quantised_at_each_call(name: str) -> None:
    from torch.ao import quantization

    layers = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3, bias=False))
    settings = {torch.nn.Linear: getattr(quantization, name)}
    dtype = torch.float16 if name.startswith("float16") else torch.qint8
    model = torch.jit.script(quantization.quantize_dynamic(layers, settings, dtype=dtype))
    x = torch.randn(2, 3, 8)
    module = import_torchscript(model, (x,))
    for given in (x, x * -2.5, x.abs() + 3, -x.abs() - 3, x * 0, x * 1e-4):
        torch.testing.assert_close(module(given), model(given), rtol=1e-6, atol=1e-6)


class Recurrent(torch.nn.Module):
    def __init__(self, layer: type[torch.nn.LSTM] | type[torch.nn.GRU]) -> None:
        super().__init__()
        self.layers = layer(4, 6, 2, batch_first=True, bidirectional=True)
        self.out = torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        y, last = self.layers(x)
        return self.out(y), last


class Cells(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = torch.nn.LSTMCell(4, 6), torch.nn.GRUCell(6, 5), torch.nn.RNNCell(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, c = self.lstm(x)
        return self.rnn(self.gru(h)), c


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=["int8", "float16"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "cells"])
def test_recurrent_layers_that_are_quantised_at_each_call(name: str, dtype: torch.dtype) -> None:
    from torch.ao import quantization

    nn = torch.nn
    model = Cells() if name == "cells" else Recurrent(getattr(nn, name))
    kinds = {nn.LSTM, nn.GRU, nn.Linear, nn.LSTMCell, nn.GRUCell, nn.RNNCell}
    program = torch.jit.script(quantization.quantize_dynamic(model.eval(), kinds, dtype=dtype))
    x = torch.randn(2, 4) if name == "cells" else torch.randn(2, 3, 4)
    module = import_torchscript(program, (x,))
    for given in (x, x * -2.5, x * 0):
        torch.testing.assert_close(module(given), program(given), rtol=1e-5, atol=1e-6)
