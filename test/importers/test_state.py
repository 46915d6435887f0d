"""State seen over several calls, by every importer: results, ``state_dict``, and results that must stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from state_modules import (
    AttributeReassigned,
    LimitedEmbedding,
    ListChanged,
    Moved,
    NumberChanged,
    Reassigned,
    Remembering,
    Swapped,
    Together,
)
from torch import nn

import torch_tvm
from torch_tvm.support.errors import ImportFailed

CALLS = [torch.tensor(values) for values in ([1.0, -2.0, 0.5], [0.3, 0.6, -1.5], [2.0, 1.0, -0.25])]


def torch_compiled(module: nn.Module, example: tuple[torch.Tensor]) -> Any:
    torch._dynamo.reset()
    return torch.compile(module, backend="torch_tvm")


def scripted_parts(module: Together, example: tuple[torch.Tensor], compiled: bool = True) -> Any:
    """Scripting knows no loop over modules of several types: part by part."""
    parts = [torch_tvm.compile(part, example, frontend="torchscript") for part in module.parts]

    def call(x: torch.Tensor) -> list[torch.Tensor]:
        results = [part(x) for part in parts]
        return [leaf for result in results for leaf in (result if isinstance(result, tuple) else (result,))]

    call.state_dict = lambda: {  # type: ignore[attr-defined]
        f"parts.{i}.{name}": value for i, part in enumerate(parts) for name, value in part.state_dict().items()
    }
    return call


def exported(module: nn.Module, example: tuple[torch.Tensor]) -> Any:
    """The program as :func:`torch_tvm.import_fx` gives it, op by op: compiled code is seen by the others."""
    imported = torch_tvm.import_fx(module, example)
    imported.state_dict = lambda: imported.state  # type: ignore[attr-defined]
    return imported


def frontend(name: str) -> Callable[..., Any]:
    return lambda module, example: torch_tvm.compile(module, example, frontend=name)


WAYS: dict[str, tuple[Callable[..., Any], tuple[type[nn.Module], ...]]] = {
    "fx": (exported, ()),
    "lazy": (frontend("lazy"), (Moved,)),
    "torchscript": (scripted_parts, ()),
    "torch.compile": (torch_compiled, ()),
}


@pytest.mark.filterwarnings("ignore::torch_tvm.FallbackWarning")
@pytest.mark.parametrize("way", sorted(WAYS))
def test_state_over_calls(way: str) -> None:
    compile_, left_out = WAYS[way]
    eager = Together(*left_out)
    initial = copy.deepcopy(eager).state_dict()
    with torch.no_grad():
        ours = compile_(copy.deepcopy(eager), (CALLS[0],))
        kept = []
        for x in CALLS:
            results, wanted = ours(x.clone()), eager(x.clone())
            torch.testing.assert_close(results, wanted)
            kept.append((results, [result.clone() for result in results]))
    state = ours.state_dict()
    for name, tensor in eager.state_dict().items():
        ours_ = state.get(name, state.get(f"_orig_mod.{name}", initial[name]))
        torch.testing.assert_close(ours_, tensor, msg=lambda text, n=name: f"{n}: {text}")
    for results, copies in kept if way != "torch.compile" else ():
        torch.testing.assert_close(results, copies)


def test_scripting_drops_the_limit_of_an_embedding() -> None:
    """PyTorch's own scripted module returns rows longer than ``max_norm``: ours are eager's."""
    module, indices = LimitedEmbedding(), torch.tensor([2.0, 2.0, 1.0])
    with torch.no_grad():
        assert torch.jit.script(copy.deepcopy(module))(indices).norm(dim=1).max() > 1.5
        assert module(indices).norm(dim=1).max() < 1.001


def test_export_drops_what_a_submodule_puts_in_place_of_a_buffer() -> None:
    """PyTorch's exported program returns the same in each call, and it refuses to swap two buffers."""
    module = nn.Sequential(Reassigned())
    program = torch.export.export(module, (CALLS[0],), strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(program(CALLS[0]), program(CALLS[0]))
    with pytest.raises(Exception, match="nn_module_stack"):
        torch.export.export(Swapped(), (CALLS[0],), strict=False)


def test_scripting_drops_a_write_through_atleast_3d() -> None:
    """PyTorch's schema says nothing of the memory that the result shares, so the write is dead code to it."""

    def write(b: torch.Tensor) -> torch.Tensor:
        torch.atleast_3d(b)[:, 2, 0] = 1
        return b

    assert torch.jit.script(write)(torch.zeros(2, 3)).max() == 0
    assert torch_tvm.import_fx(write, (torch.zeros(2, 3),))(torch.zeros(2, 3)).max() == 1


@pytest.mark.parametrize("module", [NumberChanged, AttributeReassigned, ListChanged], ids=lambda m: m.__name__)
def test_changed_attributes_are_refused_or_state(module: type[nn.Module]) -> None:
    """What ``forward`` changes and reads again is no constant; a scripted program keeps it as state."""
    with torch.no_grad():
        if module is not AttributeReassigned:
            program = module()
            with pytest.raises(ImportFailed, match="the program changes its attribute"):
                torch_tvm.import_fx(program, (CALLS[0],))
            torch.testing.assert_close(program(CALLS[0]), module()(CALLS[0]))
        if module is ListChanged:
            return
        scripted, eager = torch_tvm.import_torchscript(module(), (CALLS[0],)), module()
        for x in CALLS:
            torch.testing.assert_close(scripted(x), eager(x))
        if module is AttributeReassigned:
            for importer in (torch_tvm.import_lazy, torch_tvm.import_fx):
                imported, eager = importer(module(), (CALLS[0],)), module()
                for x in CALLS:
                    torch.testing.assert_close(imported(x), eager(x))
        else:
            with pytest.raises(ImportFailed, match="is changed by the program"):
                torch_tvm.import_lazy(module(), (CALLS[0],))


def test_attributes_that_are_only_noted_stay_as_they_were() -> None:
    program = Remembering()
    with torch.no_grad():
        module = torch_tvm.import_fx(program, (CALLS[0],))
        for x in CALLS:
            torch.testing.assert_close(module(x), x * 2 + 1)
    assert program.last is None and program.shape == ()


@pytest.mark.parametrize("write", ["unsqueeze_(0)", "t_()", "resize_(2)", "set_(x * 2)"])
def test_the_shape_of_an_argument_cannot_change(write: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def change(x):\n    x.{write}\n    return x + 1", namespace)
    with pytest.raises(ImportFailed, match=r"in place|torch\.export refused"), torch.no_grad():
        torch_tvm.import_fx(namespace["change"], (torch.ones(2, 2),))


class BufferOfAnotherType(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept: torch.Tensor
        self.register_buffer("kept", torch.zeros(2, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = self.kept * 0.5
        return x + 1


def test_a_buffer_cannot_change_its_dtype() -> None:
    with pytest.raises(ImportFailed, match="the program gives 'kept' another shape or dtype"):
        torch_tvm.import_fx(BufferOfAnotherType(), (torch.ones(2),))


class Constants(nn.Module):
    """Tensors that each call makes of numbers, and writes."""

    def forward(self, x: torch.Tensor) -> Any:
        n, m = torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])
        n.unsqueeze(0).mul_(2)
        m[1:].add_(1)
        return x * n, x + m, n


@pytest.mark.parametrize("way", ["fx", "lazy", "torch.compile"])
def test_constants_are_made_anew(way: str) -> None:
    compile_ = frontend("fx") if way == "fx" else WAYS[way][0]
    ours = compile_(Constants(), (CALLS[0],))
    for x in CALLS:
        torch.testing.assert_close(ours(x), Constants()(x))
