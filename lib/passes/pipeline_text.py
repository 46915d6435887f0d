"""The nested pass-pipeline syntax, with passes of torch-mlir and of this project mixed freely.

``builtin.module(func.func(torch-decompose-complex-ops{legal-ops=aten.conv2d},fold-x),canonicalize)`` becomes
one step a pass. Passes of torch-mlir run through MLIR's pass manager; those of this project run from Python
between them, each on the kind of operation that it is nested in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TextIO

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from torch_tvm.dialect.mlir import PassManager, ir
from torch_tvm.dialect.module import TorchModule
from torch_tvm.passes.base import FUNCTION, MODULE, Pass, registry
from torch_tvm.support.errors import InvalidInput, SourceLocation, TorchTvmError
from torch_tvm.support.passes import split_options

_GRAMMAR = r"""
start: element
elements: [element ("," element)*]
element: NAME [options] | NAME "(" elements ")"
options: "{" text* "}"
text: TEXT | "{" text* "}"
NAME: /[A-Za-z_][\w.-]*/
TEXT: /[^{}]+/
%ignore /\s+/
"""
_PLACE = re.compile(r'"([^"]*)":(\d+):(\d+)')
_ANCHORS = (MODULE, FUNCTION, "any")


class PassFailed(TorchTvmError):
    """A pass that refused a module: which, where and its diagnostics. ``column`` is 0 when unknown."""

    def __init__(self, step: str, error: ir.MLIRError, prefix: str = "") -> None:
        found = _PLACE.search(str(error.error_diagnostics[0].location)) if error.error_diagnostics else None
        location = SourceLocation(found.group(1), int(found.group(2))) if found else None
        messages = "\n  ".join(d.message for d in error.error_diagnostics) or str(error)
        super().__init__(prefix + messages, subject=step, location=location)
        self.column = int(found.group(3)) if found else 0


@dataclass(frozen=True)
class Step:
    """One pass of a pipeline: ours (``python_pass``), or torch-mlir's with its nested text."""

    name: str
    anchors: tuple[str, ...]
    options: str = ""
    python_pass: Pass | None = None

    @property
    def text(self) -> str:
        """``builtin.module(func.func(name{options}))``."""
        inner = str(self.python_pass) if self.python_pass else self.name + (self.options and f"{{{self.options}}}")
        return "(".join([*self.anchors, inner]) + ")" * len(self.anchors)

    def run(self, module: TorchModule, print_after: TextIO | None = None) -> None:
        """Apply to a module; :class:`PassFailed` carries the diagnostics of a pass that fails."""
        if self.python_pass is not None:
            self.python_pass.apply(module)
            if print_after is not None:
                print(f"// -----// IR Dump After {self.name} //----- //\n{module.mlir}", file=print_after)
            return
        context = module.mlir.context
        manager = PassManager.parse(self.text, context)
        if print_after is not None:
            print_after.flush()
            context.enable_multithreading(False)
            manager.enable_ir_printing()
        try:
            manager.run(module.mlir.operation)
        except ir.MLIRError as error:
            raise PassFailed(self.name, error) from error


def run_pipeline(
    module: TorchModule,
    pipeline: str | Sequence[Step],
    *,
    verify_each: bool = False,
    print_after: TextIO | None = None,
    before_each: Callable[[Step], None] | None = None,
) -> None:
    """Run a pipeline, given as text or as steps, on a module in place.

    ``verify_each`` verifies the module after each pass of ours (MLIR does after its own); ``print_after``
    gets the module after each pass, ``before_each`` each step before it runs. Raises :class:`InvalidInput`
    for text that is no pipeline and :class:`PassFailed` when a pass fails.
    """
    steps = parse_pipeline(pipeline, module.mlir.context) if isinstance(pipeline, str) else pipeline
    for step in steps:
        if before_each is not None:
            before_each(step)
        step.run(module, print_after)
        if verify_each:
            _verify(module, step)


def _verify(module: TorchModule, step: Step) -> None:
    try:
        module.mlir.operation.verify()
    except ir.MLIRError as error:
        raise PassFailed(step.name, error, "the module is invalid after this pass: ") from error


# -- text ----------------------------------------------------------------------------------------------


def parse_pipeline(text: str, context: ir.Context) -> list[Step]:
    """The steps of a pipeline; :class:`InvalidInput` shows the column of what is wrong."""
    tree = _tree(text)
    element = tree.children[0]
    assert isinstance(element, Tree)
    name = _name(element)
    if name != MODULE:
        raise _error(text, name.start_pos, f"a pipeline starts with {MODULE}(…), got '{name}'")
    return list(_steps(text, element, (), context))


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=True)


