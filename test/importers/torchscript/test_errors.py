"""What cannot be imported says so in one form, with the user's own line; bad input never crashes."""

from __future__ import annotations

import inspect
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.torchscript import import_graph, import_torchscript
from torch_tvm.support.errors import ImportFailed, InvalidInput

rejects: Any = sys.modules["torchscript_rejects"]


def marked_line(function: Any) -> int | None:
    lines, start = inspect.getsourcelines(function)
    return next((start + i for i, line in enumerate(lines) if line.rstrip().endswith("# here")), None)


@pytest.mark.parametrize("reject", rejects.REJECTS, ids=lambda reject: reject.function.__name__)
def test_rejected(reject: Any) -> None:
    scripted = torch.jit.script(reject.function)
    with pytest.raises(ImportFailed) as caught:
        import_torchscript(scripted, reject.args)
    message = str(caught.value)
    assert reject.message in message
    assert reject.advice in message
    line = marked_line(reject.function)
    if line is not None:
        assert message.splitlines()[0].startswith(f"{rejects.__file__}:{line}: "), message
    assert "importer: torchscript" in message


def test_run_time_assertion_is_an_error_with_its_message() -> None:
    def positive(x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() < 0):
            raise ValueError("sum must not be negative")
        return x * 2

    module = import_torchscript(positive, (torch.ones(3),))
    torch.testing.assert_close(module(torch.ones(3)), torch.full((3,), 2.0))
    with pytest.raises(Exception, match="ValueError: sum must not be negative"):
        module(-torch.ones(3))


def test_run_time_assertion_inside_a_loop() -> None:
    def check(x: torch.Tensor, n: int) -> torch.Tensor:
        for i in range(n):
            assert bool(x[i] > 0), "element must be positive"
        return x

    module = import_torchscript(check, (torch.ones(3), 3))
    x = torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(module(x, 1), x)
    with pytest.raises(Exception, match="element must be positive"):
        module(x, 2)


def test_module_that_does_not_script() -> None:
    class Bad(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return [i for i in (yield x)]

    with pytest.raises(ImportFailed) as caught:
        import_torchscript(Bad(), (torch.ones(2),))
    assert "torch.jit.script failed" in str(caught.value)
    assert "use import_fx, torch.jit.trace" in str(caught.value)


@pytest.mark.parametrize(
    ("program", "args", "message"),
    [
        (3, (), "expected a ScriptModule, a ScriptFunction, an nn.Module or a path, got int"),
        ("/no/such/file.pt", (), "no such file: /no/such/file.pt"),
        (torch.jit.script(nn.Linear(2, 2)), (torch.ones(1, 2), 1), "takes 1 arguments, 2 were given"),
        (torch.jit.script(nn.Linear(2, 2)), {"x": 1}, "example_args must be a tuple of arguments, got dict"),
        (torch.jit.script(nn.Linear(2, 2)), (), "argument 'input' has no example and no default"),
    ],
    ids=["number", "path", "count", "dict", "missing"],
)
def test_bad_call(program: Any, args: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        import_torchscript(program, args)
    assert message in str(caught.value)


def test_wrong_kind_of_argument() -> None:
    def add(x: torch.Tensor, n: int) -> torch.Tensor:
        return x + n

    with pytest.raises(InvalidInput, match="argument 'n' has type int, got a tensor"):
        import_torchscript(add, (torch.ones(2), torch.ones(2)))
    with pytest.raises(InvalidInput, match="argument 'x' has type Tensor, got str"):
        import_torchscript(add, ("a", 1))


def test_missing_method_lists_those_there_are() -> None:
    with pytest.raises(InvalidInput, match="no method 'encode' for these arguments; it has"):
        import_torchscript(torch.jit.script(nn.Linear(2, 2)), (torch.ones(1, 2),), method="encode")


def test_file_that_is_no_torchscript(tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ImportFailed, match="not a TorchScript file"):
        import_torchscript(path, (torch.ones(2),))


def test_quantised_weights_are_refused() -> None:
    tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", tensor)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.w.dequantize()

    traced = torch.jit.trace(Holder(), (torch.ones(3),))
    with pytest.raises(ImportFailed, match=r"import the module before torch\.jit\.optimize_for_inference"):
        import_torchscript(traced, (torch.ones(3),))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "GrowingState",
            "attribute 'history' is changed by the program, and it is neither a tensor nor a number",
        ),
        ("ShapeState", "attribute 'seen' changes its shape or dtype"),
    ],
)
def test_state_that_has_no_form(module: str, message: str) -> None:
    program = getattr(sys.modules["torchscript_module_zoo"], module)()
    with pytest.raises(ImportFailed, match=message):
        import_torchscript(torch.jit.script(program), (torch.ones(3),))


def test_graph_with_the_wrong_count_of_inputs() -> None:
    graph = torch._C.parse_ir("graph(%x : Tensor):\n  %y : Tensor = aten::relu(%x)\n  return (%y)")
    with pytest.raises(InvalidInput, match="the graph has 1 inputs, 2 were described"):
        import_graph(graph, (torch.ones(2), TensorSpec((2,))))


def test_our_own_calls_of_torch_jit_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        warnings.simplefilter("error", FutureWarning)
        import_torchscript(nn.Linear(2, 2), (torch.ones(1, 2),))
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit.script"):
        torch.jit.script(nn.Linear(2, 2))


@pytest.mark.parametrize("part", ["data.pkl", ".debug_pkl"])
def test_a_file_that_asks_for_all_memory_is_refused(part: str, tmp_path: Path) -> None:
    """PyTorch's reader of pickles makes a table as long as an index in it says, for source lines when they are asked
    for.
    """
    torch.jit.script(torch.nn.Linear(4, 2)).save(str(tmp_path / "sound.pt"))
    greedy = b"\x80\x02]r" + (0xFFFFFFF0).to_bytes(4, "little") + b"."
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as sound,
        zipfile.ZipFile(tmp_path / "greedy.pt", "w") as made,
    ):
        for name in sound.namelist():
            made.writestr(name, greedy if name.endswith(part) else sound.read(name))
    import_torchscript(str(tmp_path / "sound.pt"), (torch.ones(2, 4),))
    with pytest.raises(ImportFailed, match=r"PyTorch cannot read it \(it takes too much memory"):
        import_torchscript(str(tmp_path / "greedy.pt"), (torch.ones(2, 4),))
