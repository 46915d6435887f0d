"""The pass-pipeline syntax: nesting, options, mixing of passes, and errors with their column."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from torch_tvm.dialect.mlir import ir, new_context
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes import base
from torch_tvm.passes.base import FUNCTION, Pass, registry
from torch_tvm.passes.pipeline_text import PassFailed, parse_pipeline, run_pipeline, single_pass
from torch_tvm.support.errors import InternalError, InvalidInput

MODULE = """
func.func private @declared(!torch.int) -> !torch.int
func.func @first() -> !torch.int {
  %0 = torch.constant.int 1
  return %0 : !torch.int
}
func.func @second() -> !torch.int {
  %0 = torch.constant.int 2
  %1 = torch.constant.int 2
  %2 = torch.aten.add.int %0, %1 : !torch.int, !torch.int -> !torch.int
  return %2 : !torch.int
}
"""
TRACE: list[Any] = []


@dataclass(frozen=True)
class MarkFunction(Pass):
    """Mark each function.

    ``legal_ops`` is noted, ``breaks`` makes the module invalid.
    """

    anchor: ClassVar[str] = FUNCTION
    legal_ops: tuple[str, ...] = ()
    breaks: bool = False
    factor: float = 1.5
    count: int = 3
    text: str = ""

    def run(self, root: ir.Operation) -> None:
        TRACE.append((root.attributes["sym_name"].value, self))
        root.attributes["marked"] = ir.UnitAttr.get(root.context)
        if self.breaks:
            list(root.regions[0].blocks[0].operations)[-1].operation.erase()


@dataclass(frozen=True)
class CountAdds(Pass):
    """Count additions and the marks that are there already."""

    def run(self, module: TorchModule) -> None:
        text = str(module.mlir)
        TRACE.append(tuple(map(text.count, ("aten.add.int", "marked", "constant.int 2"))))


def module_of(text: str) -> TorchModule:
    return TorchModule(ir.Module.parse(text, new_context()), {})


@pytest.fixture(autouse=True)
def passes() -> Iterator[None]:
    known = registry()
    known.update({each.name: each for each in (MarkFunction, CountAdds)})
    TRACE.clear()
    yield
    for each in (MarkFunction, CountAdds):
        del known[each.name]


@pytest.fixture
def module() -> TorchModule:
    return module_of(MODULE)


def test_passes_of_both_kinds_run_in_order(module: TorchModule) -> None:
    run_pipeline(
        module,
        "builtin.module(count-adds,func.func(mark-function,cse),count-adds,func.func(canonicalize),count-adds)",
    )
    names = [entry[0] for entry in TRACE if isinstance(entry[0], str)]
    assert names == ["first", "second"], "a function without a body is left alone"
    assert [entry for entry in TRACE if isinstance(entry[0], int)] == [(1, 0, 2), (1, 2, 1), (0, 2, 0)]


def test_options_arrive_with_their_types(module: TorchModule) -> None:
    text = "builtin.module(func.func(mark-function{legal-ops=aten.a,aten.b factor=2 count=-1 text={x}}))"
    run_pipeline(module, text)
    assert TRACE[0][1] == MarkFunction(("aten.a", "aten.b"), False, 2.0, -1, "x")


def test_a_step_prints_as_what_reads_back(module: TorchModule) -> None:
    text = "builtin.module(func.func(mark-function{legal-ops=a,b breaks=true factor=2.5 count=7 text=x}))"
    (step,) = parse_pipeline(text, module.mlir.context)
    (again,) = parse_pipeline(step.text, module.mlir.context)
    assert step.text == text and again == step


def test_white_space_is_free(module: TorchModule) -> None:
    text = "builtin.module ( \n func.func ( cse , mark-function { count = 3 } ) \n )".replace("count = 3", "count=4")
    steps = parse_pipeline(text, module.mlir.context)
    assert [step.name for step in steps] == ["cse", "mark-function"] and "count=4" in str(steps[1].python_pass)


def test_empty_pipelines_do_nothing(module: TorchModule) -> None:
    for text in ("builtin.module()", "builtin.module(func.func())"):
        assert parse_pipeline(text, module.mlir.context) == []


ERRORS = [
    ("builtin.module(no-such-pass)", 16, "'no-such-pass' is no pass of torch-mlir or of torch_tvm"),
    ("builtin.module(mark-functions)", 16, "did you mean 'mark-function'?"),
    (
        "builtin.module(mark-function)",
        16,
        "'mark-function' runs on func.func, here it is in builtin.module(…)",
    ),
    (
        "builtin.module(func.func(count-adds))",
        26,
        "'count-adds' runs on builtin.module, here it is in func.func(…)",
    ),
    ("builtin.module(torch-decompose-complex-ops)", 16, "runs on func.func, here it is in builtin.module(…)"),
    ("builtin.module(func.func(torch-adjust-calling-conventions))", 26, "runs on builtin.module"),
    (
        "builtin.module(cse,func.func(mark-function{counts=1}))",
        30,
        "no such option 'counts'; its options: legal-ops",
    ),
    ("builtin.module(func.func(mark-function{count=x}))", 26, "option 'count' must be int, got 'x'"),
    (
        "builtin.module(func.func(mark-function{breaks=1}))",
        26,
        "option 'breaks' must be true or false, got '1'",
    ),
    ("builtin.module(func.func(torch-decompose-complex-ops{x=1}))", 26, "no such option x"),
    ("builtin.module(cse", 19, "a bracket is not closed"),
    ("builtin.module(cse))", 20, "unexpected ')'"),
    ("builtin.module(cse,,cse)", 20, "unexpected ','"),
    ("builtin.module(func.func)", 25, "'func.func' takes passes in parentheses"),
    ("builtin.module(func.func(func.func(cse)))", 26, "cannot be inside 'func.func(…)'"),
    ("builtin.module(cse(cse))", 16, "'cse' cannot hold passes"),
    ("builtin.module(any(mark-function))", 20, "here it is in any(…)"),
    ("func.func(cse)", 1, "a pipeline starts with builtin.module(…)"),
    ("", 1, "the pipeline ends here"),
    ("§", 1, "unexpected '§'"),
]


@pytest.mark.parametrize(("text", "column", "message"), ERRORS, ids=[row[0] or "empty" for row in ERRORS])
def test_errors_point_at_their_column(text: str, column: int, message: str, module: TorchModule) -> None:
    with pytest.raises(InvalidInput) as caught:
        run_pipeline(module, text)
    first, source, caret = str(caught.value).splitlines()
    assert f"pass pipeline: column {column}: " in first and message in first
    assert source == f"  {text}" and caret == " " * (column + 1) + "^"
    assert TRACE == [] and str(module.mlir) == str(ir.Module.parse(MODULE, module.mlir.context)), "nothing ran"


def test_errors_in_later_lines_name_the_line(module: TorchModule) -> None:
    with pytest.raises(InvalidInput, match=r"pass pipeline: 2:3: 'nope' is no pass.*\n    nope\)\n    \^"):
        run_pipeline(module, "builtin.module(cse,\n  nope)")


def test_a_broken_module_is_blamed_on_the_pass(module: TorchModule) -> None:
    text = "builtin.module(func.func(mark-function{breaks=true}))"
    with pytest.raises(PassFailed, match=r"-:4: mark-function: the module is invalid after this pass: .*terminator"):
        run_pipeline(module, text, verify_each=True)


def test_a_failing_pass_repeats_its_diagnostics() -> None:
    module = module_of("func.func @main(%x: !torch.vtensor) -> !torch.vtensor {\n  return %x : !torch.vtensor\n}")
    with pytest.raises(PassFailed, match=r"-:1: torch-function-to-torch-backend-pipeline: unsupported by backend"):
        run_pipeline(module, "builtin.module(torch-function-to-torch-backend-pipeline)")


def test_modules_are_printed_after_each_pass_of_ours(module: TorchModule) -> None:
    out = io.StringIO()
    run_pipeline(module, "builtin.module(func.func(mark-function))", print_after=out)
    assert "IR Dump After mark-function" in out.getvalue() and "marked" in out.getvalue()


def test_a_single_pass_is_nested_as_it_needs(module: TorchModule) -> None:
    for name, nested in [
        ("mark-function", "builtin.module(func.func("),
        ("count-adds", "builtin.module(count-adds"),
        ("torch-decompose-complex-ops", "builtin.module(func.func("),
        ("canonicalize", "builtin.module(canonicalize"),
    ]:
        assert single_pass(name, "", module.mlir.context).text.startswith(nested)
    with pytest.raises(InvalidInput, match="'nope' is no pass"):
        single_pass("nope", "", module.mlir.context)


def test_names_come_from_the_class() -> None:
    class FoldBF16Casts(Pass):
        """Fold."""

    assert FoldBF16Casts.name == "fold-bf16-casts" and FoldBF16Casts.summary() == "Fold."


def test_the_registry_has_the_passes_of_the_folder() -> None:
    for name, found in registry().items():
        if found not in (MarkFunction, CountAdds):
            assert found.__module__ == f"torch_tvm.passes.{name.replace('-', '_')}"
            assert found.summary(), f"{name} has no docstring"


def test_a_misnamed_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_tvm.passes.pipeline_text as somewhere

    class OddOne(Pass):
        """Stands in the wrong file."""

    OddOne.__module__ = somewhere.__name__
    monkeypatch.setattr(somewhere, "OddOne", OddOne, raising=False)
    with pytest.raises(InternalError, match=r"pass OddOne in pipeline_text.py: the file should be named odd_one.py"):
        base.registry.__wrapped__()


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_pass_takes_modules_without_code(name: str) -> None:
    declaration = "func.func private @declared(!torch.int) -> !torch.int"
    for text in ("module {}", declaration, "func.func @f() { return }"):
        module = module_of(text)
        before = str(module.mlir)
        run_pipeline(module, [single_pass(name, "", module.mlir.context)], verify_each=True)
        assert str(module.mlir) == before