def _tree(text: str) -> Tree[Any]:
    try:
        return _parser().parse(text)
    except UnexpectedInput as error:
        position = error.pos_in_stream
        at = len(text) if position is None or position < 0 or "$END" in str(getattr(error, "token", "")) else position
        if isinstance(getattr(error, "token", None), Token) and error.token.type == "$END":
            raise _error(text, len(text), "the pipeline ends here: a bracket is not closed") from None
        raise _error(text, at, f"unexpected '{text[at : at + 1]}'") from None


def _name(element: Tree[Any]) -> Token:
    token = element.children[0]
    assert isinstance(token, Token)
    return token


def _steps(text: str, element: Tree[Any], anchors: tuple[str, ...], context: ir.Context) -> Iterator[Step]:
    name = _name(element)
    body = element.children[1] if len(element.children) > 1 else None
    if isinstance(body, Tree) and body.data == "elements":
        yield from _nested(text, element, anchors, context)
        return
    options = text[body.meta.start_pos + 1 : body.meta.end_pos - 1].strip() if isinstance(body, Tree) else ""
    if str(name) in _ANCHORS:
        raise _error(text, name.end_pos or 0, f"'{name}' takes passes in parentheses")
    python_pass = registry().get(str(name))
    if python_pass is None:
        step = Step(str(name), anchors, options)
        _check_known(text, step, name, context)
        yield step
        return
    if python_pass.anchor != anchors[-1]:
        raise _error(text, name.start_pos, f"'{name}' runs on {python_pass.anchor}, here it is in {anchors[-1]}(…)")
    try:
        yield Step(str(name), anchors, options, python_pass.from_options(split_options(options)))
    except InvalidInput as error:
        raise _error(text, name.start_pos, f"'{name}': {error.problem}") from None


def _nested(text: str, element: Tree[Any], anchors: tuple[str, ...], context: ir.Context) -> Iterator[Step]:
    name = _name(element)
    if str(name) not in _ANCHORS:
        known = " or ".join(_ANCHORS)
        raise _error(text, name.start_pos, f"'{name}' cannot hold passes; nest them in {known}")
    allowed = not anchors or (anchors[-1] == MODULE and str(name) != MODULE)
    if not allowed:
        raise _error(text, name.start_pos, f"'{name}(…)' cannot be inside '{anchors[-1]}(…)'")
    body = element.children[1]
    assert isinstance(body, Tree)
    for child in body.children:
        if isinstance(child, Tree):
            yield from _steps(text, child, (*anchors, str(name)), context)


def single_pass(name: str, options: str, context: ir.Context) -> Step:
    """One pass by name, nested as it needs to be; :class:`InvalidInput` when nobody has it."""
    python_pass = registry().get(name)
    if python_pass is not None:
        anchors = (MODULE,) if python_pass.anchor == MODULE else (MODULE, FUNCTION)
        return Step(name, anchors, options, python_pass.from_options(split_options(options)))
    on_module, on_function = Step(name, (MODULE,), options), Step(name, (MODULE, FUNCTION), options)
    problem = why_unknown(on_module, context)
    if problem is None:
        return on_module
    if "runs on func.func" in problem:
        problem = why_unknown(on_function, context)
        if problem is None:
            return on_function
    raise InvalidInput(problem)


def _check_known(text: str, step: Step, name: Token, context: ir.Context) -> None:
    problem = why_unknown(step, context)
    if problem:
        raise _error(text, name.start_pos, problem)


def why_unknown(step: Step, context: ir.Context) -> str | None:
    """What torch-mlir has against a pass, its nesting or its options; ``None`` when it takes it."""
    try:
        PassManager.parse(step.text, context)
    except ValueError as error:
        message = str(error)
        if "does not refer to a registered pass" in message:
            close = difflib.get_close_matches(step.name, list(registry()), 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            return f"'{step.name}' is no pass of torch-mlir or of torch_tvm{hint}"
        if "did you intend to nest" in message:
            restricted = message.partition("restricted to '")[2].partition("'")[0]
            return f"'{step.name}' runs on {restricted}, here it is in {step.anchors[-1]}(…)"
        first = message.strip().partition("\n")[0]
        return f"'{step.name}': {first.partition('Parser>: ')[2] or first}"
    return None


def _error(text: str, position: int | None, problem: str) -> InvalidInput:
    at = position or 0
    before = text[:at]
    line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
    shown = text.splitlines()[line - 1] if text.splitlines() else ""
    place = f"{line}:{column}" if line > 1 else f"column {column}"
    return InvalidInput(f"{place}: {problem}\n  {shown}\n  {' ' * (column - 1)}^", subject="pass pipeline")
